"""TFRecord files of a training run: what is refused, and the boxes of all workers."""

from collections import Counter

import pytest
import tensorflow as tf

from superbai.export import Record
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


def test_boxes_are_counted_by_class_name(tmp_path):
    paths = [write_records(tmp_path / "two.tfrecord", 2)]
    files = input_files.open_records(paths, "train", NAMES, ALL)
    strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
    counts = input_files.count_boxes(files, NAMES, strategy)
    assert counts == {"disc": 2, "block": 4}


def write_gray_ranges(path, *gray_ranges):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for gray_range in gray_ranges:
            record = Record("a", b"", "png", 8, 8, [(0, 0, 4, 4)], [0], gray_range)
            writer.write(records.serialize_example(record, NAMES))
    return path


def choose_gray_range(path):
    strategy, ranges = tf.distribute.OneDeviceStrategy("/cpu:0"), Counter()
    files = input_files.open_records([path], "train", NAMES, ALL)
    counts = input_files.count_boxes(files, NAMES, strategy, ranges)
    assert counts == {"disc": files.total, "block": 0}
    return input_files.choose_gray_range(ranges, strategy)


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
