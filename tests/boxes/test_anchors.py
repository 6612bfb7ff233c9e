"""Anchors: by hand, and against the IoU of boxes."""

import numpy as np

from yolov3_tf2.boxes import anchors, geometry


def test_shape_iou_by_hand():
    fits = anchors.shape_iou([[2.0, 1.0], [4.0, 4.0]], [[1.0, 2.0], [2.0, 2.0]])
    np.testing.assert_allclose(fits, [[1 / 3, 1 / 2], [2 / 16, 4 / 16]], rtol=1e-6)


def test_shape_iou_is_the_iou_of_boxes_at_the_same_centre():
    rng = np.random.default_rng(0)
    sizes, shapes = rng.uniform(0.1, 1, (2, 5, 2)), rng.uniform(0.1, 1, (9, 2))
    sizes, shapes = sizes.astype("float32"), shapes.astype("float32")
    expected = geometry.iou(
        np.concatenate([-sizes, sizes], -1)[:, :, None],
        np.concatenate([-shapes, shapes], -1),
    )
    fits = anchors.shape_iou(sizes, shapes)
    np.testing.assert_allclose(fits, expected, rtol=1e-5)


def test_best_possible_recall_by_hand():
    shapes = [[10.0, 10.0], [80.0, 20.0]]
    # Four times larger is too large, and so is one side alone.
    sizes = [[39.0, 2.6], [40.0, 10.0], [10.0, 41.0], [300.0, 70.0], [2.5, 2.5]]
    fits = [anchors.best_possible_recall([size], shapes) for size in sizes]
    assert fits == [1.0, 1.0, 0.0, 1.0, 0.0]
    assert abs(anchors.best_possible_recall(sizes, shapes) - 3 / 5) < 1e-6
