"""What images contain: by hand, joined, and the same from records and from files."""

import numpy as np
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from superbai.labelled_image import Record
from yolov3_tf2.data import counting, records
from yolov3_tf2.data.contents import describe_record, join_contents, list_contents
from yolov3_tf2.data.record_files import RecordFiles, Share

NAMES = ["cat", "dog"]
RECORDS = [
    # Boxes of half the width and a quarter of the height, which is half the width.
    Record("ds/가.jpg", b"same", "jpeg", 80, 40, [(0, 0, 40, 10)], [1]),
    Record(
        "ds/b.jpg", b"other", "jpeg", 40, 80, [(0, 0, 40, 10), (3, 3, 5, 5)], [0, 1]
    ),
    Record("ds/c.jpg", b"same", "jpeg", 8, 8, [], []),
]


def check_by_hand(contents):
    assert contents.source_ids == ["ds/가.jpg", "ds/b.jpg", "ds/c.jpg"]
    first, second, third = contents.hashes
    assert first == third != second
    assert contents.boxes_per_image.tolist() == [1, 2, 0] and contents.max_boxes == 2
    assert contents.labels.tolist() == [1, 0, 1]
    expected = [[1 / 2, 1 / 8], [1 / 2, 1 / 8], [1 / 40, 1 / 40]]
    np.testing.assert_allclose(contents.sizes, expected, rtol=1e-6)
    np.testing.assert_allclose(contents.sides, [1 / 4, 1 / 4, 1 / 40], rtol=1e-6)
    assert contents.count_boxes(NAMES) == {"cat": 1, "dog": 2}


def test_records_by_hand():
    images = [describe_record(record) for record in RECORDS]
    check_by_hand(list_contents(images))
    check_by_hand(join_contents([list_contents(images[:1]), list_contents(images[1:])]))


def test_files_by_hand_and_share_by_share(tmp_path):
    path = tmp_path / "a.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in RECORDS:
            writer.write(records.serialize_example(record, NAMES))
    check_by_hand(counting.measure_contents(RecordFiles([path]), NAMES))
    shares = [RecordFiles([path], Share(index, 2)) for index in range(2)]
    parts = [counting.measure_contents(share, NAMES) for share in shares]
    check_by_hand(join_contents(parts))


@given(st.binary(max_size=40), st.data())
def test_images_that_differ_in_a_byte_are_not_equal(data, draw):
    def hash_of(encoded):
        return describe_record(RECORDS[0]._replace(encoded=encoded)).hash

    assert hash_of(data) == hash_of(bytes(bytearray(data)))
    changed = bytearray(data + b"\0")
    assert hash_of(bytes(changed)) != hash_of(data)
    if data:
        index = draw.draw(st.integers(0, len(data) - 1))
        changed = bytearray(data)
        changed[index] ^= draw.draw(st.integers(1, 255))
        assert hash_of(bytes(changed)) != hash_of(data)


def test_nothing():
    for nothing in (list_contents([]), join_contents([])):
        assert nothing.max_boxes == 0 and nothing.sizes.shape == (0, 2)
        assert nothing.count_boxes(NAMES) == {"cat": 0, "dog": 0}
