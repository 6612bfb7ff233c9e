"""Fixtures that several test files share; what is slow to make is made once."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import hypothesis
import pytest
from project import REPOSITORY, SHARED

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Programs: one takes the arguments of the process that imports it for its own.
collect_ignore = [
    "superbai/fuzz_export.py",
    "superbai/platform/drive_platform_server.py",
]
# The same examples everywhere, and none that fails where the machine is busy.
hypothesis.settings.register_profile(
    "repeatable",
    derandomize=True,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def shared():
    """The folder of real data and weights beside the project."""
    if not SHARED.is_dir():
        pytest.skip(f"the real data is not here: no folder {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def tiny_weights(shared):
    """The official yolov3-tiny weights."""
    path = shared / "weights" / "yolov3-tiny.weights"
    if not path.is_file():
        pytest.skip(f"the official weights are not here: no file {path}")
    return path


@pytest.fixture(scope="session")
def run_script():
    """Runs a script as a user does; returns the finished process."""

    def run(script, *arguments, outputs=None, cwd=REPOSITORY, **environment):
        # What this process has set for itself is no user's.
        ours = ("VH_", "TF_CPP_MIN_LOG_LEVEL")
        clean = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
        if outputs:
            clean["VH_OUTPUTS_DIR"] = str(outputs)
        return subprocess.run(
            [sys.executable, str(cwd / script), *map(str, arguments)],
            cwd=cwd,
            env={**clean, **environment},
            capture_output=True,
            text=True,
        )

    return run


@pytest.fixture(scope="session")
def checkout(tmp_path_factory):
    """A copy of the project to run it in: what it writes stays out of this one."""
    folder = tmp_path_factory.mktemp("checkout") / "train-superbai"
    unwanted = shutil.ignore_patterns(".*", "tests", "__pycache__", "venv")
    return Path(shutil.copytree(REPOSITORY, folder, ignore=unwanted))


@pytest.fixture(scope="session")
def sample_run(checkout, run_script):
    """A finished `python pipeline.py` on the built-in sample: process and outputs."""
    process = run_script("pipeline.py", cwd=checkout)
    assert process.returncode == 0, process.stdout + process.stderr
    (run,) = (checkout / ".valohai" / "outputs").iterdir()
    return process, run


@pytest.fixture(scope="session")
def training_inputs(tmp_path_factory, run_script):
    """Arguments of train.py: the sample's drawn images and a network for them."""
    from valohai_step.local import sample
    from yolov3_tf2.network import checkpoint
    from yolov3_tf2.network.model import build_model
    from yolov3_tf2.network.model_info import ModelInfo
    from yolov3_tf2.network.variants import VARIANTS

    folder = tmp_path_factory.mktemp("training_inputs")
    sample.write_export(folder, num_train=24, num_test=7)
    process = run_script(
        "convert_superbai.py",
        *("--images", folder / "images.zip", "--labels", folder / "labels.zip"),
        "--images_per_shard=10",
        outputs=folder,
    )
    assert process.returncode == 0, process.stderr
    model = build_model(VARIANTS["yolov3-tiny"], 2)
    info = ModelInfo(VARIANTS["yolov3-tiny"], ["circle", "disc"], 64)
    checkpoint.save_model(folder / "model", model, info)
    return [
        *("--classes", folder / "classes.txt"),
        *("--train", *(folder / "train").iterdir()),
        *("--test", *(folder / "test").iterdir()),
        *("--model", *(folder / "model" / name for name in checkpoint.FILES)),
    ]


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """Small whole inputs of every step."""
    import tensorflow as tf
    from PIL import Image
    from steps import NAMES, TINY

    from superbai.labelled_image import Record
    from valohai_step.local import sample
    from yolov3_tf2.data import records
    from yolov3_tf2.network import checkpoint, darknet
    from yolov3_tf2.network.model import build_model
    from yolov3_tf2.network.model_info import ModelInfo

    folder = tmp_path_factory.mktemp("files")
    sample.write_export(folder, num_train=4, num_test=2)
    (folder / "classes.txt").write_text("\n".join(NAMES) + "\n")
    model = build_model(TINY, len(NAMES))
    darknet.write_weights(folder / "tiny.weights", model)
    checkpoint.save_model(folder / "model", model, ModelInfo(TINY, NAMES, 64))
    image = Image.new("RGB", (64, 48), (9, 9, 200))
    image.save(folder / "image.png")
    with tf.io.TFRecordWriter(str(folder / "two.tfrecord")) as writer:
        for number in range(2):
            record = Record(
                f"ds/{number}.png",
                (folder / "image.png").read_bytes(),
                "png",
                64,
                48,
                [(5, 5, 30, 30)],
                [number],
            )
            writer.write(records.serialize_example(record, NAMES))
    return folder


@pytest.fixture
def outputs(tmp_path):
    return tmp_path / "outputs"


@pytest.fixture
def without_tensorflow(tmp_path):
    """An environment in which the import of TensorFlow fails."""
    package = tmp_path / "path" / "tensorflow"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('imported too early')")
    return {"PYTHONPATH": str(package.parent)}
