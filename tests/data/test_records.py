"""The TFRecord schema: parsing inverts serialising; counting by lengths."""

import numpy as np
import pytest
import suite_export
import tensorflow as tf

from superbai.labelled_image import Record
from yolov3_tf2.data import records
from yolov3_tf2.errors import InputError

CLASS_NAMES = ["car", "사람", "traffic light"]
# Exact in float32 as fractions of 64 by 32 pixels.
BOXES_PX = [(16.0, 8.0, 32.0, 32.0), (0.0, 0.0, 64.0, 4.0), (1.5, 2.0, 8.0, 3.0)]
BOXES = [[0.25, 0.25, 0.5, 1], [0, 0, 1, 0.125], [0.0234375, 0.0625, 0.125, 0.09375]]
LABELS = [1, 0, 1]


def record(number=0, boxes=3):
    return Record(
        f"데이터/{number}.jpg",
        suite_export.encoded_image(size=(64, 32)),
        "jpeg",
        64,
        32,
        BOXES_PX[:boxes],
        LABELS[:boxes],
    )


def write(path, number):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for index in range(number):
            writer.write(records.serialize_example(record(index), CLASS_NAMES))
    return path


def check(parsed, boxes):
    assert parsed["encoded"] == record().encoded
    assert parsed["source_id"].decode() == "데이터/0.jpg"
    assert (parsed["width"], parsed["height"]) == (64, 32)
    assert parsed["boxes"].shape == (boxes, 4)
    assert parsed["boxes"].dtype == np.float32
    np.testing.assert_array_equal(parsed["boxes"], np.reshape(BOXES[:boxes], (-1, 4)))
    names = [name.decode() for name in parsed["class_names"]]
    assert names == [CLASS_NAMES[label] for label in LABELS[:boxes]]


@pytest.mark.parametrize("boxes", [3, 1, 0])
def test_parse_inverts_serialize(boxes):
    parsed = records.parse_example(
        records.serialize_example(record(boxes=boxes), CLASS_NAMES)
    )
    check({name: tensor.numpy() for name, tensor in parsed.items()}, boxes)


@pytest.mark.parametrize("boxes", [3, 1, 0])
def test_parse_inside_a_dataset(boxes):
    serialized = records.serialize_example(record(boxes=boxes), CLASS_NAMES)
    dataset = tf.data.Dataset.from_tensors(serialized).map(records.parse_example)
    assert dataset.element_spec["boxes"].shape[-1] == 4
    (parsed,) = dataset.as_numpy_iterator()
    check(parsed, boxes)


def test_features_are_those_of_the_object_detection_api():
    example = tf.train.Example.FromString(
        records.serialize_example(record(), CLASS_NAMES)
    )
    features = example.features.feature
    assert features["image/format"].bytes_list.value == [b"jpeg"]
    assert features["image/filename"] == features["image/source_id"]
    assert features["image/object/class/label"].int64_list.value == [
        label + 1
        for label in LABELS  # 0 is the background.
    ]
    assert features["image/object/bbox/xmax"].float_list.value == [0.5, 1, 0.125]


def test_serialize_is_deterministic():
    first, second = (records.serialize_example(record(), CLASS_NAMES) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("number", [0, 1, 5])
def test_count(tmp_path, number):
    assert records.count_records(write(tmp_path / "a.tfrecord", number)) == number


@pytest.mark.parametrize("keep", [-1, -4, -5, 20, 11, 1])
def test_count_refuses_a_file_that_is_cut_off(tmp_path, keep):
    path = write(tmp_path / "cut.tfrecord", 1)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"cut\.tfrecord: .* ends inside record 0"):
        records.count_records(path)


def test_count_names_the_record_that_is_cut_off(tmp_path):
    path = write(tmp_path / "cut.tfrecord", 3)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match="ends inside record 2"):
        records.count_records(path)


@pytest.mark.parametrize(
    "content",
    [
        b"car\nperson\n",
        b"<!DOCTYPE html><html><body>This link has expired</body></html>",
        suite_export.encoded_image(),
        suite_export.encoded_image(kind="PNG"),
    ],
    ids=["short text", "text", "jpeg", "png"],
)
def test_count_refuses_another_kind_of_file(tmp_path, content):
    path = tmp_path / "foreign.tfrecord"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"foreign\.tfrecord: expected a TFRecord"):
        records.count_records(path)


def test_single_records_are_read_by_number(tmp_path):
    paths = [write(tmp_path / f"{i}.tfrecord", 3) for i in range(2)]
    rows = records.read_examples(paths, [4, 0, 5])
    names = [row["source_id"].numpy().decode() for row in rows]
    assert names == ["데이터/1.jpg", "데이터/0.jpg", "데이터/2.jpg"]
