"""Transparency, photographs of telephones, several frames: seen as people see them."""

import io
import struct

import numpy as np
import pillow_heif
import pytest
import tensorflow as tf
from image_bytes import PALETTE, png, tiff
from PIL import Image
from suite_export import encode

from yolov3_tf2.errors import InputError
from yolov3_tf2.files.images import (
    FIRST_FRAME,
    TRANSPARENT,
    decode_image,
    load_rgb,
)
from yolov3_tf2.files.prepared_image import prepare_image

pillow_heif.register_heif_opener()

WHITE = (255, 255, 255)
SIZE = (64, 48)


def half_transparent(mode="RGBA"):
    """A black image, its left half transparent, one column half so."""
    image = Image.new("LA", SIZE, (0, 255)).convert(mode)
    clear, half = (Image.new("LA", (1, 1), (0, a)).convert(mode) for a in (0, 128))
    image.paste(clear.getpixel((0, 0)), (0, 0, 32, 48))
    image.paste(half.getpixel((0, 0)), (60, 0, 64, 48))
    return image


def palette_image():
    image = Image.new("P", SIZE, 1)
    image.putpalette([9, 9, 9, 0, 0, 0])
    image.paste(0, (0, 0, 32, 48))
    return image


def gray_with_key(depth, key):
    values = np.zeros((48, 64, 1), "uint8")
    values[:, :32] = key
    return png(values, 0, depth, tRNS=struct.pack(">H", key))


def colour_with_key():
    values = np.zeros((48, 64, 3), "uint8")
    values[:, :32] = (1, 2, 3)
    return png(values, tRNS=struct.pack(">3H", 1, 2, 3))


def premultiplied():
    values = np.zeros((48, 64, 4), "uint8")
    values[:, 32:, 3] = 255
    return tiff(values, photometric=2, extra=1)


TRANSPARENT_IMAGES = {
    "rgba png": encode(half_transparent(), "PNG"),
    "la png": encode(half_transparent("LA"), "PNG"),
    "palette png": encode(palette_image(), "PNG", transparency=0),
    "palette png with levels": encode(palette_image(), "PNG", transparency=b"\0\xff"),
    "8-bit grey key": gray_with_key(8, 30),
    "4-bit grey key": gray_with_key(4, 7),
    "2-bit grey key": gray_with_key(2, 2),
    "1-bit grey key": gray_with_key(1, 1),
    "colour key": colour_with_key(),
    "webp": encode(half_transparent(), "WEBP", lossless=True),
    "gif": encode(palette_image(), "GIF", transparency=0),
    "tiff": encode(half_transparent(), "TIFF"),
    "premultiplied tiff": premultiplied(),
    "avif": encode(half_transparent(), "AVIF", quality=95),
    "heic": encode(half_transparent(), "HEIF", quality=95),
}


@pytest.mark.parametrize("name", TRANSPARENT_IMAGES)
def test_transparent_pixels_are_white_in_training_and_detection(name):
    encoded = TRANSPARENT_IMAGES[name]
    rgb, changes = decode_image(encoded, name)
    assert changes == (TRANSPARENT,)
    prepared = prepare_image(encoded, name)
    assert prepared.changes == (TRANSPARENT,)
    trained = tf.io.decode_image(prepared.encoded, 3).numpy()
    for pixels in (np.asarray(rgb), trained):
        np.testing.assert_allclose(pixels[20, 10], WHITE, atol=8)
        np.testing.assert_allclose(pixels[20, 45], (0, 0, 0), atol=8)
    if name in ("rgba png", "la png", "webp", "tiff"):
        np.testing.assert_allclose(trained[20, 62], (127, 127, 127), atol=1)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_a_png_without_a_transparent_pixel_stays_as_it_is(mode):
    image = Image.effect_noise(SIZE, 90).convert("L").convert(mode)
    encoded = encode(image, "PNG", **({"transparency": 255} if mode == "P" else {}))
    if mode == "P":
        image.putpixel((0, 0), 0)
        encoded = encode(image.point(lambda v: min(v, 254)), "PNG", transparency=255)
    prepared = prepare_image(encoded, "a.png")
    assert prepared == (encoded, "png", *SIZE, False, ())


def test_an_empty_fourth_channel_of_a_bmp_is_not_transparency():
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    header = struct.pack("<IiiHHI", 108, 4, 2, 1, 32, 3) + bytes(20) + masks + bytes(52)
    for alpha in (0, 255):
        pixels = bytes((40, 30, 200, alpha)) * 8
        encoded = b"BM" + struct.pack("<III", 154, 0, 122) + header + pixels
        assert Image.open(io.BytesIO(encoded)).mode == "RGBA"
        assert load_rgb(encoded, "a.bmp").getpixel((0, 0)) == (200, 30, 40)


def corner_image():
    """Blue, the left upper quarter of its sides red."""
    image = Image.new("RGB", SIZE, (10, 10, 250))
    image.paste((250, 10, 10), (0, 0, 16, 16))
    return image


def orientation(number):
    tags = Image.Exif()
    tags[0x0112] = number
    return tags.tobytes()


@pytest.mark.parametrize("kind", ["HEIF", "AVIF"])
@pytest.mark.parametrize("number", [1, 3, 6, 8])
def test_a_photograph_of_a_telephone_is_turned_once(kind, number):
    encoded = encode(corner_image(), kind, quality=95, exif=orientation(number))
    expected = {1: (4, 4), 3: (59, 43), 6: (43, 4), 8: (4, 59)}[number]
    size = SIZE if number in (1, 3) else SIZE[::-1]
    prepared = prepare_image(encoded, "a.heic")
    assert prepared[1:4] == ("jpeg", *size)
    again = Image.open(io.BytesIO(prepared.encoded))
    assert again.getexif().get(0x0112, 1) == 1
    for rgb in (load_rgb(encoded, "a.heic"), again):
        assert rgb.size == size
        red, _, blue = rgb.getpixel(expected)
        assert red > 200 and blue < 60
    # Labelled on what people see.
    assert prepare_image(encoded, "a.heic", size).encoded == prepared.encoded


def test_exif_turns_no_heic_without_its_own_rotation():
    # The standard says so, and telephones show it so. An `Image.Exif` writes no more.
    tags = Image.Exif()
    tags[0x0112] = 6
    encoded = encode(corner_image(), "HEIF", exif=tags)
    assert b"irot" not in encoded
    assert load_rgb(encoded, "a.heic").size == SIZE


def test_a_heic_of_10_bits():
    values = np.full((48, 64, 3), (1023 << 6, 512 << 6, 0), "uint16")
    heif = pillow_heif.encode
    buffer = io.BytesIO()
    heif("RGB;16", SIZE, values.tobytes(), buffer, quality=-1)
    assert pillow_heif.open_heif(buffer.getvalue(), False).info["bit_depth"] > 8
    pixel = load_rgb(buffer.getvalue(), "a.heic").getpixel((9, 9))
    np.testing.assert_allclose(pixel, (255, 128, 0), atol=3)


@pytest.mark.parametrize("kind", ["HEIF", "AVIF"])
def test_a_damaged_photograph_is_refused_in_one_line(kind):
    encoded = encode(Image.effect_noise(SIZE, 90).convert("RGB"), kind)
    for damaged in (encoded[: len(encoded) // 2], encoded[:60]):
        for function in (load_rgb, prepare_image):
            with pytest.raises(InputError, match="a.heic: expected an image, got"):
                function(damaged, "a.heic")


def test_webp_becomes_what_loses_nothing_and_is_small():
    image = Image.effect_noise(SIZE, 90).convert("RGB")
    lossless = encode(image, "WEBP", lossless=True, icc_profile=bytes(500))
    prepared = prepare_image(lossless, "a.webp")
    assert prepared.format == "png"
    np.testing.assert_array_equal(
        np.asarray(Image.open(io.BytesIO(prepared.encoded))), np.asarray(image)
    )
    assert prepare_image(encode(image, "WEBP"), "a.webp").format == "jpeg"


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("GIF", "png"),
        ("PNG", "png"),
        ("WEBP", "png"),
        ("TIFF", "png"),
        ("AVIF", "jpeg"),
    ],
)
def test_the_first_of_several_images_is_used_and_said(kind, expected):
    first, second = corner_image(), Image.new("RGB", SIZE, "yellow")
    options = {"lossless": True} if kind == "WEBP" else {}
    encoded = encode(first, kind, save_all=True, append_images=[second], **options)
    rgb, changes = decode_image(encoded, "a")
    assert changes == (FIRST_FRAME,)
    prepared = prepare_image(encoded, "a")
    assert (prepared.format, prepared.changes) == (expected, (FIRST_FRAME,))
    trained = Image.fromarray(
        tf.io.decode_image(prepared.encoded, 3, expand_animations=False).numpy()
    )
    for image in (rgb, trained):
        red, _, blue = image.getpixel((4, 4))
        assert red > 200 and blue < 60
        assert image.getpixel((40, 40))[2] > 200


def test_the_first_image_of_an_mpo_is_used():
    first, second = corner_image(), Image.new("RGB", (32, 24), "yellow")
    encoded = encode(first, "MPO", save_all=True, append_images=[second])
    prepared = prepare_image(encoded, "cam.MPO")
    assert prepared == (encoded, "jpeg", *SIZE, False, ())
    assert load_rgb(encoded, "cam.MPO").size == SIZE


def test_a_camera_raw_is_refused_and_not_its_small_copy():
    for tags in ({254: 1}, {50706: b"\1\4\0\0"}):
        encoded = encode(corner_image(), "TIFF", tiffinfo=tags)
        with pytest.raises(InputError, match="first page of this TIFF is a small copy"):
            prepare_image(encoded, "a.dng")


def test_a_format_that_is_not_read_is_named():
    with pytest.raises(InputError, match="JPEG 2000, none of JPEG, PNG"):
        load_rgb(b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(50), "a.jp2")


def test_a_palette_image_without_its_palette_is_refused():
    encoded = png(np.zeros((48, 64, 1), "uint8"), PALETTE)
    for read in (prepare_image, load_rgb):
        with pytest.raises(InputError, match=r"^a\.png: expected an image"):
            read(encoded, "a.png")
