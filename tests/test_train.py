"""train.py as a user runs it."""

import dataclasses
import io
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from steps import (
    NAMES,
    TINY,
    detect,
    model_files,
    on_a_full_disk,
    refused,
    start,
    train,
)

from superbai.labelled_image import Record
from yolov3_tf2.data import records
from yolov3_tf2.network import checkpoint
from yolov3_tf2.network.model_info import ModelInfo


@pytest.mark.parametrize(
    "transfer, num_pretrained",
    # Of 8,680,864: the outputs have 24 filters of 512 and of 256 weights and a bias.
    [
        ("darknet", "6,298,480"),
        ("no_output", "8,662,384"),
        ("heads", "8,680,864"),
        ("none", "0"),
    ],
)
def test_train(run_script, outputs, files, transfer, num_pretrained):
    process = train(run_script, outputs, files, f"--transfer={transfer}")
    assert process.returncode == 0, process.stderr
    assert f"transfer {transfer}: {num_pretrained} of" in process.stderr
    is_warned = "WARNING: no GPU found, training on CPU\n" in process.stderr
    assert is_warned == (not tf.config.list_physical_devices("GPU"))
    lines = [json.loads(line) for line in process.stdout.split("\n") if line]
    assert [line.get("epoch") for line in lines] == [0, 1, None]
    assert lines[1]["images_per_second"] > 0
    trained, info = checkpoint.load_model(outputs / "model")
    boxes = {"circle": 1, "square": 1, "triangle": 0}
    threshold = lines[2]["score_threshold"]
    expected = ModelInfo(TINY, NAMES, 64, boxes, max_boxes=100)
    if info.score_threshold is not None:
        expected = dataclasses.replace(expected, score_threshold=threshold)
    assert info == expected and threshold == info.shown_threshold
    best = lines[2]["best_epoch"]
    assert f"model/ is from epoch {best}" in process.stderr
    if transfer == "heads" and best == 0:
        before, _ = checkpoint.load_model(files / "model")
        for ours, theirs in zip(trained.variables, before.variables, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_no_validation_images_and_problems_of_the_data(
    run_script, outputs, files, tmp_path
):
    empty = tmp_path / "validation-00000-of-00001.tfrecord"
    empty.write_bytes(b"")
    process = train(run_script, outputs, files, validation=[empty])
    assert process.returncode == 0, process.stderr
    assert "no validation images: the best epoch is chosen" in process.stderr
    warnings = [x for x in process.stderr.splitlines() if x.startswith("WARNING: ")]
    warnings = [line for line in warnings if "no GPU" not in line]
    assert warnings[:2] == [
        "WARNING: classes with fewer than 10 training boxes: circle (1), square (1), "
        "triangle (0); label more objects of them, or remove the classes",
        "WARNING: 2 of 2 test images are also training images, byte for byte (such as "
        "ds/0.png): AP will be too high; remove the copies, or put them "
        "into the same split",
    ]
    before_training = process.stderr[: process.stderr.index("epoch 0: ")]
    assert all(line in before_training for line in warnings[:2])


def test_train_writes_the_gray_range_of_16_bit_images(
    run_script, outputs, files, tmp_path
):
    path = tmp_path / "gray.tfrecord"
    encoded = (files / "image.png").read_bytes()
    with tf.io.TFRecordWriter(str(path)) as writer:
        for gray_range in (None, (7164, 7529)):
            boxes = [(5, 5, 30, 30)]
            record = Record("a", encoded, "png", 64, 48, boxes, [0], gray_range)
            writer.write(records.serialize_example(record, NAMES))
    process = train(run_script, outputs, files, train=[path])
    assert process.returncode == 0, process.stderr
    info = checkpoint.read_model_info(outputs / "model")
    assert info.gray_range == (7164, 7529)


def changed_parts(outputs, files):
    """Returns the parts of the network that training has changed."""
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
def test_pretrained_layers_can_be_frozen(
    run_script, outputs, files, arguments, expected
):
    process = train(run_script, outputs, files, *arguments)
    assert process.returncode == 0, process.stderr
    assert changed_parts(outputs, files) >= expected
    if "--epochs=2" not in arguments:
        assert "backbone" not in changed_parts(outputs, files)


def test_nothing_to_train(run_script, outputs, files):
    process = train(run_script, outputs, files, "--kept_rate=0")
    refused(process, outputs, "--kept_rate=0", "nothing would be trained")


def test_a_range_of_sizes(run_script, outputs, files):
    process = train(run_script, outputs, files, "--size=64-128", "--epochs=3")
    assert process.returncode == 0, process.stderr
    assert checkpoint.read_model_info(outputs / "model").size == 128


def test_patience_stops_a_training(run_script, outputs, files):
    # The rate is too small to change anything: the untrained model stays the best.
    process = train(
        run_script,
        outputs,
        files,
        *("--epochs=9", "--patience=2", "--learning_rate=1e-8", "--freeze_epochs=9"),
    )
    assert process.returncode == 0, process.stderr
    assert "stopping early: no better AP for 2 epochs" in process.stderr
    assert "no epoch improved the model: model/ is as before training" in process.stderr
    lines = [json.loads(line) for line in process.stdout.split("\n") if line]
    assert [line.get("epoch") for line in lines] == [0, 1, 2, None]


def write_image(path, source_id, boxes):
    """Writes a TFRecord file of one image, with a circle for each box in pixels."""
    encoded = io.BytesIO()
    Image.new("RGB", (64, 64), (9, 99, 9)).save(encoded, "PNG")
    labels = [0] * len(boxes)
    record = Record(source_id, encoded.getvalue(), "png", 64, 64, boxes, labels)
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(records.serialize_example(record, NAMES))
    return path


def test_the_epoch_is_chosen_on_validation_images(run_script, outputs, files, tmp_path):
    box = (10, 10, 50, 50)
    validation = [
        write_image(tmp_path / f"v{n}.tfrecord", f"v{n}", [box]) for n in range(3)
    ]
    # An evaluation on the test images would count three boxes of one image.
    test = [write_image(tmp_path / "t.tfrecord", "t", [box] * 3)]
    process = train(run_script, outputs, files, validation=validation, test=test)
    assert process.returncode == 0, process.stderr
    assert "2 training images, 3 validation images, 1 test images" in process.stderr
    assert "no validation images" not in process.stderr
    lines = [json.loads(line) for line in process.stdout.split("\n") if line]
    history = [line for line in lines if "epoch" in line]
    alone = train(run_script, outputs, files, test=validation)
    assert "no validation images: the best epoch is chosen" in alone.stderr
    assert "3 test images" in alone.stderr
    expected = [
        json.loads(line) for line in alone.stdout.split("\n") if "epoch" in line
    ]
    for ours, theirs in zip(history, expected[:2], strict=True):
        assert ours["AP"] == theirs["AP"] and ours["val_loss"] == theirs["val_loss"]


def test_train_alone_takes_the_validation_images_of_the_latest_run(
    outputs, files, tmp_path
):
    run = tmp_path / ".valohai" / "outputs" / "run" / "convert-superbai"
    for split in ("train", "validation", "test"):
        (run / split).mkdir(parents=True)
        shutil.copy(files / "two.tfrecord", run / split / f"{split}.tfrecord")
    shutil.copy(files / "classes.txt", run)
    options = ("--epochs=1", "--size=64", "--model", *model_files(files / "model"))
    process = start("train.py", outputs, *options, cwd=tmp_path)
    _, stderr = process.communicate()
    assert process.returncode == 0, stderr
    assert "2 training images, 2 validation images, 2 test images" in stderr
    assert "validation: taken from the latest local outputs" in stderr


def test_test_images_without_boxes(run_script, outputs, files, tmp_path):
    test = [write_image(tmp_path / "t.tfrecord", "t", [])]
    process = train(run_script, outputs, files, test=test)
    assert process.returncode == 0, process.stderr
    assert "best so far" not in process.stderr and "nan" not in process.stderr.lower()
    assert (
        "epoch 1: AP is unknown, as no test image has a box, the last epoch is kept"
        in (process.stderr)
    )
    assert "model/ is from epoch 1: AP is unknown" in process.stderr
    assert checkpoint.read_model_info(outputs / "model").score_threshold is None


def test_crowded_test_images(run_script, outputs, files, tmp_path):
    boxes = [(x, y, x + 4, y + 4) for x in range(0, 60, 5) for y in range(0, 60, 5)]
    assert len(boxes) == 144
    test = [write_image(tmp_path / "t.tfrecord", "t", boxes)]
    process = train(run_script, outputs, files, test=test)
    assert process.returncode == 0, process.stderr
    assert "an image has 144 boxes: the evaluation keeps 1000" in process.stderr
    assert checkpoint.read_model_info(outputs / "model").max_boxes == 1000


def test_train_refuses_a_class_that_the_class_file_lacks(
    run_script, outputs, files, tmp_path
):
    (tmp_path / "classes.txt").write_text("circle\ntriangle\n")
    process = train(run_script, outputs, files, classes=[tmp_path / "classes.txt"])
    refused(process, outputs, "not in the class file", "square", "ds/1.png")


def test_train_refuses_a_file_of_other_classes_before_training(
    run_script, outputs, files, tmp_path
):
    (tmp_path / "classes.txt").write_text("cat\n")
    process = train(run_script, outputs, files, classes=[tmp_path / "classes.txt"])
    words = ("two.tfrecord: its first record", "expected cat, got circle")
    refused(process, outputs, *words)


def test_a_model_below_min_ap50_is_not_published(run_script, outputs, files):
    process = train(
        run_script,
        outputs,
        files,
        *("--min_ap50=1", "--valohai_model=shapes", "--valohai_alias=best"),
        "--valohai_tags=good",
    )
    assert process.returncode == 0, process.stderr
    assert "WARNING: no version, alias or tags on Valohai for a model" in process.stderr
    assert not (outputs / "valohai.metadata.jsonl").exists()
    # What the condition of a pipeline reads.
    last = json.loads(process.stdout.strip().splitlines()[-1])
    assert last["below_min_ap50"] == 1


def other_records(folder):
    """Writes a TFRecord file of another schema, and one without examples."""
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


@pytest.fixture
def three(files, tmp_path):
    """The two records, and one with an image that cannot be decoded."""
    path = tmp_path / "three.tfrecord"
    record = Record(
        "ds/bad.jpg", b"\xff\xd8\xff", "jpeg", 64, 48, [(5, 5, 30, 30)], [0]
    )
    with tf.io.TFRecordWriter(str(path)) as writer:
        for serialized in tf.data.TFRecordDataset(str(files / "two.tfrecord")):
            writer.write(serialized.numpy())
        writer.write(records.serialize_example(record, NAMES))
    return path


def test_train_names_an_image_that_cannot_be_decoded(run_script, outputs, files, three):
    for split in ("train", "test"):
        process = train(run_script, outputs, files, **{split: [three]})
        error = process.stderr.split("error: ")[1]
        assert process.returncode == 1
        words = f"1 images cannot be decoded: ds/bad.jpg ({three}: "
        assert words in error and "--max_unreadable=1" in error
        assert "class file" not in error
        assert not (outputs / "plots").exists()


def test_train_leaves_out_an_image_that_cannot_be_decoded(
    run_script, outputs, files, three
):
    # With one image a step, one step has no image at all.
    options = ("--max_unreadable=2", "--batch_size=1", "--kept_rate=1", "--epochs=2")
    process = train(run_script, outputs, files, *options, train=[three], test=[three])
    assert process.returncode == 0, process.stderr
    assert process.stderr.count(f"cannot be decoded: ds/bad.jpg ({three}: ") == 2
    lines = [json.loads(line) for line in process.stdout.split("\n") if line]
    assert [line["images_left_out"] for line in lines[:3]] == [2, 2, 2]
    assert all(np.isfinite(line["loss"]) for line in lines[1:3])
    assert all(np.isfinite(line["val_loss"]) for line in lines[:3])
    for name in ("train_batch.jpg", "plots/worst.jpg"):
        assert (outputs / name).is_file()


@pytest.mark.parametrize(
    "size, output",
    [(2**20, "model/model.tf"), (50 * 2**20, "checkpoints/epoch.tf")],
)
def test_train_on_a_full_disk(outputs, files, size, output):
    records_file = files / "two.tfrecord"
    error = on_a_full_disk(
        "train.py",
        outputs,
        size,
        *("--classes", files / "classes.txt", "--train", records_file),
        *("--test", records_file, "--model", *model_files(files / "model")),
        *("--size=64", "--epochs=1", "--batch_size=1"),
    )
    assert f": {output} cannot be written: " in error
    complete = [path.name for path in outputs.rglob("*") if path.name == "model.json"]
    assert len(complete) == (output == "checkpoints/epoch.tf")
    assert not list(outputs.rglob("epoch-*.json"))


def test_train_refuses_a_truncated_record_file(run_script, outputs, files, tmp_path):
    short = tmp_path / "short.tfrecord"
    short.write_bytes((files / "two.tfrecord").read_bytes()[:-5])
    process = train(run_script, outputs, files, train=[short])
    refused(process, outputs, str(short), "ends inside record 1")


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
    (folder / "model.json").write_text(
        json.dumps(info | {"variant": "yolov3", "anchors": None})
    )
    process = train(run_script, outputs, files, model=model_files(folder))
    refused(process, outputs, str(folder), "for yolov3, got", "another variant")
