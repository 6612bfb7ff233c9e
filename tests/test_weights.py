"""weights.py, run as a user runs it."""

import numpy as np
from steps import NAMES, TINY, refused, weights

from yolov3_tf2.network import checkpoint
from yolov3_tf2.network.model_info import ModelInfo


def test_weights(run_script, outputs, files):
    process = weights(
        run_script,
        outputs,
        files / "tiny.weights",
        *("--classes", files / "classes.txt", "--image", files / "image.png"),
    )
    assert process.returncode == 0, process.stderr
    loaded, info = checkpoint.load_model(outputs / "model")
    assert info == ModelInfo(TINY, NAMES, 416)
    assert "image.png: 0 objects with a score over 0.25" in process.stderr
    original, _ = checkpoint.load_model(files / "model")
    for ours, theirs in zip(loaded.variables, original.variables, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_weights_refuses_a_truncated_file(run_script, outputs, files, tmp_path):
    short = tmp_path / "short.weights"
    short.write_bytes((files / "tiny.weights").read_bytes()[:-1000])
    process = weights(run_script, outputs, short)
    refused(process, outputs, str(short), "expected 8,680,864 weights", "cut off")


def test_weights_names_the_class_count_of_the_file(run_script, outputs, files):
    process = weights(run_script, outputs, files / "tiny.weights", classes=80)
    refused(process, outputs, "the size of yolov3-tiny with 3 classes")


def test_weights_refuses_another_number_of_class_names(run_script, outputs, files):
    process = weights(
        run_script,
        outputs,
        files / "tiny.weights",
        *("--classes", files / "classes.txt"),
        classes=4,
    )
    refused(process, outputs, "classes.txt", "expected 4 class names", "got 3")


def test_weights_advises_when_a_download_fails(run_script, outputs):
    process = weights(run_script, outputs, "http://127.0.0.1:9/none.weights")
    refused(
        process,
        outputs,
        "http://127.0.0.1:9/none.weights cannot be downloaded",
        "--weights FILE",
    )
    # Without a file, the official weights.
    process = run_script(
        "weights.py",
        "--model=yolov3-tiny",
        outputs=outputs,
        https_proxy="http://127.0.0.1:9",
    )
    refused(process, outputs, "/yolov3-tiny.weights cannot be downloaded")


def test_weights_refuses_outputs_that_are_not_finite(
    run_script, outputs, files, tmp_path
):
    numbers = np.frombuffer((files / "tiny.weights").read_bytes()[20:], "<f4").copy()
    numbers *= 1e30
    path = tmp_path / "huge.weights"
    path.write_bytes((files / "tiny.weights").read_bytes()[:20] + numbers.tobytes())
    refused(weights(run_script, outputs, path), outputs, "not finite")
