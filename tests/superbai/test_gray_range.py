"""The range of the 16-bit images of an export: one for all of them, measured once."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from suite_export import (
    box,
    build,
    encode,
    encoded_image,
    labelled,
    open_export,
    write_zip,
)

from superbai import gray_range
from superbai.export import Export
from superbai.labelled_image import GrayRangeUnknown
from yolov3_tf2.errors import InputError
from yolov3_tf2.files.image_kinds import split_images


def thermal(number, kind="PNG", dead=True):
    """A camera's image: a plane of 7200, a warm box, and one dead pixel."""
    values = np.full((48, 64), 7200 + number, "uint16")
    values[10:20, 10:30] = 7500 + number
    if dead:
        values[0, 0], values[0, 1] = 0, 65535
    return encode(Image.fromarray(values), kind)


def items(number=6, kind="PNG"):
    return [
        labelled(f"{n}.{kind.lower()}", box(10, 10, 20, 10), encoded=thermal(n, kind))
        for n in range(number)
    ]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_all_images_are_scaled_by_the_range_of_all(tmp_path, kind):
    plain = labelled("plain.jpg", box(1, 1, 9, 9))
    with open_export(tmp_path, *build([plain, *items(6, kind)])) as export:
        assert export.read(export.items[0]).gray_range is None
        with pytest.raises(GrayRangeUnknown):
            export.read(export.items[1])
        gray_range.measure_gray_range(export)
        assert export.gray_range == (7200, 7505)
        first, *read = map(export.read, export.items)
    assert first.encoded == encoded_image() and first.gray_range is None
    levels = []
    for number, record in enumerate(read):
        assert record.gray_range == (7200, 7505) and record.format == "png"
        pixels = tf.io.decode_png(record.encoded).numpy()
        assert pixels.dtype == np.uint8
        levels.append((pixels[40, 40, 0], pixels[15, 15, 0]))
        expected = [(n + number) * 256 // 306 for n in (0, 300)]
        np.testing.assert_array_equal(levels[-1], expected)
        np.testing.assert_array_equal(pixels[0, :2, 0], [0, 255])
    assert levels[-1] == (4, 255)
    assert export.notes.changed == {"images of 16 bits per channel, scaled to 8": 6}


def test_the_whole_range_stays_the_upper_8_bits(tmp_path):
    values = np.arange(48 * 64, dtype="uint16").reshape(48, 64) * 21
    item = labelled(
        "a.png", box(1, 1, 9, 9), encoded=encode(Image.fromarray(values), "PNG")
    )
    with open_export(tmp_path, *build([item])) as export:
        gray_range.measure_gray_range(export)
        assert export.gray_range == (0, 65535)
        (record,) = map(export.read, export.items)
    pixels = tf.io.decode_png(record.encoded, 1).numpy()[..., 0]
    np.testing.assert_array_equal(pixels, values >> 8)


def test_the_name_of_a_file_makes_no_difference(tmp_path):
    named = [
        labelled("a", box(1, 1, 9, 9), encoded=thermal(0), entry="ds/a"),
        labelled("b.jpg", box(1, 1, 9, 9), encoded=thermal(9), entry="ds/b.jpg"),
        labelled("c.png", box(1, 1, 9, 9), encoded=encoded_image()),
    ]
    with open_export(tmp_path, *build(named)) as export:
        gray_range.measure_gray_range(export)
        assert export.gray_range == (7200, 7509)


def test_several_processes_find_the_same(tmp_path):
    many = items(250)
    many[100]["encoded"] = b"no image: whoever writes it says so"
    with open_export(tmp_path, *build(many)) as export:
        gray_range.measure_gray_range(export, processes=1)
        alone = export.gray_range
        gray_range.measure_gray_range(export, processes=3)
        assert export.gray_range == alone == (7200, 7749)


def test_few_unusual_images_are_named(tmp_path, caplog):
    unusual = Image.fromarray(np.arange(3072, dtype="uint16").reshape(48, 64) * 10)
    other = labelled("odd.png", box(1, 1, 9, 9), encoded=encode(unusual, "PNG"))
    with open_export(tmp_path, *build(items(3))) as export:
        gray_range.measure_gray_range(export)
    assert not caplog.text
    with open_export(tmp_path, *build([*items(3), other])) as export:
        gray_range.measure_gray_range(export)
    assert "3 of 4 images of 16 bits get fewer than 16 of the 256" in caplog.text
    assert "ds/odd.png.jpg" in caplog.text


def test_images_cut_off_inside_their_header_are_left_to_the_reader(tmp_path):
    cut = labelled("cut.png", box(1, 1, 9, 9), encoded=thermal(0)[:10])
    with open_export(tmp_path, *build([*items(2), cut])) as export:
        gray_range.measure_gray_range(export)
        assert export.gray_range == (7200, 7501)
        with pytest.raises(InputError, match=r"cut\.png"):
            export.read(export.items[-1])


def test_images_by_content_in_folders_and_loose_files(tmp_path):
    names = ("DJI_1.MPO", "a.jpe", "b.JPG", "noext", "c.jpeg")
    labels = build([labelled(name, box(1, 1, 9, 9)) for name in names])[1]
    zipped = write_zip(tmp_path / "labels.zip", labels)
    folder = tmp_path / "images" / "ds"
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_bytes(encoded_image())
    (folder / "more").write_bytes(encoded_image())
    (folder / "notes.txt").write_bytes(b"text")
    for images in ([tmp_path / "images"], sorted(folder.iterdir())):
        with Export(images, zipped) as export:
            assert sorted(item.key for item in export.items) == sorted(names)
            assert export.notes.left_out == {
                "images without a label": 1,
                "files other than images": 1,
            }
            (image,) = export.notes.examples["images without a label"]
            (other,) = export.notes.examples["files other than images"]
            assert image.endswith("more") and other.endswith("notes.txt")


def test_the_case_of_a_thermal_camera(shared):
    case = shared / "cases" / "thermal16"
    with Export([case / "images.zip"], case / "labels.zip") as export:
        gray_range.measure_gray_range(export)
        black, white = export.gray_range
        # The files have values from 7164 to 7529.
        assert 7164 <= black < 7180 and 7510 < white <= 7529
        for item in export.items:
            pixels = tf.io.decode_png(export.read(item).encoded).numpy()
            assert pixels.min() < 10 and pixels.max() > 245 and pixels.std() > 20


def test_the_case_of_odd_names(shared):
    case = shared / "cases" / "ext"
    with Export([case / "images.zip"], case / "labels.zip") as export:
        assert len(export.items) == 5
        for archive in {item.archive for item in export.items}:
            assert len(split_images(archive)[0]) == 5
