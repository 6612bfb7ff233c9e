"""Letterboxing: by hand, by inverse, at the edges, inside tf.data."""

import numpy as np
import pytest
import tensorflow as tf

from yolov3_tf2.boxes.letterbox import (
    GREY,
    boxes_to_letterbox,
    letterbox,
)


@pytest.mark.parametrize(
    "width, height, inner",
    # left, top, right, bottom of the image in a square of 128; corners lie on 32s.
    [
        (128, 128, (0, 0, 128, 128)),
        (200, 100, (0, 32, 128, 96)),
        (100, 200, (32, 0, 96, 128)),
        (640, 480, (0, 0, 128, 96)),
        (10, 1, (0, 32, 128, 44)),
        (5000, 1, (0, 32, 128, 33)),
        (1, 1, (0, 0, 128, 128)),
    ],
)
def test_where_the_image_lies(width, height, inner):
    square = letterbox(np.full((height, width, 3), 255, "uint8"), 128).numpy()
    left, top, right, bottom = inner
    expected = np.full((128, 128, 3), GREY, "uint8")
    expected[top:bottom, left:right] = 255
    np.testing.assert_array_equal(square, expected)
    box = np.array([[0.0, 0, 1, 1]], "float32")
    mapped = boxes_to_letterbox(box, width, height, 128)
    np.testing.assert_allclose(mapped[0] * 128, inner, atol=1e-4)


def test_a_bright_rectangle_stays_in_its_box():
    image = np.zeros((120, 300, 3), "uint8")
    image[30:90, 60:210] = 255
    box = np.array([60 / 300, 30 / 120, 210 / 300, 90 / 120], "float32")
    square = letterbox(image, 224).numpy()
    left, top, right, bottom = boxes_to_letterbox(box, 300, 120, 224).numpy() * 224
    bright = np.argwhere(square[..., 0] > 190)
    np.testing.assert_allclose(bright.min(axis=0), [top, left], atol=1)
    np.testing.assert_allclose(bright.max(axis=0) + 1, [bottom, right], atol=1)


def test_tf_data_equals_eager():
    image = np.random.default_rng(0).integers(0, 255, (30, 50, 3)).astype("uint8")
    dataset = tf.data.Dataset.from_tensors(image).map(lambda x: letterbox(x, 64))
    (in_graph,) = dataset
    np.testing.assert_array_equal(in_graph, letterbox(image, 64))


def test_fine_stripes_are_averaged_and_do_not_alias():
    image = np.zeros((512, 512, 3), "uint8")
    image[:, ::2] = 255
    square = letterbox(image, 128).numpy()
    np.testing.assert_allclose(square[:, 2:-2], 127.5, atol=1)


def test_enlarging_interpolates_between_pixels():
    image = np.zeros((2, 2, 3), "uint8")
    image[:, 1] = 200
    row = letterbox(image, 32).numpy()[16, :, 0].astype(int)
    assert row[0] == 0 and row[-1] == 200
    assert np.diff(row).min() >= 0 and np.diff(row).max() <= 200 / 16 + 1
