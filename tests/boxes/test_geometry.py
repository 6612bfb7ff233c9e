"""Boxes: by hand, by inverse, against Keras, at the edges."""

import keras
import numpy as np
import pytest

from yolov3_tf2.boxes import geometry


def test_conversions_invert_each_other():
    xyxy = np.random.default_rng(0).random((5, 3, 4)).astype("float32")
    back = geometry.xywh_to_xyxy(geometry.xyxy_to_xywh(xyxy))
    np.testing.assert_allclose(back, xyxy, atol=1e-6)


def test_iou_by_hand():
    a = np.array([[0, 0, 2, 2], [0, 0, 1, 1], [0, 0, 4, 1]], "float32")
    b = np.array([[1, 1, 3, 3], [0, 0, 1, 1], [5, 5, 6, 6]], "float32")
    np.testing.assert_allclose(geometry.iou(a, b), [1 / 7, 1, 0], rtol=1e-6)


def test_iou_of_all_pairs_broadcasts():
    a = np.array([[0, 0, 2, 2], [1, 0, 3, 2]], "float32")
    pairs = geometry.iou(a[:, None, :], a[None, :, :])
    np.testing.assert_allclose(pairs, [[1, 1 / 3], [1 / 3, 1]], rtol=1e-6)


def test_iou_without_area_is_zero_and_not_nan():
    point = np.array([[1, 1, 1, 1]], "float32")
    swapped = np.array([[2, 2, 1, 1]], "float32")
    whole = np.array([[0, 0, 3, 3]], "float32")
    for other in (point, swapped, whole):
        assert float(geometry.iou(point, other)[0]) == 0
        assert float(geometry.iou(swapped, other)[0]) == 0


def test_iou_of_very_small_boxes_is_exact():
    box = np.array([[0, 0, 1e-6, 1e-6]], "float32")
    np.testing.assert_allclose(geometry.iou(box, box), [1], rtol=1e-5)


def test_ciou_by_hand():
    a, b = np.array([0, 0, 2, 2], "f"), np.array([1, 0, 3, 2], "f")
    # IoU 1/3; centres 1 apart, around both 3 x 2; the same shape.
    assert float(geometry.ciou(a, b)) == pytest.approx(1 / 3 - 1 / 13, rel=1e-5)
    assert float(geometry.ciou(a, a)) == pytest.approx(1)
    # Without overlap, a nearer box is still better.
    near, far = np.array([3, 0, 5, 2], "f"), np.array([9, 0, 11, 2], "f")
    assert 0 > float(geometry.ciou(a, near)) > float(geometry.ciou(a, far))
    # Twice as wide: shape term 4 / pi^2 * (atan 2 - atan 1)^2.
    c = np.array([-1, 0, 3, 2], "f")
    shape = 4 / np.pi**2 * (np.arctan(2) - np.arctan(1)) ** 2
    expected = 0.5 - shape * shape / (0.5 + shape)
    assert float(geometry.ciou(a, c)) == pytest.approx(expected, rel=1e-5)


def test_ciou_equals_that_of_keras():
    rng = np.random.default_rng(0)
    low, size = rng.uniform(0, 0.5, (2, 50, 2)), rng.uniform(0.1, 0.5, (2, 50, 2))
    a, b = np.concatenate([low, low + size], -1).astype("f")
    theirs = keras.utils.bounding_boxes.compute_ciou(a, b, "xyxy")
    np.testing.assert_allclose(geometry.ciou(a, b), theirs, atol=2e-5)
