"""The step scripts as processes: what they say to bad input, and what they leave."""

import csv
import importlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from concurrent.futures import Future
from pathlib import Path

import keras
import numpy as np
import pytest
import reference
import suite_export
import tensorflow as tf
from PIL import Image
from project import REPOSITORY
from suite_export import box, labelled, polygon, rotated

from superbai.export import Record
from valohai_step import runtime
from valohai_step.local import sample
from valohai_step.outputs import _publish
from yolov3_tf2.data import records
from yolov3_tf2.evaluation import coco, draw
from yolov3_tf2.inference import review
from yolov3_tf2.inference.detector import Detector
from yolov3_tf2.network import checkpoint, darknet
from yolov3_tf2.network.folding import fold
from yolov3_tf2.network.model import build_model
from yolov3_tf2.network.variants import VARIANTS

TINY = VARIANTS["yolov3-tiny"]
NAMES = ["circle", "square", "triangle"]


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """Small whole inputs of every step."""
    folder = tmp_path_factory.mktemp("files")
    sample.write_export(folder, num_train=4, num_test=2)
    (folder / "classes.txt").write_text("\n".join(NAMES) + "\n")
    model = build_model(TINY, len(NAMES))
    darknet.write_weights(folder / "tiny.weights", model)
    checkpoint.save_model(folder / "model", model, NAMES, 64)
    image = Image.new("RGB", (64, 48), (9, 9, 200))
    image.save(folder / "picture.png")
    with tf.io.TFRecordWriter(str(folder / "two.tfrecord")) as writer:
        for number in range(2):
            record = Record(
                f"ds/{number}.png",
                (folder / "picture.png").read_bytes(),
                "png",
                64,
                48,
                [(5, 5, 30, 30)],
                [number],
            )
            writer.write(records.serialize_example(record, NAMES))
    return folder


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


# --- What is refused before TensorFlow is imported ---


def test_the_import_of_tensorflow_can_be_seen(
    run_script, outputs, files, without_tensorflow
):
    process = run_script(
        "convert_superbai.py",
        *("--images", files / "images.zip", "--labels", files / "labels.zip"),
        outputs=outputs,
        **without_tensorflow,
    )
    assert process.returncode == 1 and "imported too early" in process.stderr


@pytest.mark.parametrize(
    "script, arguments, words",
    [
        ("train.py", ["--epochs=0"], ["--epochs", "from 1 to 10000", "got 0"]),
        ("train.py", ["--learning_rate=nan"], ["--learning_rate", "got nan"]),
        ("train.py", ["--size=100"], ["multiple of 32", "got 100", "96 and 128"]),
        ("train.py", ["--size=320-600"], ["multiple of 32", "got 600"]),
        ("train.py", ["--size=608-320"], ["the smaller end first", "got 608-320"]),
        ("train.py", ["--size=large"], ["a range such as 320-608", "got 'large'"]),
        ("train.py", ["--size=0-64"], ["32 to 4096", "got 0"]),
        ("train.py", ["--transfer=all"], ["darknet, no_output, heads, none", "'all'"]),
        ("train.py", ["--epoch=3"], ["no parameter or input 'epoch'", "--epochs"]),
        ("detect.py", ["photo.jpg"], ["option before it, as in", "photo.jpg"]),
        ("train.py", ["--epochs", "3", "4"], ["4: expected an option before it"]),
        ("convert_superbai.py", ["--images="], ["--images=: expected a value"]),
        ("detect.py", ["--iou_threshold=1.5"], ["from 0 to 1", "got 1.5"]),
        ("detect.py", ["--score_threshold=-1"], ["from 0 to 1", "got -1"]),
        ("weights.py", ["--model=yolov4"], ["yolov3-tiny", "'yolov4'"]),
        ("detect.py", ["--size=-32"], ["--size", "from 0 to 4096", "got -32"]),
        ("detect.py", ["--size=300"], ["--size", "multiple of 32", "got 300"]),
        ("detect.py", ["--max_boxes=0"], ["--max_boxes", "got 0"]),
        ("detect.py", ["--max_unreadable=-1"], ["--max_unreadable", "got -1"]),
        ("convert_superbai.py", ["--test_fraction=1"], ["from 0.01 to 0.9", "got 1"]),
        ("convert_superbai.py", ["--polygons=all"], ["skip, box", "got 'all'"]),
        ("convert_superbai.py", ["--skip_missing=1"], ["true or false, got '1'"]),
        (
            "convert_superbai.py",
            ["--skip_missing", "yes"],
            ["true or false, got 'yes'"],
        ),
    ],
)
def test_parameters(run_script, outputs, without_tensorflow, script, arguments, words):
    process = run_script(script, *arguments, outputs=outputs, **without_tensorflow)
    refused(process, outputs, *words)


@pytest.mark.parametrize(
    "script, name, words",
    [
        ("convert_superbai.py", "images", ["Give it with --images FILE."]),
        (
            "train.py",
            "classes",
            ["python convert_superbai.py --images FILE --labels FILE"],
        ),
        ("detect.py", "model", ["python train.py."]),
    ],
)
def test_missing_inputs_name_the_command_that_makes_them(
    run_script, outputs, tmp_path, script, name, words
):
    # Run where there are no local outputs.
    shutil.copytree(
        REPOSITORY,
        tmp_path / "empty",
        ignore=shutil.ignore_patterns(".*", "tests", "__pycache__"),
    )
    process = run_script(script, outputs=outputs, cwd=tmp_path / "empty")
    refused(process, outputs, f"input '{name}' is missing", *words)


@pytest.mark.parametrize(
    "script, arguments",
    [
        ("convert_superbai.py", ["--images", "nowhere.zip", "--labels", "no.zip"]),
        ("weights.py", ["--weights", "nowhere.weights"]),
        ("train.py", ["--classes=nowhere.txt"]),
        ("detect.py", ["--model", "nowhere/model.json"]),
        ("detect.py", ["--model", "README.md", "nowhere/model.json"]),
        ("detect.py", ["--model", "README.md", "nowhere/*"]),
    ],
)
def test_files_that_do_not_exist(run_script, outputs, script, arguments):
    process = run_script(script, *arguments, outputs=outputs)
    name = arguments[0].partition("=")[0].removeprefix("--")
    refused(process, outputs, f"input '{name}'", "nowhere", "does not exist")


# --- convert-superbai ----------------------------------------------------------------


def convert(run_script, outputs, images, labels, *arguments, **environment):
    return run_script(
        "convert_superbai.py",
        *("--images", images, "--labels", labels),
        *arguments,
        outputs=outputs,
        **environment,
    )


def test_convert(run_script, outputs, files):
    process = convert(run_script, outputs, files / "images.zip", files / "labels.zip")
    assert process.returncode == 0, process.stderr
    line = json.loads(process.stdout.strip())
    assert (line["pictures_train"], line["pictures_test"]) == (4, 2)
    assert "split by the tags of the pictures" in process.stderr
    assert (outputs / "classes.txt").read_text().splitlines() == NAMES
    assert (
        records.count_records(outputs / "train" / "train-00000-of-00001.tfrecord") == 4
    )
    with Image.open(outputs / "preview.jpg") as preview:
        assert preview.size == (960, 640)
    # The pictures' bytes are those of the zip.
    (path,) = (outputs / "test").iterdir()
    with zipfile.ZipFile(files / "images.zip") as archive:
        stored = {archive.read(name) for name in archive.namelist()}
    for serialized in tf.data.TFRecordDataset(str(path)):
        assert records.parse_example(serialized)["encoded"].numpy() in stored


def test_convert_refuses_what_is_no_zip(
    run_script, outputs, files, tmp_path, without_tensorflow
):
    page = tmp_path / "page.zip"
    page.write_text("<!DOCTYPE html><html>expired</html>")
    process = convert(
        run_script, outputs, files / "images.zip", page, **without_tensorflow
    )
    refused(process, outputs, str(page), "is not a zip archive", "<!DOCTYPE")


def test_convert_refuses_swapped_zips(run_script, outputs, files):
    process = convert(run_script, outputs, files / "labels.zip", files / "images.zip")
    refused(process, outputs, "images.zip", "no project.json", "swapped?")


def test_convert_refuses_a_missing_picture(run_script, outputs, files, tmp_path):
    fewer = tmp_path / "fewer.zip"
    with (
        zipfile.ZipFile(files / "images.zip") as archive,
        zipfile.ZipFile(fewer, "w") as copy,
    ):
        for name in archive.namelist()[1:]:
            copy.writestr(name, archive.read(name))
    process = convert(run_script, outputs, fewer, files / "labels.zip")
    refused(process, outputs, str(fewer), "1 of 6 labelled", "shapes/0000.jpg")


def test_convert_leaves_nothing_of_a_picture_that_cannot_be_read(
    run_script, outputs, files, tmp_path
):
    bad = tmp_path / "bad.zip"
    with (
        zipfile.ZipFile(files / "images.zip") as archive,
        zipfile.ZipFile(bad, "w") as copy,
    ):
        for name in archive.namelist():
            data = archive.read(name)
            copy.writestr(name, data[: len(data) // 2] if "0003" in name else data)
    process = convert(run_script, outputs, bad, files / "labels.zip")
    refused(process, outputs, str(bad), "0003.jpg.jpg", "is it cut off")


def test_convert_takes_folders_and_options(run_script, outputs, tmp_path):
    pictures = [
        labelled("a.jpg", polygon(), box(9, 9, 20, 20), tags=["train"]),
        labelled("b.jpg", rotated(30, 20, 9, 5, 45), tags=["test"], status="WORKING"),
        labelled("c.jpg", tags=["test"], status="WORKING"),
        labelled("d.jpg", tags=["test"], status="SKIPPED"),
        labelled("e.jpg", tags=["test"]),
    ]
    classes = [("car", "box"), ("road", "polygon"), ("car", "rbox")]
    images, labels = suite_export.build(pictures, classes=classes)
    del images["ds/e.jpg.jpg"]
    for name, entries in (("images", images), ("labels", labels)):
        archive = suite_export.write_zip(tmp_path / "a.zip", entries)
        with zipfile.ZipFile(archive) as archive:
            archive.extractall(tmp_path / name)
    options = ("--polygons=box", "--include_unsubmitted", "--skip_missing=true")
    process = convert(
        run_script, outputs, tmp_path / "images", tmp_path / "labels", *options
    )
    assert process.returncode == 0, process.stderr
    line = json.loads(process.stdout.strip())
    expected = {
        "pictures_train": 1,
        "pictures_test": 1,
        "boxes_train": 2,
        "boxes_test": 1,
        "train/car": 1,
        "train/road": 1,
        "test/car": 1,
        "test/road": 0,
        "left out: pictures with status SKIPPED": 1,
        "left out: labelled pictures that are missing": 1,
        "left out: pictures not submitted, without an object so far": 1,
        "changed: boxes drawn around polygons and rotated boxes": 2,
        "assumed: class name of several types, 'car': taken as one class": 1,
    }
    assert {name: line.get(name) for name in expected} == expected
    assert "left out: 1 pictures with status SKIPPED" in process.stderr


def test_convert_reports_boxes_far_outside(run_script, outputs, tmp_path):
    pictures = [
        labelled("a.jpg", box(9, 9, 20, 20), tags=["train"]),
        labelled("b.jpg", box(30, 20, 60, 20), tags=["test"]),
    ]
    images, labels = suite_export.build(pictures)
    process = convert(
        run_script,
        outputs,
        suite_export.write_zip(tmp_path / "images.zip", images),
        suite_export.write_zip(tmp_path / "labels.zip", labels),
    )
    assert process.returncode == 0, process.stderr
    assert "1 of 2 boxes reach far over the edge of their picture" in process.stderr


def test_convert_refuses_a_project_of_polygons_and_says_what_helps(
    run_script, outputs, files, tmp_path, without_tensorflow
):
    images, labels = suite_export.build([], classes=[("road", "polygon")])
    labels = suite_export.write_zip(tmp_path / "labels.zip", labels)
    process = convert(
        run_script, outputs, files / "images.zip", labels, **without_tensorflow
    )
    refused(process, outputs, "labels.zip: project.json", "polygon 1", "--polygons=box")


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
    assert "error: " in stderr and "File too large" in stderr
    return stderr


def test_convert_on_a_full_disk(outputs, files):
    inputs = ["--images", files / "images.zip", "--labels", files / "labels.zip"]
    assert ".tfrecord" in on_a_full_disk("convert_superbai.py", outputs, 4096, *inputs)
    assert not outputs.exists()


def test_convert_keeps_folders_that_it_did_not_make(run_script, outputs, tmp_path):
    outputs.mkdir()
    (tmp_path / "page.zip").write_text("<!DOCTYPE html><html>expired</html>")
    page = tmp_path / "page.zip"
    assert convert(run_script, outputs, page, page).returncode == 1
    assert outputs.is_dir()


def test_convert_takes_names_that_look_like_patterns(
    run_script, outputs, files, tmp_path
):
    shutil.copy(files / "images.zip", tmp_path / "images[1].zip")
    shutil.copy(files / "labels.zip", tmp_path / "labels*.zip")
    process = convert(
        run_script, outputs, tmp_path / "images[1].zip", tmp_path / "labels*.zip"
    )
    assert process.returncode == 0, process.stderr


def test_outputs_are_replaced_all_or_none(tmp_path, monkeypatch):
    root, staging = tmp_path / "root", tmp_path / "root" / ".partial-new"
    for folder, content in ((root, "old"), (staging, "new")):
        (folder / "train").mkdir(parents=True)
        (folder / "train" / "a").write_text(content)
        (folder / "classes.txt").write_text(content)
    real = Path.replace

    def fail(path, target):
        if path.name == "train" and path.parent == staging:
            raise OSError("no room")
        return real(path, target)

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="no room"):
        _publish(staging, root)
    assert (root / "classes.txt").read_text() == "old"
    assert (root / "train" / "a").read_text() == "old"
    monkeypatch.setattr(Path, "replace", real)
    _publish(staging, root)
    assert (root / "classes.txt").read_text() == "new"
    assert (root / "train" / "a").read_text() == "new"
    assert sorted(path.name for path in root.iterdir()) == ["classes.txt", "train"]


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_waits_for_the_outputs(name):
    number, seen = getattr(signal, name), []
    # Whatever it is here: a process in the background of a shell ignores SIGINT.
    before = signal.signal(number, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), runtime.signals_held():
            signal.raise_signal(number)
            seen.append("the block goes on")
        assert seen
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.parametrize("status", [0, 2])
def test_a_signal_after_the_end_changes_nothing(name, status):
    program = (
        "import atexit, signal, step\n"
        f"atexit.register(lambda: signal.raise_signal(signal.{name}))\n"
        f"runtime.run_step(lambda: {status})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, stderr=subprocess.PIPE
    )
    assert (done.returncode, done.stderr) == (status, b"")


@pytest.mark.slow
def test_convert_killed_in_the_midst_begins_anew(run_script, outputs, tmp_path):
    sample.write_export(tmp_path, num_train=3000, num_test=20)
    arguments = [
        "--images",
        tmp_path / "images.zip",
        "--labels",
        tmp_path / "labels.zip",
    ]
    process = start("convert_superbai.py", outputs, *arguments)
    while not list(outputs.glob(".partial-*/train/*.tfrecord")):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    process.kill()
    process.communicate()
    (partial,) = outputs.iterdir()
    assert partial.name.startswith(".partial-")
    # No step takes a part for the whole.
    (tmp_path / "classes.txt").write_text("circle\n")
    inputs = ["--classes", tmp_path / "classes.txt", "--train", outputs / "train/*"]
    missing = run_script("train.py", *inputs, outputs=outputs)
    assert missing.returncode == 1 and "does not exist" in missing.stderr

    process = run_script("convert_superbai.py", *arguments, outputs=outputs)
    assert process.returncode == 0, process.stderr
    names = sorted(path.name for path in outputs.iterdir())
    assert names == ["classes.txt", "preview.jpg", "test", "train"]
    assert (
        records.count_records(outputs / "train" / "train-00000-of-00001.tfrecord")
        == 3000
    )


# --- weights ---


def weights(run_script, outputs, path, *arguments, classes=3):
    return run_script(
        "weights.py",
        *("--weights", path, "--model=yolov3-tiny", f"--weights_num_classes={classes}"),
        *arguments,
        outputs=outputs,
    )


def test_weights(run_script, outputs, files):
    process = weights(
        run_script,
        outputs,
        files / "tiny.weights",
        *("--classes", files / "classes.txt", "--image", files / "picture.png"),
    )
    assert process.returncode == 0, process.stderr
    loaded, info = checkpoint.load_model(outputs / "model")
    assert info == (TINY, NAMES, 416, None)
    assert "picture.png: 0 objects of a score over 0.25" in process.stderr
    original, _ = checkpoint.load_model(files / "model")
    for ours, theirs in zip(loaded.variables, original.variables, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_weights_refuses_a_truncated_file(run_script, outputs, files, tmp_path):
    short = tmp_path / "short.weights"
    short.write_bytes((files / "tiny.weights").read_bytes()[:-1000])
    process = weights(run_script, outputs, short)
    refused(process, outputs, str(short), "expected 8,680,864 weights", "cut off")


def test_weights_names_the_class_count_that_fits(run_script, outputs, files):
    process = weights(run_script, outputs, files / "tiny.weights", classes=80)
    refused(process, outputs, "the size of yolov3-tiny with 3 classes")


def test_weights_refuses_names_of_another_number(run_script, outputs, files):
    process = weights(
        run_script,
        outputs,
        files / "tiny.weights",
        *("--classes", files / "classes.txt"),
        classes=4,
    )
    refused(process, outputs, "classes.txt", "expected 4 class names", "got 3")


def test_weights_says_what_to_do_when_a_download_fails(run_script, outputs):
    process = weights(run_script, outputs, "http://127.0.0.1:9/none.weights")
    refused(
        process,
        outputs,
        "http://127.0.0.1:9/none.weights cannot be downloaded",
        "--weights FILE",
    )
    # Without a file, the official one of the network.
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


# --- train ---


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


@pytest.mark.parametrize(
    "transfer, kept",
    # Of 8,680,864: the outputs have 24 filters of 512 and of 256 weights and a bias.
    [
        ("darknet", "6,298,480"),
        ("no_output", "8,662,384"),
        ("heads", "8,680,864"),
        ("none", "0"),
    ],
)
def test_train(run_script, outputs, files, transfer, kept):
    process = train(run_script, outputs, files, f"--transfer={transfer}")
    assert process.returncode == 0, process.stderr
    assert f"transfer {transfer}: {kept}" in process.stderr
    lines = [json.loads(line) for line in process.stdout.split("\n") if line]
    assert [line.get("epoch") for line in lines] == [0, 1, None]
    assert lines[1]["images_per_second"] > 0
    trained, info = checkpoint.load_model(outputs / "model")
    boxes = {"circle": 1, "square": 1, "triangle": 0}
    assert info == (TINY, NAMES, 64, boxes)
    best = lines[2]["best_epoch"]
    assert f"model/ is of epoch {best}" in process.stderr
    if transfer == "heads" and best == 0:
        before, _ = checkpoint.load_model(files / "model")
        for ours, theirs in zip(trained.variables, before.variables, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_inputs_may_be_archives_and_are_named_in_the_log(
    run_script, outputs, files, tmp_path
):
    shutil.make_archive(tmp_path / "model", "zip", files, "model")
    shutil.make_archive(tmp_path / "data", "gztar", files, "two.tfrecord")
    process = train(
        run_script,
        outputs,
        files,
        model=[tmp_path / "model.zip"],
        train=[tmp_path / "data.tar.gz"],
    )
    assert process.returncode == 0, process.stderr
    size = (tmp_path / "model.zip").stat().st_size / 1e6
    assert f"model: model.zip, {size:.1f} MB" in process.stderr
    assert "train: data.tar.gz, " in process.stderr
    assert "2 training and 2 test pictures" in process.stderr
    assert checkpoint.read_info(outputs / "model").class_names == NAMES


def test_a_damaged_archive_is_refused(run_script, outputs, files, tmp_path):
    shutil.make_archive(tmp_path / "model", "zip", files, "model")
    data = (tmp_path / "model.zip").read_bytes()
    for name, content in (("half.zip", data[: len(data) // 2]), ("not.tar", data)):
        (tmp_path / name).write_bytes(content)
        process = train(run_script, outputs, files, model=[tmp_path / name])
        refused(process, outputs, f"{name}: cannot be unpacked (", "downloaded whole?")


def moved(outputs, files):
    """The parts of the network that the last epoch has left other than they were."""
    (path,) = (outputs / "checkpoints").glob("epoch-*.json")
    reader = tf.train.load_checkpoint(str(path.with_suffix(".tf")))
    before, _ = checkpoint.load_model(files / "model")
    keys = [key for key in reader.get_variable_to_shape_map() if "model.S" in key]
    assert len(keys) == len(before.variables)
    parts = set()
    for variable in before.variables:
        (key,) = [k for k in keys if variable.path.replace("/", ".S") + "/" in k]
        if (reader.get_tensor(key) != variable.numpy()).any():
            parts.add(variable.path.split("_")[0])
    return parts


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["--freeze_epochs=1"], {"output"}),
        (["--transfer=no_output", "--kept_rate=0"], {"output"}),
        (["--epochs=2", "--freeze_epochs=1"], {"backbone", "neck", "output"}),
        (["--transfer=darknet", "--freeze_epochs=9"], {"neck", "output"}),
    ],
)
def test_kept_layers_can_wait_or_stay(run_script, outputs, files, arguments, expected):
    process = train(run_script, outputs, files, *arguments)
    assert process.returncode == 0, process.stderr
    assert moved(outputs, files) >= expected
    if "--epochs=2" not in arguments:
        assert "backbone" not in moved(outputs, files)


def test_nothing_to_train(run_script, outputs, files):
    process = train(run_script, outputs, files, "--kept_rate=0")
    refused(process, outputs, "--kept_rate=0", "nothing would be trained")


def test_a_range_of_sizes(run_script, outputs, files):
    process = train(run_script, outputs, files, "--size=64-128", "--epochs=3")
    assert process.returncode == 0, process.stderr
    assert checkpoint.read_info(outputs / "model").size == 128


def test_patience_ends_a_training(run_script, outputs, files):
    # Too small a rate to change anything: the untrained model stays the best.
    process = train(
        run_script,
        outputs,
        files,
        *("--epochs=9", "--patience=2", "--learning_rate=1e-8", "--freeze_epochs=9"),
    )
    assert process.returncode == 0, process.stderr
    assert "no better AP for 2 epochs: stopped" in process.stderr
    assert "no epoch has made the model better" in process.stderr
    lines = [json.loads(line) for line in process.stdout.split("\n") if line]
    assert [line.get("epoch") for line in lines] == [0, 1, 2, None]


def test_train_refuses_a_class_that_the_class_file_lacks(
    run_script, outputs, files, tmp_path
):
    (tmp_path / "classes.txt").write_text("circle\ntriangle\n")
    process = train(run_script, outputs, files, classes=[tmp_path / "classes.txt"])
    refused(process, outputs, "not in the class file", "square", "ds/1.png")


def test_train_refuses_a_file_of_other_classes_at_once(
    run_script, outputs, files, tmp_path
):
    (tmp_path / "classes.txt").write_text("cat\n")
    process = train(run_script, outputs, files, classes=[tmp_path / "classes.txt"])
    words = ("two.tfrecord: its first record has the classes circle", "not (cat)")
    refused(process, outputs, *words)


def other_records(folder):
    """TFRecord files that are not of the schema: of another, and of no example."""
    feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"x"]))
    features = tf.train.Features(feature={"image/encoded": feature})
    example = tf.train.Example(features=features).SerializeToString()
    for name, content in (
        ("other.tfrecord", example),
        ("junk.tfrecord", b"hello world"),
    ):
        with tf.io.TFRecordWriter(str(folder / name)) as writer:
            writer.write(content)
    return [
        (folder / "other.tfrecord", "Feature: image/height"),
        (folder / "junk.tfrecord", "Could not parse example input"),
    ]


def test_records_of_another_schema_are_refused(run_script, outputs, files, tmp_path):
    for path, words in other_records(tmp_path):
        for split in ("train", "test"):
            process = train(run_script, outputs, files, **{split: [path]})
            message = f"{path}: its first record cannot be used: {words}"
            refused(process, outputs, message)
        process = detect(run_script, outputs, files, path)
        refused(process, outputs, f"{path}: a record cannot be read: {words}")


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfcircle\r\n\r\nsquare  \r\n\ttriangle\r\n\r\n",
        b"circle\n\nsquare\ntriangle",
    ],
    ids=["Windows", "no end"],
)
def test_class_files_of_any_editor(run_script, outputs, files, tmp_path, content):
    (tmp_path / "names.txt").write_bytes(content)
    process = detect(
        run_script,
        outputs,
        files,
        files / "picture.png",
        classes=tmp_path / "names.txt",
    )
    assert process.returncode == 0, process.stderr


@pytest.mark.parametrize(
    "content, words",
    [
        (b"\n \n", ["names.txt: expected one class name a line, got none"]),
        (b"circle\ncircle \nsquare\n", ["names.txt", "circle occur twice"]),
        ("고양이\n".encode("cp949"), ["names.txt", "save it as UTF-8"]),
        ("cat\n".encode("utf-16"), ["names.txt", "save it as UTF-8"]),
    ],
    ids=["empty", "twice", "cp949", "UTF-16"],
)
def test_class_files_that_are_none(
    run_script, outputs, files, tmp_path, without_tensorflow, content, words
):
    (tmp_path / "names.txt").write_bytes(content)
    process = run_script(
        "train.py",
        *("--classes", tmp_path / "names.txt", "--train", files / "two.tfrecord"),
        *("--test", files / "two.tfrecord", "--model", *model_files(files / "model")),
        outputs=outputs,
        **without_tensorflow,
    )
    refused(process, outputs, *words)


@pytest.mark.parametrize("script", ["train.py", "detect.py"])
@pytest.mark.parametrize("missing", checkpoint.FILES)
def test_a_model_with_a_file_missing_is_refused(
    run_script, outputs, files, script, missing
):
    rest = [path for path in model_files(files / "model") if path.name != missing]
    inputs = ["--image", files / "picture.png"]
    if script == "train.py":
        records_file = files / "two.tfrecord"
        inputs = ["--classes", files / "classes.txt"]
        inputs += ["--train", records_file, "--test", records_file]
    folder = outputs.parent / "model"
    folder.mkdir()
    rest = [shutil.copy(path, folder) for path in rest]
    process = run_script(script, "--model", *rest, *inputs, outputs=outputs)
    refused(process, outputs, missing)


def test_train_on_a_full_disk(outputs, files):
    records_file = files / "two.tfrecord"
    stderr = on_a_full_disk(
        "train.py",
        outputs,
        2**20,
        *("--classes", files / "classes.txt", "--train", records_file),
        *("--test", records_file, "--model", *model_files(files / "model")),
        *("--size=64", "--epochs=1", "--batch_size=1"),
    )
    assert "cannot be written: " in stderr
    assert not [path for path in outputs.rglob("*") if path.name == "model.json"]


@pytest.mark.parametrize(
    "raised, status, words",
    [
        ("KeyboardInterrupt", 130, "stopped by SIGINT"),
        ("SystemError('bad argument')", 130, "stopped by SIGINT"),
        (
            "tf.errors.ResourceExhaustedError(None, None, 'OOM')",
            1,
            "lower --batch_size",
        ),
    ],
)
def test_what_ends_a_step(tmp_path, raised, status, words):
    # What a signal in the midst of TensorFlow's C++ becomes is not always its own.
    is_stopped = status == 130
    (tmp_path / "script.py").write_text(
        "import signal, step, tensorflow as tf\n"
        "def main():\n"
        "    try:\n"
        f"        {is_stopped} and signal.raise_signal(signal.SIGINT)\n"
        "    finally:\n"
        f"        raise {raised}\n"
        "runtime.run_step(main)\n"
    )
    process = subprocess.run(
        [sys.executable, str(tmp_path / "script.py")],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    assert process.returncode == status, process.stderr
    assert words in process.stderr and "Traceback" not in process.stderr


def test_train_refuses_a_truncated_record_file(run_script, outputs, files, tmp_path):
    short = tmp_path / "short.tfrecord"
    short.write_bytes((files / "two.tfrecord").read_bytes()[:-5])
    process = train(run_script, outputs, files, train=[short])
    refused(process, outputs, str(short), "breaks off in record 1")


def test_train_refuses_a_model_with_a_file_missing(run_script, outputs, files):
    process = train(
        run_script, outputs, files, model=[files / "model" / "model.tf.index"]
    )
    refused(process, outputs, "input 'model'", "model.json")


def test_train_refuses_a_checkpoint_of_another_variant(
    run_script, outputs, files, tmp_path
):
    folder = shutil.copytree(files / "model", tmp_path / "model")
    info = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(info | {"variant": "yolov3"}))
    process = train(run_script, outputs, files, model=model_files(folder))
    refused(process, outputs, str(folder), "for yolov3, got", "another variant")


# --- detect ---


def detect(run_script, outputs, files, *images, model=None, **options):
    return run_script(
        "detect.py",
        *("--model", *model_files(model or files / "model")),
        *("--image", *images),
        *("--size=64", "--score_threshold=0.0001"),
        *(a for name, value in options.items() for a in (f"--{name}", value)),
        outputs=outputs,
    )


def test_detect_pictures_zips_and_records_together(
    run_script, outputs, files, tmp_path
):
    picture = Image.new("RGB", (90, 30), (200, 60, 60))
    exif = Image.Exif()
    exif[0x0112] = 6  # Shown turned by a quarter: 30 wide, 90 high.
    picture.save(tmp_path / "turned.jpg", exif=exif)
    with zipfile.ZipFile(tmp_path / "more.zip", "w") as archive:
        archive.write(files / "picture.png", "folder/picture.png")
        archive.writestr("__MACOSX/folder/._picture.png", b"junk")
        archive.writestr("notes.txt", b"no picture")
    process = detect(
        run_script,
        outputs,
        files,
        files / "picture.png",
        tmp_path / "turned.jpg",
        tmp_path / "more.zip",
        files / "two.tfrecord",
    )
    assert process.returncode == 0, process.stderr
    result = json.loads((outputs / "detections.json").read_text())
    assert [
        (i["file_name"], i["width"], i["height"], i["output"]) for i in result["images"]
    ] == [
        ("picture.png", 64, 48, "output_picture.png"),
        ("turned.jpg", 30, 90, "output_turned.jpg"),
        ("folder/picture.png", 64, 48, "output_picture-2.png"),
        ("ds/0.png", 64, 48, "output_0.png"),
        ("ds/1.png", 64, 48, "output_1.png"),
    ]
    for image in result["images"]:
        with Image.open(outputs / image["output"]) as drawn:
            assert drawn.size == (image["width"], image["height"])
    assert result["annotations"]
    sizes = {i["id"]: (i["width"], i["height"]) for i in result["images"]}
    for annotation in result["annotations"]:
        left, top, width, height = annotation["bbox"]
        limit = sizes[annotation["image_id"]]
        assert left >= 0 and left + width <= limit[0] + 1e-2
        assert top >= 0 and top + height <= limit[1] + 1e-2
    line = json.loads(process.stdout.strip())
    assert line["pictures"] == 5 and line["images_per_second"] > 0


@pytest.fixture(scope="module")
def unsure(tmp_path_factory):
    """A model that sees boxes of all scores in any picture, and pictures for it."""
    folder = tmp_path_factory.mktemp("unsure")
    keras.utils.set_random_seed(0)
    model = build_model(TINY, len(NAMES))
    chance = np.random.default_rng(0)
    reference.calibrate(model, chance.random((4, 64, 64, 3), "float32"))
    for layer in model.layers:
        if layer.name.startswith("output") and layer.weights:
            layer.kernel.assign(layer.kernel * 20)
    boxes = {"circle": 90, "square": 90, "triangle": 0}
    checkpoint.save_model(folder / "model", model, NAMES, 64, boxes)
    (folder / "pictures").mkdir()
    for number, name in enumerate(("b", "a, 가", "c", "d", "e")):
        noise = chance.integers(0, 255, (6, 9 + 2 * number, 3), "uint8")
        noise = Image.fromarray(noise).resize((80 + 30 * number, 60))
        noise.save(folder / "pictures" / f"{name}.png")
    return folder


@pytest.mark.parametrize("max_boxes", [100, 3])
def test_a_review_changes_nothing_of_what_is_found(
    run_script, outputs, unsure, max_boxes
):
    limits = {"score_threshold": 0.55, "iou_threshold": 0.5, "max_boxes": max_boxes}
    process = run_script(
        "detect.py",
        *("--model", *model_files(unsure / "model"), "--image", unsure / "pictures"),
        *("--size=64", "--precision=float32"),
        *(f"--{name}={value}" for name, value in limits.items()),
        outputs=outputs,
    )
    assert process.returncode == 0, process.stderr
    found = json.loads((outputs / "detections.json").read_text())
    names = [image["file_name"] for image in found["images"]]

    # A detector that never looks below the threshold.
    model, info = checkpoint.load_model(unsure / "model")
    model = fold(model, TINY, len(NAMES))
    detector = Detector(model, TINY, 64, **limits)
    paths = [unsure / "pictures" / name for name in names]
    arrays = [np.asarray(Image.open(path)) for path in paths]
    expected = detector([detector.prepare(array) for array in arrays])
    expected = [
        coco.coco_annotations(number, *(part[i] for i in (0, 2, 1)))
        for number, part in enumerate(expected, start=1)
    ]
    assert found["annotations"] == coco.number_annotations(expected)
    assert min(map(len, expected)) and max(map(len, expected)) <= max_boxes

    with (outputs / "review.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["rank", *review.Row._fields]
    assert [row["rank"] for row in rows] == ["1", "2", "3", "4", "5"]
    numbers = dict(zip(names, map(len, expected), strict=True))
    assert {row["file_name"]: int(row["boxes"]) for row in rows} == numbers
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores, reverse=True) and scores[-1] > 0
    assert any(float(row["rarity"]) for row in rows)
    first = f"{rows[0]['file_name']} ({rows[0]['reason']})"
    assert f"review.csv: look first at {first}, " in process.stderr


def test_large_pictures_are_few_in_memory(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["detect.py"])  # Which it reads when imported.
    detect = importlib.import_module("detect")
    monkeypatch.setattr(detect, "MAX_WAITING_PIXELS", 100)
    pending, left = detect.Pending(), []
    for number, pixels in enumerate([10] * 7 + [90, 90, 200, 10]):
        future = Future()
        future.set_result(number)
        pending.add(future, pixels)
        pending.take(5)
        left.append(len(pending._futures))
    assert left == [1, 2, 3, 4, 5, 5, 5, 2, 1, 0, 1]
    assert pending.take(0) == [10]
    future = Future()
    future.set_exception(OSError("no room"))
    pending.add(future, 10)
    with pytest.raises(OSError, match="no room"):
        pending.take(0)


def odd_pictures(folder):
    """Writes pictures of every odd kind; returns the size of each by its name."""
    folder.mkdir()
    (folder / "sub").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    red = Image.new("RGB", (90, 30), (200, 60, 60))
    red.save(folder / "turned.jpg", exif=exif)
    red.save(folder / "same.png")
    red.save(folder / "sub" / "same.png")
    Image.new("RGB", (1, 1)).save(folder / "dot.png")
    Image.new("CMYK", (40, 30), (0, 90, 90, 0)).save(folder / "cmyk.jpg")
    Image.new("L", (40, 30), 99).save(folder / "grey.JPG")
    Image.new("RGBA", (40, 30), (9, 9, 9, 0)).save(folder / "clear.webp")
    Image.new("I;16", (40, 30), 40_000).save(folder / "deep.png")
    frames = [Image.new("P", (50, 20), colour) for colour in (1, 2, 3)]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:])
    # 50 megapixels.
    Image.new("RGB", (8192, 6144), (60, 90, 200)).save(folder / "huge.jpg")
    # Wider than a JPEG can be.
    Image.new("RGB", (70_000, 20), (60, 90, 200)).save(folder / "wide.tif")
    # Whose EXIF holds a text in place of a number.
    red.save(folder / "text.jpg", exif=suite_export.ODD_EXIF)
    name = b"caf\xe9.png".decode("utf-8", "surrogateescape")
    red.save(folder.parent / name)
    return {
        "turned.jpg": (30, 90),
        "same.png": (90, 30),
        "sub/same.png": (90, 30),
        "dot.png": (1, 1),
        "cmyk.jpg": (40, 30),
        "grey.JPG": (40, 30),
        "clear.webp": (40, 30),
        "deep.png": (40, 30),
        "moving.gif": (50, 20),
        "huge.jpg": (8192, 6144),
        "wide.tif": (70_000, 20),
        "text.jpg": (30, 90),
    }


def test_detect_reads_odd_pictures_and_leaves_out_what_is_none(
    run_script, outputs, files, tmp_path
):
    sizes = odd_pictures(tmp_path / "odd")
    for name, content in (
        ("empty.jpg", b""),
        ("broken.jpg", b"\xff\xd8\xff no picture"),
        ("cut.png", (files / "picture.png").read_bytes()[:60]),
        ("notes.txt", b"no picture"),
    ):
        (tmp_path / "odd" / name).write_bytes(content)
    odd_name = tmp_path / b"caf\xe9.png".decode("utf-8", "surrogateescape")
    process = detect(run_script, outputs, files, tmp_path / "odd", odd_name)
    assert process.returncode == 2, process.stderr
    assert "Traceback" not in process.stderr
    result = json.loads((outputs / "detections.json").read_text())
    assert result["images"].pop()["file_name"] == "caf?.png"
    read = {i["file_name"]: (i["width"], i["height"]) for i in result["images"]}
    assert read == sizes
    assert len({i["output"] for i in result["images"]}) == len(sizes)
    for image in result["images"]:
        assert image["source"] == f"{tmp_path / 'odd'}: {image['file_name']}"
        with Image.open(outputs / image["output"]) as drawn:
            assert drawn.size == (image["width"], image["height"])
    left_out = {row["file_name"]: row["reason"] for row in result["info"]["left_out"]}
    assert set(left_out) == {"empty.jpg", "broken.jpg", "cut.png"}
    for name, reason in left_out.items():
        assert f"{tmp_path / 'odd'}: {name}: expected a picture, got" in reason
        assert f"left out: {reason}" in process.stderr.splitlines()
    assert "left out: 1 files in zips and folders, no pictures" in process.stderr
    assert "left out: 3 of 16 pictures, which cannot be read" in process.stderr
    line = json.loads(process.stdout.strip())
    assert (line["pictures"], line["pictures_left_out"]) == (13, 3)


@pytest.mark.slow
def test_detect_goes_through_10_000_pictures_in_steady_memory(
    run_script, outputs, files, tmp_path
):
    # Run by Python itself before a script: tells the most memory that it has had.
    (tmp_path / "sitecustomize.py").write_text(
        "import atexit, pathlib\n"
        "status, peak = map(pathlib.Path, ('/proc/self/status', __file__ + '.peak'))\n"
        "atexit.register(lambda: peak.write_text(status.read_text()))\n"
    )
    encoded = (files / "picture.png").read_bytes()
    peaks = []
    for total in (1000, 10_000):
        folder = tmp_path / f"{total}"
        folder.mkdir()
        for number in range(total):
            is_bad = number in (17, 500, 999)
            (folder / f"{number}.png").write_bytes(b"bad" if is_bad else encoded)
        process = run_script(
            "detect.py",
            *("--model", *model_files(files / "model"), "--image", folder),
            *("--size=64", "--batch_size=64", "--max_unreadable=3"),
            *("--score_threshold=0", "--max_boxes=5"),
            outputs=outputs / f"{total}",
            PYTHONPATH=str(tmp_path),
        )
        assert process.returncode == 0, process.stderr
        line = json.loads(process.stdout.strip())
        assert (line["pictures"], line["pictures_left_out"]) == (total - 3, 3)
        assert line["objects"] == 5 * (total - 3)
        assert len(list((outputs / f"{total}").glob("output_*.png"))) == total - 3
        status = (tmp_path / "sitecustomize.py.peak").read_text()
        peaks.append(int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]))
    # A picture's name and line of review.csv; its boxes would take as much again.
    assert peaks[1] - peaks[0] < 3 * 9000, peaks


def test_output_names():
    name_output = draw.output_names()
    names = [name_output(f"{n % 2}/a.jpg", (9, 9)) for n in range(2000)]
    assert names[:3] == ["output_a.jpg", "output_a-2.jpg", "output_a-3.jpg"]
    assert len(set(names)) == 2000
    assert name_output("a.JPEG", (70_000, 9)) == "output_a.png"
    assert name_output("A.png", (9, 9)) == "output_A-2.png"


def test_detect_refuses_pictures_none_of_which_can_be_read(
    run_script, outputs, files, tmp_path
):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    process = detect(run_script, outputs, files, tmp_path / "broken.jpg")
    refused(process, outputs, "none of 1 pictures can be read")
    assert "broken.jpg: expected a picture" in process.stderr


def test_detect_on_a_full_disk(outputs, files):
    inputs = ["--model", *model_files(files / "model"), "--size=64"]
    on_a_full_disk("detect.py", outputs, 50, *inputs, "--image", files / "picture.png")
    assert not outputs.exists()


def test_detect_refuses_classes_of_another_model(run_script, outputs, files, tmp_path):
    (tmp_path / "other.txt").write_text("cat\ndog\n")
    process = detect(
        run_script,
        outputs,
        files,
        files / "picture.png",
        classes=tmp_path / "other.txt",
    )
    refused(process, outputs, "other.txt names 2 classes", "model.json", "3")


def test_detect_refuses_a_checkpoint_of_another_class_count(
    run_script, outputs, files, tmp_path
):
    folder = shutil.copytree(files / "model", tmp_path / "model")
    info = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(info | {"classes": ["a", "b"]}))
    process = detect(run_script, outputs, files, files / "picture.png", model=folder)
    refused(process, outputs, "another variant or class count")


def test_detect_refuses_a_zip_without_pictures(run_script, outputs, files, tmp_path):
    with zipfile.ZipFile(tmp_path / "none.zip", "w") as archive:
        archive.writestr("notes.txt", b"no picture")
    process = detect(run_script, outputs, files, tmp_path / "none.zip")
    refused(process, outputs, "no pictures in", "none.zip")
