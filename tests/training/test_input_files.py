"""TFRecord files of a training run: what is refused, and the boxes of all workers."""

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
