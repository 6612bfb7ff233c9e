"""16 bits per channel: OpenCV reads the same values; ranges and levels by hand."""

import struct

import cv2
import numpy as np
import pytest
import tensorflow as tf
from image_bytes import png, tiff
from PIL import Image
from suite_export import encode

from yolov3_tf2.errors import InputError
from yolov3_tf2.files import sixteen_bits
from yolov3_tf2.files.images import (
    SIXTEEN_BITS,
    TRANSPARENT,
    decode_image,
    find_gray_range,
    load_rgb,
    open_image,
)
from yolov3_tf2.files.prepared_image import prepare_image


def random_values(channels, size=(24, 40)):
    values = np.random.default_rng(channels).integers(0, 2**16, (*size, channels))
    return values.astype("uint16")


def cv_encode(extension, values):
    """Encodes `[height, width, channels]` RGB(A) or grey in 16 bits."""
    order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[values.shape[-1]]
    return cv2.imencode(extension, values[..., order])[1].tobytes()


def read(encoded):
    assert sixteen_bits.is_16_bits(open_image(encoded, "a"))
    return sixteen_bits.read_values(lambda: open_image(encoded, "a"))


@pytest.mark.parametrize("extension", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_values_are_those_that_were_written(extension, channels):
    expected = random_values(channels)
    values, alpha = read(cv_encode(extension, expected))
    colours = min(channels, 3)
    np.testing.assert_array_equal(values, expected[..., :colours])
    if channels == 4:
        np.testing.assert_array_equal(alpha, expected[..., 3] >> 8)
    else:
        assert alpha is None


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("channels", "options"),
    [(1, {}), (3, {"photometric": 2}), (4, {"photometric": 2, "extra": 2})],
)
def test_both_byte_orders_of_a_tiff(order, channels, options):
    expected = random_values(channels)
    values, _ = read(tiff(expected, order, **options))
    np.testing.assert_array_equal(values, expected[..., :3])


def test_grey_with_alpha_and_a_transparent_value():
    expected = random_values(2)
    values, alpha = read(png(expected, 4))
    np.testing.assert_array_equal(values, expected[..., :1])
    np.testing.assert_array_equal(alpha, expected[..., 1] >> 8)
    # A colour key: `tRNS` names the value that is transparent.
    key = expected[:, :, :1]
    key[3, 5] = 300
    values, alpha = read(png(key, 0, tRNS=struct.pack(">H", 300)))
    np.testing.assert_array_equal(alpha == 0, key[..., 0] == 300)
    rgb = random_values(3)
    rgb[3, 5] = (300, 301, 302)
    values, alpha = read(png(rgb, 2, tRNS=struct.pack(">3H", 300, 301, 302)))
    np.testing.assert_array_equal(values, rgb)
    assert alpha[3, 5] == 0 and (alpha == 0).sum() == 1


def test_inverted_and_signed_tiffs():
    expected = random_values(1)
    values, _ = read(tiff(expected, photometric=0))
    np.testing.assert_array_equal(values, 65535 - expected)
    signed = (expected // 2).astype("int16")
    for order in "<>":
        values, _ = read(tiff(signed, order, sample_format=2))
        np.testing.assert_array_equal(values, signed)
    with pytest.raises(InputError, match="negative values in 16 bits"):
        load_rgb(tiff(signed - 100, sample_format=2), "a.tif")


@pytest.mark.parametrize(("kind", "sample_format"), [("int32", 2), ("float32", 3)])
def test_32_bits_are_refused(kind, sample_format):
    encoded = tiff(random_values(1).astype(kind), sample_format=sample_format)
    assert find_gray_range(encoded, "a") is None
    for function in (load_rgb, prepare_image):
        with pytest.raises(InputError, match="32 bits per channel; expected 8 or 16"):
            function(encoded, "a.tif")


def test_a_range_without_dead_pixels():
    values = np.tile(np.arange(7000, 7400, dtype="uint16"), (100, 1))[..., np.newaxis]
    assert sixteen_bits.find_range(values) == (7000, 7399)
    values[0, :4], values[1, :4] = 0, 65535
    assert sixteen_bits.find_range(values) == (7000, 7399)
    assert sixteen_bits.find_range(np.full((8, 8, 1), 5, "uint16")) is None
    # What is transparent does not count.
    alpha = np.full((100, 400), 255, "uint8")
    values[50:], alpha[50:] = 12, 0
    assert sixteen_bits.find_range(values, alpha) == (7000, 7399)


def test_joined_ranges():
    assert sixteen_bits.join_ranges([(10, 20), None, (15, 90)]) == (10, 90)
    assert sixteen_bits.join_ranges([]) == (0, 65535)
    assert sixteen_bits.join_ranges([(3, 100), (50, 40000)]) == (0, 65535)


def test_levels_by_hand():
    values = np.array([[[0], [100], [101], [228], [355], [60000]]], "uint16")
    image = sixteen_bits.to_8_bits(values, None, (100, 355))
    np.testing.assert_array_equal(np.asarray(image), [[0, 0, 1, 128, 255, 255]])
    # The whole range: the upper 8 bits, as every library has them.
    values = random_values(1)
    image = sixteen_bits.to_8_bits(values, None, sixteen_bits.FULL_RANGE)
    np.testing.assert_array_equal(np.asarray(image), values[..., 0] >> 8)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("extension", [".png", ".tif"])
def test_12_bits_are_spread_alike_in_training_and_detection(extension, channels):
    values = random_values(channels) >> 4
    values[..., 3:] = 65535
    encoded = cv_encode(extension, values)
    gray_range = (0, 4095)
    rgb, changes = decode_image(encoded, "a", gray_range)
    assert changes == (SIXTEEN_BITS,)
    np.testing.assert_array_equal(
        np.asarray(rgb), np.broadcast_to(values[..., :3] >> 4, (24, 40, 3))
    )
    prepared = prepare_image(encoded, "a", gray_range=gray_range)
    assert prepared.changes == (SIXTEEN_BITS,)
    np.testing.assert_array_equal(tf.io.decode_png(prepared.encoded), np.asarray(rgb))
    # Its own range: the same here, but for a few pixels at both ends.
    own = np.asarray(decode_image(encoded, "a", None).rgb)
    assert own.min() == 0 and own.max() == 255 and own.std() > 60


def test_transparency_in_16_bits_is_drawn_on_white():
    values = np.full((4, 4, 4), 0x8000, "uint16")
    values[1, 1, 3], values[2:, :, 3] = 0, 65535
    rgb, changes = decode_image(cv_encode(".png", values), "a")
    assert set(changes) == {SIXTEEN_BITS, TRANSPARENT}
    assert rgb.getpixel((1, 1)) == (255, 255, 255)
    assert rgb.getpixel((1, 2)) == (128, 128, 128)


def test_a_rotated_16_bit_tiff():
    values = np.zeros((4, 8), "uint16")
    values[0, 0] = 4095
    tags = Image.Exif()
    tags[0x0112] = 6
    encoded = encode(Image.fromarray(values), "TIFF", exif=tags)
    rgb = decode_image(encoded, "a", (0, 4095)).rgb
    assert rgb.size == (4, 8) and rgb.getpixel((3, 0)) == (255, 255, 255)
