"""Boxes: by hand, by inverse, at the edges."""

import numpy as np

from yolov3_tf2.boxes import geometry


def test_conversions_are_inverse():
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
    turned = np.array([[2, 2, 1, 1]], "float32")
    whole = np.array([[0, 0, 3, 3]], "float32")
    for other in (point, turned, whole):
        assert float(geometry.iou(point, other)[0]) == 0
        assert float(geometry.iou(turned, other)[0]) == 0


def test_iou_of_very_small_boxes_is_exact():
    box = np.array([[0, 0, 1e-6, 1e-6]], "float32")
    np.testing.assert_allclose(geometry.iou(box, box), [1], rtol=1e-5)


def test_clip():
    clipped = geometry.clip(np.array([[-1.0, 2.0, 30.0, 9.0]], "float32"), 20, 10)
    assert clipped.numpy().tolist() == [[0, 2, 20, 9]]
