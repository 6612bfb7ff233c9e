"""TFRecord files of a training run: what is refused, and the boxes of all workers."""

import pytest
import tensorflow as tf

from superbai.labelled_image import Record
from yolov3_tf2.data import records
from yolov3_tf2.data.record_files import Share
from yolov3_tf2.errors import InputError
from yolov3_tf2.training import input_files

NAMES = ["disc", "block"]
ALL = Share(0, 1)


def write_records(path, number):
    """Writes a file of images with one disc and two blocks each."""
    boxes, labels = [(0, 0, 4, 4), (1, 1, 5, 5), (2, 2, 6, 6)], [0, 1, 1]
    with tf.io.TFRecordWriter(str(path)) as writer:
        for index in range(number):
            record = Record(f"{index}", b"encoded", "png", 8, 8, boxes, labels)
            writer.write(records.serialize_example(record, NAMES))
    return path


def test_the_files_of_a_share_are_opened(tmp_path):
    paths = [write_records(tmp_path / f"{n}.tfrecord", n) for n in (1, 2)]
    files = input_files.open_records(paths, "train", NAMES, Share(1, 3))
    assert files.total == 3 and files.steps(1) == 1


def test_contents_are_those_of_all_files(tmp_path):
    paths = [write_records(tmp_path / "two.tfrecord", 2)]
    files = input_files.open_records(paths, "train", NAMES, ALL)
    strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
    contents = input_files.measure_contents(files, NAMES, strategy)
    assert contents.count_boxes(NAMES) == {"disc": 2, "block": 4}
    assert contents.max_boxes == 3 and contents.source_ids == ["0", "1"]


def test_validation_images_are_optional(tmp_path, caplog):
    caplog.set_level("INFO")
    two = write_records(tmp_path / "two.tfrecord", 2)
    empty = write_records(tmp_path / "empty.tfrecord", 0)
    for validation in ([], [empty]):
        paths = {"train": [two], "validation": validation, "test": [two]}
        files = input_files.open_splits(paths, NAMES, ALL)
        assert list(files) == ["train", "test"]
        assert "no validation images: the best epoch is chosen" in caplog.text
        caplog.clear()
    paths["validation"] = [empty, two]
    files = input_files.open_splits(paths, NAMES, ALL)
    assert input_files.describe_splits(files) == (
        "2 training images, 2 validation images, 2 test images"
    )
    assert not caplog.text
    with pytest.raises(InputError, match="'test': no images"):
        input_files.open_splits(paths | {"test": [empty]}, NAMES, ALL)
    with pytest.raises(InputError, match="expected at least 3 images"):
        input_files.open_splits(paths, NAMES, Share(0, 3))


def test_evaluation_keeps_as_many_boxes_as_the_images_need(tmp_path, caplog):
    caplog.set_level("INFO")
    strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
    contents = {}
    for split, number in (("train", 3), ("test", 101)):
        path = tmp_path / f"{split}.tfrecord"
        boxes = [(0, 0, 4, 4)] * number
        with tf.io.TFRecordWriter(str(path)) as writer:
            record = Record("a", b"", "png", 8, 8, boxes, [0] * number)
            writer.write(records.serialize_example(record, NAMES))
        files = input_files.open_records([path], split, NAMES, ALL)
        contents[split] = input_files.measure_contents(files, NAMES, strategy)
    assert input_files.choose_max_boxes({"train": contents["train"]}) == 100
    assert not caplog.text
    assert input_files.choose_max_boxes(contents) == 1000
    assert "an image has 101 boxes: the evaluation keeps 1000" in caplog.text


def write_gray_ranges(path, *gray_ranges):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for gray_range in gray_ranges:
            record = Record("a", b"", "png", 8, 8, [(0, 0, 4, 4)], [0], gray_range)
            writer.write(records.serialize_example(record, NAMES))
    return path


def choose_gray_range(path):
    files = input_files.open_records([path], "train", NAMES, ALL)
    strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
    contents = input_files.measure_contents(files, NAMES, strategy)
    return input_files.choose_gray_range(contents.gray_ranges)


def test_the_gray_range_of_16_bit_images_is_found(tmp_path, caplog):
    path = write_gray_ranges(tmp_path / "a.tfrecord", None, (7164, 7529), None)
    assert choose_gray_range(path) == (7164, 7529)
    assert choose_gray_range(write_gray_ranges(tmp_path / "b.tfrecord", None)) is None
    assert not caplog.text


def test_different_gray_ranges_are_said(tmp_path, caplog):
    ranges = [(0, 4095), (7164, 7529), (7164, 7529), None]
    path = write_gray_ranges(tmp_path / "a.tfrecord", *ranges)
    assert choose_gray_range(path) == (7164, 7529)
    assert "(2 by 7164 to 7529, 1 by 0 to 4095)" in caplog.text
    assert "Detection will scale by 7164 to 7529" in caplog.text


def test_files_without_images_are_refused(tmp_path):
    path = write_records(tmp_path / "none.tfrecord", 0)
    with pytest.raises(InputError, match=f"^input 'test': no images in {path}; "):
        input_files.open_records([path], "test", NAMES, ALL)


def test_more_workers_than_images_are_refused(tmp_path):
    path = write_records(tmp_path / "two.tfrecord", 2)
    words = "^input 'train': expected at least 3 images, one for each worker, got 2; "
    with pytest.raises(InputError, match=words):
        input_files.open_records([path], "train", NAMES, Share(0, 3))


def test_files_of_other_classes_are_refused(tmp_path):
    path = write_records(tmp_path / "two.tfrecord", 2)
    with pytest.raises(InputError, match="two.tfrecord: "):
        input_files.open_records([path], "train", ["cat"], ALL)
