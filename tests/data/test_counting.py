"""Counting boxes: by hand, and share by share."""

import tensorflow as tf

from superbai.export import Record
from yolov3_tf2.data import records
from yolov3_tf2.data.counting import count_boxes
from yolov3_tf2.data.record_files import RecordFiles, Share

NAMES = ["cat", "dog"]


def write_records(path, labels_of_images):
    """Writes a record for each list of labels; returns the path."""
    with tf.io.TFRecordWriter(str(path)) as writer:
        for labels in labels_of_images:
            boxes = [(1, 1, 5, 5)] * len(labels)
            record = Record("ds/x", b"not decoded", "jpeg", 8, 8, boxes, labels)
            writer.write(records.serialize_example(record, NAMES))
    return path


def test_boxes_are_counted_by_class(tmp_path):
    labels = [[number % 2] * number for number in range(7)]
    paths = [write_records(tmp_path / f"{i}.tfrecord", labels) for i in range(3)]
    counts = count_boxes(RecordFiles(paths), NAMES)
    assert counts.tolist() == [3 * (2 + 4 + 6), 3 * (1 + 3 + 5)]
    shares = [count_boxes(RecordFiles(paths, Share(i, 4)), NAMES) for i in range(4)]
    assert sum(shares).tolist() == counts.tolist()


def test_a_class_that_is_not_among_the_names_is_not_counted(tmp_path):
    path = write_records(tmp_path / "a.tfrecord", [[0, 1, 1]])
    assert count_boxes(RecordFiles([path]), ["dog", "cow"]).tolist() == [2, 0]
