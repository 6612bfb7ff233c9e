"""weights.py, run as a user runs it."""

import dataclasses
import json
import runpy
import zipfile

import darknet_cfg
import numpy as np
import pytest
from PIL import Image
from steps import (
    NAMES,
    TINY,
    detect,
    model_files,
    refused,
    train,
    weights,
)

from yolov3_tf2.inference.detector import Detector
from yolov3_tf2.network import checkpoint, darknet
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


OWN = {
    "anchors": (8, 9.5, 30, 12, 22, 41, 60, 33, 50, 90, 120, 77),
    "masks": ((3, 5, 4), (0, 1, 2)),
}
OWN_SCALES = (((60, 33), (120, 77), (50, 90)), ((8, 9.5), (30, 12), (22, 41)))
UNKNOWN = "tiny.weights is not the official file of yolov3-tiny: assuming the published"


@pytest.fixture(scope="module")
def own_cfg(tmp_path_factory):
    path = tmp_path_factory.mktemp("cfg") / "own.cfg"
    path.write_text(darknet_cfg.yolov3_tiny(96, len(NAMES), **OWN))
    return path


def test_a_file_without_a_cfg_is_warned_about(run_script, outputs, files):
    process = weights(run_script, outputs, files / "tiny.weights")
    assert process.returncode == 0, process.stderr
    (warning,) = (x for x in process.stderr.splitlines() if x.startswith("WARNING"))
    assert UNKNOWN in warning and "size 416" in warning and "--cfg" in warning
    assert "23x27 37x58 81x82" in warning


def test_what_the_cfg_says_reaches_every_step(run_script, outputs, files, own_cfg):
    process = run_script(
        "weights.py",
        *("--model=yolov3-tiny", "--weights", files / "tiny.weights"),
        *("--cfg", own_cfg, "--classes", files / "classes.txt"),
        outputs=outputs / "weights",
    )
    assert process.returncode == 0, process.stderr
    assert "WARNING" not in process.stderr
    variant = dataclasses.replace(TINY, anchors=OWN_SCALES)
    model, info = checkpoint.load_model(outputs / "weights" / "model")
    assert info == ModelInfo(variant, NAMES, 96)
    own_model = model_files(outputs / "weights" / "model")

    process = detect(
        run_script,
        outputs / "detect",
        files,
        files / "image.png",
        model=outputs / "weights" / "model",
        precision="float32",
    )
    assert process.returncode == 0, process.stderr
    found = json.loads((outputs / "detect" / "detections.json").read_text())
    detector = Detector(
        model, variant, 64, score_threshold=1e-4, iou_threshold=0.5, max_boxes=100
    )
    image = np.asarray(Image.open(files / "image.png"))
    (expected,) = detector([detector.prepare(image)])
    corners = np.array([annotation["bbox"] for annotation in found["annotations"]])
    corners[:, 2:] += corners[:, :2]
    np.testing.assert_allclose(corners, expected.boxes_px, atol=0.02)

    process = train(run_script, outputs / "train", files, model=own_model)
    assert process.returncode == 0, process.stderr
    assert checkpoint.load_model(outputs / "train" / "model")[1].variant == variant
    # A training run with other anchors cannot resume from it.
    checkpoints = sorted((outputs / "train" / "checkpoints").iterdir())
    process = train(run_script, outputs / "again", files, checkpoints=checkpoints)
    refused(process, outputs / "again", "a training run with anchors [[[81, 82],")


@pytest.mark.parametrize(
    "options, words",
    [
        (["--model=yolov3"], ["expected the layers of yolov3,", "--model=yolov3-tiny"]),
        (["--weights_num_classes=5"], ["expected 5 classes", "got 3"]),
    ],
)
def test_a_cfg_that_contradicts_the_parameters(
    run_script, outputs, files, own_cfg, options, words
):
    process = run_script(
        "weights.py",
        *("--model=yolov3-tiny", "--cfg", own_cfg),
        *("--weights", files / "tiny.weights", *options),
        outputs=outputs,
    )
    refused(process, outputs, str(own_cfg), *words)


def test_a_cfg_of_other_weights(run_script, outputs, files, tmp_path):
    (tmp_path / "own.cfg").write_text(darknet_cfg.yolov3_tiny(96, 5))
    process = run_script(
        "weights.py",
        *("--model=yolov3-tiny", "--cfg", tmp_path / "own.cfg"),
        *("--weights", files / "tiny.weights"),
        outputs=outputs,
    )
    refused(
        process, outputs, "with 5 classes", "the size of yolov3-tiny with 3 classes"
    )


def test_a_size_that_is_not_square(run_script, outputs, files, tmp_path):
    text = darknet_cfg.yolov3_tiny(96, len(NAMES)).replace("height=96", "height=64")
    (tmp_path / "wide.cfg").write_text(text)
    process = weights(
        run_script, outputs, files / "tiny.weights", "--cfg", tmp_path / "wide.cfg"
    )
    assert process.returncode == 0, process.stderr
    assert "width=96 height=64 is not square: size 96 is used" in process.stderr
    assert checkpoint.read_model_info(outputs / "model").size == 96


def test_a_backbone_file(run_script, outputs, files, tmp_path):
    original, _ = checkpoint.load_model(files / "model")
    # As yolov3-tiny.conv.15: the backbone and two convolutions of the neck.
    darknet.write_weights(tmp_path / "tiny.conv.15", original, num_convolutions=9)
    process = weights(
        run_script,
        outputs / "weights",
        tmp_path / "tiny.conv.15",
        *("--image", files / "image.png"),
    )
    assert process.returncode == 0, process.stderr
    assert "tiny.conv.15 is a backbone file with 9 convolutions" in process.stderr
    assert "image.png: not tested, as a backbone detects nothing" in process.stderr
    assert UNKNOWN not in process.stderr
    info = checkpoint.read_model_info(outputs / "weights" / "model")
    assert info == ModelInfo(TINY, [], 416, parts=("backbone",))

    own_model = outputs / "weights" / "model"
    process = detect(
        run_script, outputs / "detect", files, files / "image.png", model=own_model
    )
    refused(process, outputs / "detect", "only the backbone", "--transfer=darknet")
    process = train(run_script, outputs / "no", files, model=model_files(own_model))
    refused(process, outputs / "no", "--transfer=heads", "use --transfer=darknet")
    process = train(
        run_script,
        outputs / "train",
        files,
        "--transfer=darknet",
        model=model_files(own_model),
    )
    assert process.returncode == 0, process.stderr
    assert "transfer darknet: 6,298,480 of 8,680,864" in process.stderr
    trained, info = checkpoint.load_model(outputs / "train" / "model")
    assert info.class_names == NAMES
    first = "backbone_00_conv"  # Frozen in the only epoch.
    np.testing.assert_array_equal(
        trained.get_layer(first).kernel, original.get_layer(first).kernel
    )


def test_the_official_file_is_known(run_script, outputs, shared, tiny_weights):
    """Its anchors are known, whatever the published cfg says."""
    for arguments in ((), ("--cfg", shared / "weights" / "yolov3-tiny.cfg")):
        process = run_script(
            "weights.py",
            *("--model=yolov3-tiny", "--weights", tiny_weights, *arguments),
            outputs=outputs,
        )
        assert process.returncode == 0, process.stderr
        assert "WARNING" not in process.stderr
        assert ("is the official file, so" in process.stderr) == bool(arguments)
        assert checkpoint.read_model_info(outputs / "model").variant == TINY


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mask012", "half"])
def test_the_official_weights_for_other_anchors(
    run_script, outputs, shared, tiny_weights, monkeypatch, tmp_path, kind
):
    """With their cfg they find the boxes of the official ones; without it not."""
    program = shared / "cases" / "make_weights.py"
    monkeypatch.setattr("sys.argv", ["", str(tiny_weights), str(tmp_path)])
    runpy.run_path(str(program), run_name="__main__")
    own = ["--weights", tmp_path / f"{kind}.weights"]
    boxes = {}
    for name, arguments in {
        "official": ["--weights", tiny_weights],
        "cfg": [*own, "--cfg", tmp_path / f"{kind}.cfg"],
        "alone": own,
    }.items():
        folder = outputs / name
        process = run_script(
            "weights.py", "--model=yolov3-tiny", *arguments, outputs=folder
        )
        assert process.returncode == 0, process.stderr
        assert ("WARNING" in process.stderr) == (name == "alone")
        model, info = checkpoint.load_model(folder / "model")
        detector = Detector(
            model,
            info.variant,
            info.size,
            score_threshold=0.25,
            iou_threshold=0.45,
            max_boxes=100,
        )
        with zipfile.ZipFile(shared / "data" / "coco-mini" / "images.zip") as archive:
            images = [Image.open(archive.open(n)) for n in archive.namelist()[:12]]
            inputs = [detector.prepare(np.asarray(x.convert("RGB"))) for x in images]
        boxes[name] = [found.boxes_px for found in detector(inputs)]
    assert sum(map(len, boxes["official"])) > 10
    for ours, official in zip(boxes["cfg"], boxes["official"], strict=True):
        np.testing.assert_allclose(ours, official, atol=0.1)
    assert any(
        a.shape != b.shape or np.abs(a - b).max(initial=0) > 5
        for a, b in zip(boxes["alone"], boxes["official"], strict=True)
    )
