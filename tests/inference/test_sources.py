"""Images out of files, folders, zips and TFRecord files."""

import pytest
import suite_export
import tensorflow as tf

from superbai.labelled_image import Record
from yolov3_tf2.data import records
from yolov3_tf2.errors import InputError
from yolov3_tf2.inference.sources import count_images, walk_images


def test_walk_and_count(tmp_path):
    colours = [(number, 0, 0) for number in (10, 20, 30, 40)]
    encoded = [suite_export.encoded_image(colour, "PNG", (4, 4)) for colour in colours]
    item = tmp_path / "a.png"
    item.write_bytes(encoded[0])
    entries = {
        "ds/": b"",
        "ds/c.png": encoded[1],
        "__MACOSX/ds/._c.png": b"",
        "ds/readme.txt": b"",
        "ds/b.PNG": encoded[2],
    }
    archive = suite_export.write_zip(tmp_path / "images.zip", entries)
    record = Record("데이터/d.png", encoded[3], "png", 4, 4, [], [])
    tfrecord = tmp_path / "d.tfrecord"
    with tf.io.TFRecordWriter(str(tfrecord)) as writer:
        writer.write(records.serialize_example(record, ["car"]))

    paths = [item, archive, tfrecord]
    assert [(source.name, source.read()) for source in walk_images(paths)] == [
        ("a.png", encoded[0]),
        ("ds/c.png", encoded[1]),
        ("ds/b.PNG", encoded[2]),
        ("데이터/d.png", encoded[3]),
    ]
    assert count_images(paths) == (4, ["ds/readme.txt"])
    assert count_images([]) == (0, [])

    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "b.jpg").write_bytes(encoded[1])
    (folder / "a.png").write_bytes(encoded[0])
    (folder / "notes.txt").write_bytes(b"")
    (source, other) = walk_images([folder])
    assert (source.name, source.read()) == ("a.png", encoded[0])
    assert (other.name, other.where) == ("sub/b.jpg", f"{folder}: sub/b.jpg")
    assert count_images([folder]) == (2, ["notes.txt"])


@pytest.mark.parametrize("read", [lambda p: list(walk_images(p)), count_images])
def test_walk_and_count_refuse_a_damaged_zip(tmp_path, read):
    path = suite_export.write_zip(tmp_path / "images.zip", {"a.jpg": b"bytes"})
    path.write_bytes(path.read_bytes().replace(b"PK\x01\x02", b"PK\xff\xff"))
    with pytest.raises(InputError, match=r"images\.zip"):
        read([path])


@pytest.mark.parametrize("damage", ["cut off", "one byte changed"])
def test_walk_refuses_a_damaged_tfrecord(tmp_path, damage):
    path = tmp_path / "a.tfrecord"
    record = Record("ds/a.jpg", suite_export.encoded_image(), "jpeg", 64, 48, [], [])
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(records.serialize_example(record, ["car"]))
    content = bytearray(path.read_bytes())
    content[40] ^= 255
    path.write_bytes(content if damage == "one byte changed" else content[:-20])
    with pytest.raises(InputError, match=r"a\.tfrecord"):
        list(walk_images([path]))
