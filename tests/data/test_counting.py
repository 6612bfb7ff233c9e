"""Measuring records: by hand, share by share, and what other programs write."""

import image_bytes
import numpy as np
import pytest
import tensorflow as tf

from superbai.labelled_image import Record
from yolov3_tf2.data import records
from yolov3_tf2.data.counting import measure_contents
from yolov3_tf2.data.record_files import RecordFiles, Share
from yolov3_tf2.errors import InputError

NAMES = ["cat", "dog"]
IMAGE = image_bytes.png(np.zeros((8, 8, 1), "uint8"))


def write_records(path, labels_of_images, change=lambda features: None):
    """Writes a record for each list of labels; returns the path."""
    with tf.io.TFRecordWriter(str(path)) as writer:
        for labels in labels_of_images:
            boxes = [(1, 1, 5, 5)] * len(labels)
            record = Record("ds/x", IMAGE, "png", 8, 8, boxes, labels)
            serialized = records.serialize_example(record, NAMES)
            example = tf.train.Example.FromString(serialized)
            change(example.features.feature)
            writer.write(example.SerializeToString())
    return path


def test_boxes_are_counted_by_class(tmp_path):
    labels = [[number % 2] * number for number in range(7)]
    paths = [write_records(tmp_path / f"{i}.tfrecord", labels) for i in range(3)]
    contents = measure_contents(RecordFiles(paths), NAMES)
    expected = {"cat": 3 * (2 + 4 + 6), "dog": 3 * (1 + 3 + 5)}
    assert contents.count_boxes(NAMES) == expected
    assert contents.max_boxes == 6
    assert contents.boxes_per_image.tolist() == 3 * list(range(7))
    shares = [
        measure_contents(RecordFiles(paths, Share(i, 4)), NAMES) for i in range(4)
    ]
    assert sum(len(share.labels) for share in shares) == len(contents.labels)
    counts = [share.count_boxes(NAMES) for share in shares]
    assert {name: sum(c[name] for c in counts) for name in NAMES} == expected


def test_a_class_that_is_not_among_the_names_is_left_out(tmp_path):
    path = write_records(tmp_path / "a.tfrecord", [[0, 1, 1], [0]])
    contents = measure_contents(RecordFiles([path]), ["dog", "cow"])
    assert contents.count_boxes(["dog", "cow"]) == {"dog": 2, "cow": 0}
    assert contents.boxes_per_image.tolist() == [2, 0]
    assert contents.sizes.shape == (2, 2)


def test_records_of_images_without_boxes(tmp_path):
    def drop_boxes(features):
        for name in [n for n in features if n.startswith("image/object/")]:
            del features[name]

    path = write_records(tmp_path / "a.tfrecord", [[], []], drop_boxes)
    contents = measure_contents(RecordFiles([path]), NAMES)
    assert contents.boxes_per_image.tolist() == [0, 0] and contents.max_boxes == 0


def test_boxes_without_a_class_are_refused(tmp_path):
    def drop_class(features):
        del features["image/object/class/text"]

    path = write_records(tmp_path / "a.tfrecord", [[0, 1]], drop_class)
    with pytest.raises(InputError, match="^a record cannot be used: "):
        measure_contents(RecordFiles([path]), NAMES)
