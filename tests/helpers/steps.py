"""Starts the steps as a user does, and what their tests compare."""

import os
import resource
import subprocess
import sys

from project import REPOSITORY

from yolov3_tf2.network import checkpoint
from yolov3_tf2.network.variants import VARIANTS

TINY = VARIANTS["yolov3-tiny"]
NAMES = ["circle", "square", "triangle"]


def model_files(folder):
    return [folder / name for name in checkpoint.FILES]


def refused(process, outputs, *words):
    """Checks that a step ended with one clear message and left nothing behind."""
    assert process.returncode == 1, process.stdout + process.stderr
    lines = [line for line in process.stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]
    assert len(errors) == 1, process.stderr
    assert "Traceback" not in process.stderr
    for word in words:
        assert word in errors[0]
    left = [p for p in outputs.rglob("*")] if outputs.exists() else []
    assert left == []


def convert(run_script, outputs, images, labels, *arguments, **environment):
    return run_script(
        "convert_superbai.py",
        *("--images", images, "--labels", labels),
        *arguments,
        outputs=outputs,
        **environment,
    )


def start(script, outputs, *arguments, **options):
    clean = {k: v for k, v in os.environ.items() if not k.startswith("VH_")}
    return subprocess.Popen(
        [sys.executable, str(REPOSITORY / script), *map(str, arguments)],
        env={**clean, "VH_OUTPUTS_DIR": str(outputs)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def on_a_full_disk(script, outputs, size, *arguments):
    """Runs a step where no file may have more bytes, as if the disk were full."""
    process = start(
        script,
        outputs,
        *arguments,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)),
    )
    _, stderr = process.communicate()
    assert process.returncode == 1 and "Traceback" not in stderr, stderr
    (error,) = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert f"outputs folder {outputs}: " in error and ".partial" not in stderr
    assert " cannot be written: File too large; free space" in error
    return error


def weights(run_script, outputs, path, *arguments, classes=3):
    return run_script(
        "weights.py",
        *("--weights", path, "--model=yolov3-tiny", f"--weights_num_classes={classes}"),
        *arguments,
        outputs=outputs,
    )


def train(run_script, outputs, files, *arguments, **changes):
    inputs = {
        "classes": [files / "classes.txt"],
        "train": [files / "two.tfrecord"],
        "test": [files / "two.tfrecord"],
        "model": model_files(files / "model"),
    } | changes
    return run_script(
        "train.py",
        *(a for name, paths in inputs.items() for a in (f"--{name}", *paths)),
        *("--epochs=1", "--size=64"),
        *arguments,
        outputs=outputs,
    )


def detect(run_script, outputs, files, *images, model=None, **options):
    return run_script(
        "detect.py",
        *("--model", *model_files(model or files / "model")),
        *("--image", *images),
        *("--size=64", "--score_threshold=0.0001"),
        *(a for name, value in options.items() for a in (f"--{name}", value)),
        outputs=outputs,
    )
