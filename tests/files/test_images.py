"""Image files: how records store each format and orientation, and what is refused."""

import io
import struct
import zlib

import numpy as np
import pytest
import suite_export
import tensorflow as tf
from PIL import Image
from suite_export import encode

from yolov3_tf2.errors import InputError
from yolov3_tf2.files.image_kinds import is_image_name
from yolov3_tf2.files.images import load_rgb
from yolov3_tf2.files.prepared_image import prepare_image

RED = (250, 10, 10)
SIZE, TURNED = (64, 48), (48, 64)
# Where the upper left corner of the stored pixels is shown, by EXIF orientation.
CORNERS = {
    1: "left upper",
    2: "right upper",
    3: "right lower",
    4: "left lower",
    5: "left upper",
    6: "right upper",
    7: "right lower",
    8: "left lower",
}


def exif(orientation=None):
    """What `encode` needs to write an EXIF orientation."""
    if orientation is None:
        return {}
    tags = Image.Exif()
    tags[0x0112] = orientation
    return {"exif": tags}


def corner_image(kind="JPEG", orientation=None):
    """64 by 48 pixels, blue, the left upper 16 by 16 stored pixels red."""
    image = Image.new("RGB", SIZE, (10, 10, 250))
    image.paste(RED, (0, 0, 16, 16))
    return encode(image, kind, **exif(orientation))


def noise(kind, mode="RGB", **options):
    """An image that no kind can compress to a few bytes."""
    values = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    return encode(Image.fromarray(values).convert(mode), kind, **options)


def png_16_bit_rgb(colour, width=4, height=4):
    """A PNG of 16 bits per channel, which Pillow cannot write."""

    def chunk(name, data):
        checksum = zlib.crc32(name + data)
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", checksum)

    rows = (b"\0" + struct.pack(">3H", *colour) * width) * height
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + chunks + chunk(b"IEND", b"")


def decode(encoded):
    """Decodes as training does: without a look at EXIF."""
    return tf.io.decode_image(encoded, channels=3, expand_animations=False).numpy()


def red_corner(pixels):
    """Names the corner that is red."""
    corners = {
        "left upper": pixels[4, 4],
        "right upper": pixels[4, -5],
        "left lower": pixels[-5, 4],
        "right lower": pixels[-5, -5],
    }
    (found,) = [name for name, pixel in corners.items() if pixel[0] > 200]
    return found


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.jpg", True),
        ("ds/a.JPEG", True),
        ("a.jpg.PNG", True),
        ("a.bmp", True),
        ("a.json", False),
        ("jpg", False),
        ("a.jpg/readme", False),
    ],
)
def test_is_image_name(name, expected):
    assert is_image_name(name) is expected


@pytest.mark.parametrize(
    ("encoded", "kind"),
    [
        (corner_image("JPEG"), "jpeg"),
        (corner_image("PNG"), "png"),
        (corner_image("JPEG", orientation=1), "jpeg"),
        (corner_image("PNG", orientation=1), "png"),
        (noise("JPEG", "L"), "jpeg"),
        (noise("JPEG", progressive=True), "jpeg"),
        (noise("PNG", "P"), "png"),
        (noise("PNG", "RGBA"), "png"),
        (noise("PNG", "LA"), "png"),
        (noise("PNG", "1"), "png"),
        (noise("MPO", save_all=True), "jpeg"),
    ],
)
@pytest.mark.parametrize("labelled_size", [None, SIZE])
def test_an_upright_jpeg_or_png_is_not_changed(encoded, kind, labelled_size):
    prepared = prepare_image(encoded, "a.jpg", labelled_size)
    assert prepared == (encoded, kind, *SIZE, False, ())
    assert decode(encoded).shape == (48, 64, 3)


@pytest.mark.parametrize("kind", ["BMP", "GIF", "TIFF"])
def test_other_formats_become_a_png_with_the_same_pixels(kind):
    encoded = corner_image(kind)
    prepared, new_kind, width, height, *_ = prepare_image(encoded, f"a.{kind}")
    assert (new_kind, width, height) == ("png", *SIZE)
    expected = np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))
    np.testing.assert_array_equal(decode(prepared), expected)
    assert red_corner(decode(prepared)) == "left upper"


@pytest.mark.parametrize("orientation", CORNERS)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_an_image_is_made_upright(kind, orientation):
    encoded = corner_image(kind, orientation)
    size = TURNED if orientation >= 5 else SIZE
    prepared, new_kind, *new_size, _, _ = prepare_image(encoded, "a.jpg")
    assert new_kind == ("jpeg" if kind in ("JPEG", "WEBP") else "png")
    assert tuple(new_size) == size
    assert decode(prepared).shape == (size[1], size[0], 3)
    assert red_corner(decode(prepared)) == CORNERS[orientation]
    assert red_corner(np.asarray(load_rgb(encoded, "a"))) == (CORNERS[orientation])
    # No EXIF is left that could rotate it again.
    assert Image.open(io.BytesIO(prepared)).getexif().get(0x0112, 1) == 1


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize(
    ("labelled_size", "size", "corner"),
    [
        (None, TURNED, "right upper"),
        (TURNED, TURNED, "right upper"),
        (SIZE, SIZE, "left upper"),
    ],
    ids=["unknown", "upright", "as stored"],
)
def test_the_labelled_size_decides_the_orientation(kind, labelled_size, size, corner):
    encoded = corner_image(kind, orientation=6)
    prepared, _, *new_size, _, _ = prepare_image(encoded, "a.jpg", labelled_size)
    assert tuple(new_size) == size
    assert decode(prepared).shape == (size[1], size[0], 3)
    assert red_corner(decode(prepared)) == corner
    assert Image.open(io.BytesIO(prepared)).getexif().get(0x0112, 1) == 1


def test_a_square_image_is_always_made_upright():
    image = Image.open(io.BytesIO(corner_image("PNG"))).crop((0, 0, 48, 48))
    encoded = encode(image, "PNG", **exif(6))
    prepared, *_ = prepare_image(encoded, "a.png", (48, 48))
    assert red_corner(decode(prepared)) == "right upper"


@pytest.mark.parametrize("orientation", [None, 6])
def test_a_different_labelled_size_is_refused(orientation):
    encoded = corner_image(orientation=orientation)
    with pytest.raises(InputError, match="a.jpg is 64x48, .* labelled as 128x96"):
        prepare_image(encoded, "images.zip: a.jpg", (128, 96))


def test_a_swapped_labelled_size_without_orientation_is_refused():
    with pytest.raises(InputError, match="a.jpg is 64x48, .* labelled as 48x64"):
        prepare_image(corner_image(), "images.zip: a.jpg", TURNED)


@pytest.mark.parametrize(
    ("encoded", "colour"),
    [
        (encode(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG"), (255, 0, 0)),
        (encode(Image.new("L", (16, 16), 100), "JPEG"), (100, 100, 100)),
        (encode(Image.new("RGBA", (4, 4), (200, 30, 40, 0)), "PNG"), (255, 255, 255)),
        (encode(Image.new("LA", (4, 4), (90, 51)), "PNG"), (222, 222, 222)),
        (encode(Image.new("1", (4, 4), 1), "PNG"), (255, 255, 255)),
        (encode(Image.new("RGB", (4, 4), RED).quantize(), "PNG"), RED),
        (encode(Image.new("RGB", (4, 4), RED), "BMP"), RED),
        (encode(Image.new("RGB", (4, 4), RED), "GIF"), RED),
        (png_16_bit_rgb((0x8000, 0x1000, 0xFF00)), (128, 16, 255)),
        (encode(Image.fromarray(np.full((4, 4), 0x8000, "u2")), "PNG"), (128,) * 3),
        (encode(Image.fromarray(np.full((4, 4), 0x8000, "u2")), "TIFF"), (128,) * 3),
    ],
    ids=[
        "cmyk jpeg",
        "grey jpeg",
        "rgba png",
        "grey alpha png",
        "one bit png",
        "palette png",
        "bmp",
        "gif",
        "16-bit rgb png",
        "16-bit grey png",
        "16-bit grey tiff",
    ],
)
def test_training_and_detection_see_the_same_colour(encoded, colour):
    trained = decode(prepare_image(encoded, "a")[0])[2, 2]
    detected = load_rgb(encoded, "a").getpixel((2, 2))
    np.testing.assert_allclose(trained, colour, atol=1)
    np.testing.assert_allclose(detected, colour, atol=1)


@pytest.mark.parametrize("orientation", [1, 6])
def test_16_bits_are_scaled_in_either_orientation(orientation):
    image = Image.fromarray(np.full((4, 8), 0x8000, "u2"))
    encoded = encode(image, "PNG", **exif(orientation))
    prepared, *_ = prepare_image(encoded, "a.png")
    np.testing.assert_allclose(decode(prepared)[2, 2], (128, 128, 128), atol=1)


@pytest.mark.parametrize(
    "encoded",
    [b"", b"not an image", b"<!DOCTYPE html>", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"],
)
@pytest.mark.parametrize("read", [prepare_image, load_rgb])
def test_bytes_that_are_not_an_image_are_refused(read, encoded):
    with pytest.raises(InputError, match="a.jpg: expected an image, got") as caught:
        read(encoded, "images.zip: a.jpg")
    assert repr(encoded[:12]) in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "orientation"),
    [(kind, None) for kind in ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP")]
    + [(kind, 6) for kind in ("JPEG", "PNG", "TIFF", "WEBP")],
)
@pytest.mark.parametrize("labelled_size", [None, SIZE])
def test_an_incomplete_image_is_refused(kind, orientation, labelled_size):
    encoded = noise(kind, **exif(orientation))
    encoded = encoded[: len(encoded) // 2]
    with pytest.raises(InputError, match="a.jpg: expected an image, got .* incomplete"):
        prepare_image(encoded, "images.zip: a.jpg", labelled_size)
    with pytest.raises(InputError, match="a.jpg: expected an image, got .* incomplete"):
        load_rgb(encoded, "images.zip: a.jpg")


@pytest.mark.parametrize("options", [{}, {"progressive": True}], ids=["", "scans"])
@pytest.mark.parametrize("read", [load_rgb, prepare_image])
def test_a_jpeg_without_its_end_marker_is_repaired(read, options):
    encoded = noise("JPEG", **options)
    whole = np.asarray(load_rgb(encoded, "a.jpg"))
    for cut in (1, 2):
        result = read(encoded[:-cut], "a.jpg")
        if read == prepare_image:
            assert prepare_image(result.encoded, "a.jpg").encoded == result.encoded
        else:
            np.testing.assert_array_equal(np.asarray(result), whole)


@pytest.mark.parametrize("options", [{}, {"progressive": True}], ids=["", "scans"])
@pytest.mark.parametrize("cut", [12, 100, 0.5])
def test_a_jpeg_without_its_last_pixels_is_refused(cut, options):
    encoded = noise("JPEG", **options)
    cut = int(cut * len(encoded)) if cut < 1 else cut
    contents = [encoded[:-cut]]
    if cut > 64:
        contents.append(encoded[:-cut] + bytes(cut))
    for content in contents:
        for read in (load_rgb, prepare_image):
            with pytest.raises(InputError, match=r"a\.jpg: .*its end is missing"):
                read(content, "a.jpg")


def test_an_end_marker_in_the_metadata_is_not_the_end():
    thumbnail = Image.Exif()
    thumbnail[0x010E] = "\xff\xd9 ends here".encode("latin-1")
    encoded = noise("JPEG", exif=thumbnail)
    assert encoded.index(b"\xff\xd9") < 100
    assert prepare_image(encoded, "a.jpg").encoded == encoded
    with pytest.raises(InputError, match="its end is missing"):
        prepare_image(encoded[: len(encoded) // 2], "a.jpg")


def test_a_png_without_its_last_bytes_is_refused_or_repaired():
    for cut in (1, 2, 3):
        try:
            prepared, *_ = prepare_image(noise("PNG")[:-cut], "a.png")
        except InputError:
            continue
        assert decode(prepared).shape == (48, 64, 3)


@pytest.mark.parametrize("mode", ["F", "I"])
def test_32_bits_a_channel_are_refused(mode):
    encoded = encode(Image.new(mode, SIZE, 7), "TIFF")
    with pytest.raises(InputError, match=r"a\.tif: .*32 bits per channel"):
        prepare_image(encoded, "a.tif")


def test_a_text_instead_of_a_number_in_exif():
    encoded = encode(Image.new("RGB", SIZE), "JPEG", exif=suite_export.ODD_EXIF)
    assert load_rgb(encoded, "a.jpg").size == (48, 64)
    prepared = prepare_image(encoded, "a.jpg")
    assert (prepared.width, prepared.height) == (48, 64)


def test_formats_that_are_programs_are_not_opened():
    encoded = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"
    with pytest.raises(InputError, match="none of JPEG, PNG, BMP"):
        load_rgb(encoded, "a.jpg")


def test_too_many_pixels_are_refused_before_they_are_decoded():
    header = b"P5 20000 20000 255\n"
    with pytest.raises(InputError, match="none of"):
        load_rgb(header, "a.ppm")
    encoded = bytearray(encode(Image.new("L", (64, 48)), "BMP"))
    encoded[18:26] = (20_000).to_bytes(4, "little") * 2
    with pytest.raises(InputError, match=r"a\.bmp has 20000x20000 pixels; .* at most"):
        load_rgb(bytes(encoded), "a.bmp")


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_complete_image_followed_by_other_bytes_is_read(kind):
    encoded = corner_image(kind)
    prepared, *_ = prepare_image(encoded + bytes(5000), "a.jpg")
    assert prepared == encoded + bytes(5000)
    assert decode(prepared).shape == (48, 64, 3)
    assert red_corner(decode(prepared)) == "left upper"


@pytest.mark.parametrize(
    ("encoded", "old", "new"),
    [
        (noise("PNG"), b"\0\0\0\x0dIHDR", b"\0\0\0\x03IHDR"),
        (noise("PNG"), b"IDATx", b"IDAT\xff"),
        (noise("WEBP", **exif(6)), b"MM\0*", b"MM\xff*"),
    ],
    ids=["header of a PNG", "data of a PNG", "EXIF of a WebP"],
)
def test_a_damaged_image_is_refused(encoded, old, new):
    assert encoded.count(old) == 1
    with pytest.raises(InputError, match="a.jpg: expected an image, got"):
        prepare_image(encoded.replace(old, new), "images.zip: a.jpg")
