"""Transparent PNGs in records of other programs: seen in training as in detection."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from suite_export import encode, encoded_image

from yolov3_tf2.data.jpeg import decode_image
from yolov3_tf2.data.transparency import decode_on_white
from yolov3_tf2.files.images import load_rgb


def random_image(mode):
    values = np.random.default_rng(0).integers(0, 256, (48, 64, 4), dtype="uint8")
    return Image.fromarray(values).convert(mode)


IMAGES = {
    "rgba": encode(random_image("RGBA"), "PNG"),
    "la": encode(random_image("LA"), "PNG"),
    "palette": encode(
        random_image("RGB").quantize(16), "PNG", transparency=bytes(range(0, 256, 16))
    ),
    "opaque palette": encode(random_image("RGB").quantize(16), "PNG"),
    "rgb": encode(random_image("RGB"), "PNG"),
    "grey": encode(random_image("L"), "PNG"),
    "bmp": encode(random_image("RGB"), "BMP"),
    "gif": encode(random_image("L"), "GIF"),
}


@pytest.mark.parametrize("name", IMAGES)
def test_training_sees_what_detection_sees(name):
    expected = np.asarray(load_rgb(IMAGES[name], name)).astype(int)
    example = {"encoded": IMAGES[name], "width": 64, "height": 48, "source_id": "a"}
    (pixels,) = (
        tf.data.Dataset.from_tensors(example)
        .map(lambda row: decode_image({**row, **sides(row)}, (64, 48)))
        .as_numpy_iterator()
    )
    assert pixels.dtype == np.uint8
    assert abs(pixels.astype(int) - expected).max() <= 1
    if name in ("rgba", "la", "palette"):
        plain = tf.io.decode_image(IMAGES[name], 3).numpy().astype(int)
        assert abs(plain - expected).max() > 50


def sides(row):
    return {key: tf.cast(row[key], tf.int32) for key in ("width", "height")}


@pytest.mark.parametrize("encoded", [b"", b"no image", encoded_image(kind="PNG")[:20]])
def test_what_is_no_image_is_refused(encoded):
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode_on_white(tf.constant(encoded))
