"""Images of records that cannot be decoded: found, named, left out."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from superbai.labelled_image import Record
from yolov3_tf2.data import records
from yolov3_tf2.data.augment import STRENGTHS
from yolov3_tf2.data.counting import measure_contents
from yolov3_tf2.data.dataset import build_dataset, build_training_dataset, iterate
from yolov3_tf2.data.record_files import WHOLE, RecordFiles, Share
from yolov3_tf2.data.unreadable import UnreadableImages, find_unreadable
from yolov3_tf2.errors import InputError
from yolov3_tf2.network.variants import VARIANTS

TINY = VARIANTS["yolov3-tiny"]
NAMES = ["cat", "dog"]
SIZE = 64
BAD = {3, 11, 12}  # Of 20 records in two files of 10.


def encode(kind, grey, **options):
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), (grey,) * 3).save(buffer, kind, **options)
    return buffer.getvalue()


def damaged(grey):
    """A JPEG with a table of the pixels' codes that is no table."""
    encoded = bytearray(encode("JPEG", grey))
    encoded[encoded.index(b"\xff\xc4") + 5] = 255
    return bytes(encoded)


@pytest.fixture
def paths(tmp_path):
    for first in (0, 10):
        path = tmp_path / f"{first:02d}.tfrecord"
        with tf.io.TFRecordWriter(str(path)) as writer:
            for number in range(first, first + 10):
                encoded = (damaged if number in BAD else lambda g: encode("JPEG", g))(
                    10 * number
                )
                box, name = (5, 5, 30, 25), f"ds/{number}.jpg"
                record = Record(name, encoded, "jpeg", 40, 30, [box], [number % 2])
                writer.write(records.serialize_example(record, NAMES))
    return sorted(tmp_path.iterdir())


def training(files, unreadable, batch_size=4, mosaic=0.0, **options):
    epoch = tf.Variable(1, dtype=tf.int64)
    strengths = dict.fromkeys(STRENGTHS, 0.0) | {"mosaic": mosaic}
    return build_training_dataset(
        *(files, NAMES, TINY, [SIZE], batch_size, strengths, 1, epoch, 9),
        **{"unreadable": unreadable, **options},
    )


def numbers(batches, weight):
    """The numbers of all images of a weight, in their order."""
    return [
        int(number)
        for batch in batches
        for number, w in zip(batch["numbers"], batch["weights"], strict=True)
        if w == weight
    ]


def test_they_are_found_and_named(paths):
    found = find_unreadable(RecordFiles(paths), NAMES)
    assert {number: name for number, (name, _) in found.items()} == {
        number: f"ds/{number}.jpg" for number in BAD
    }
    for number, (_, message) in found.items():
        assert message.startswith(f"{paths[number // 10]}: ")
    shares = [find_unreadable(RecordFiles(paths, Share(i, 3)), NAMES) for i in range(3)]
    assert [sorted(share) for share in shares] == [[3], [11, 12], []]


@pytest.mark.parametrize("kind", ["test", "training"])
def test_all_are_named_when_the_first_one_fails(paths, kind):
    files, unreadable = RecordFiles(paths), UnreadableImages(NAMES, 2)
    batches = training(files, unreadable)
    if kind == "test":
        batches = build_dataset(files, NAMES, TINY, SIZE, 4, unreadable=unreadable)
    with pytest.raises(InputError) as caught:
        list(iterate(batches))
    message = str(caught.value)
    assert message.startswith("3 images cannot be decoded: ds/3.jpg (")
    assert (
        "assert" not in message
        and "; ds/11.jpg (" in message
        and "; ds/12.jpg (" in message
    )
    assert message.endswith("leave them out with --max_unreadable=3.")


@pytest.mark.parametrize("batch_size", [1, 4, 7])
def test_they_have_no_weight_and_no_boxes(paths, batch_size):
    unreadable = UnreadableImages(NAMES, 3)
    options = {"fill_last_batch": True, "unreadable": unreadable}
    dataset = build_dataset(
        RecordFiles(paths), NAMES, TINY, SIZE, batch_size, **options
    )
    for _ in range(2):  # The second pass knows them.
        batches = list(iterate(dataset))
        assert len(batches) == -(-20 // batch_size)
        assert {len(batch["numbers"]) for batch in batches} == {batch_size}
        assert numbers(batches, 1) == [n for n in range(20) if n not in BAD]
        for batch in batches:
            for place, number in enumerate(batch["numbers"].numpy()):
                boxes = batch["boxes"][place].numpy().any(axis=-1).sum()
                assert boxes == (0 if number in BAD else 1)
                # 10 n, of 255; in the stand-in all grey.
                expected = 128 if number in BAD else 10 * number
                shown = batch["images"][place, SIZE // 2, SIZE // 2] * 255
                np.testing.assert_allclose(shown, expected, atol=2)
    assert unreadable.names == ["ds/3.jpg", "ds/11.jpg", "ds/12.jpg"]


@pytest.mark.parametrize("mosaic", [0.0, 1.0])
def test_the_others_stay_in_their_batches(paths, mosaic):
    dataset = training(RecordFiles(paths), UnreadableImages(NAMES, 3), mosaic=mosaic)
    first, second = list(iterate(dataset)), list(iterate(dataset))
    assert len(first) == 5
    # The pass in which they are found equals the next one: a resumed training sees the
    # same batches as an uninterrupted one.
    for ours, theirs in zip(first, second, strict=True):
        for name in ("numbers", "images", "boxes", "weights"):
            np.testing.assert_array_equal(ours[name], theirs[name])
    assert sorted(numbers(first, 1)) == [n for n in range(20) if n not in BAD]
    assert sorted(numbers(first, 0)) == sorted(BAD)


def test_every_worker_leaves_out_its_own(paths):
    seen = []
    for index in range(3):
        files, unreadable = (
            RecordFiles(paths, Share(index, 3)),
            UnreadableImages(NAMES, 3),
        )
        batches = list(iterate(training(files, unreadable)))
        assert len(batches) == files.steps(4) == 2
        seen += numbers(batches, 1)
        assert len(unreadable.names) == (1, 2, 0)[index]
    assert sorted(seen) == [n for n in range(20) if n not in BAD]
    # Together they are too many.
    with pytest.raises(InputError, match="5 images cannot be decoded"):
        unreadable.check_number(list("abcde"))


def test_a_record_of_an_unknown_class_is_never_left_out(paths):
    unreadable = UnreadableImages(["cat"], 99)
    with pytest.raises(InputError, match=r"00\.tfrecord: record 1 .*dog.*ds/1\.jpg"):
        list(iterate(training(RecordFiles(paths), unreadable)))


def test_an_image_of_another_size_is_named(tmp_path):
    path = tmp_path / "a.tfrecord"
    record = Record("ds/a.jpg", encode("JPEG", 9), "jpeg", 64, 48, [], [])
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(records.serialize_example(record, NAMES))
    words = r"ds/a\.jpg \(.*a\.tfrecord: .*width and height are not those of its image"
    with pytest.raises(InputError, match=words) as caught:
        list(iterate(training(RecordFiles([path]), None)))
    assert "tf.Tensor" not in str(caught.value)


def test_a_damaged_record_is_named_with_its_file(paths):
    content = bytearray(paths[1].read_bytes())
    content[-20] ^= 255
    paths[1].write_bytes(content)
    files, expected = (
        RecordFiles(paths),
        r"10\.tfrecord: record 9 is damaged: corrupted",
    )
    with pytest.raises(InputError, match=expected):
        list(iterate(training(files, UnreadableImages(NAMES, 99))))
    with pytest.raises(InputError, match=expected):
        measure_contents(RecordFiles(paths, WHOLE), NAMES)
