"""Boxes in pixels: swapped corners, and the clip to an image."""

import math

import pytest

from yolov3_tf2.files import pixel_boxes


@pytest.mark.parametrize(
    ("corners", "expected", "is_swapped"),
    [
        ((1, 2, 3, 4), (1, 2, 3, 4), False),
        ((3, 2, 1, 4), (1, 2, 3, 4), True),
        ((1, 4, 3, 2), (1, 2, 3, 4), True),
        ((3, 4, 1, 2), (1, 2, 3, 4), True),
        ((1, 2, 1, 2), (1, 2, 1, 2), False),
    ],
)
def test_order_corners(corners, expected, is_swapped):
    assert pixel_boxes.order_corners(*corners) == (expected, is_swapped)


@pytest.mark.parametrize(
    ("xyxy", "expected", "outside"),
    [
        ((0, 0, 64, 48), (0, 0, 64, 48), 0),
        ((-1, 2, 9, 9), (0, 2, 9, 9), 1),
        ((5, 5, 70, 50), (5, 5, 64, 48), 6),
        ((70, 5, 80, 9), (64, 5, 64, 9), 16),
        ((5, 6, math.inf, 9), (5, 6, 64, 9), math.inf),
    ],
)
def test_clip_box(xyxy, expected, outside):
    assert pixel_boxes.clip_box(xyxy, (64, 48)) == (expected, outside)


def test_shorter_side():
    assert pixel_boxes.shorter_side((1, 2, 4, 12)) == 3
    assert pixel_boxes.shorter_side((1, 2, 14, 4)) == 2
