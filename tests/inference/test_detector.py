"""Suppression by hand, boxes back to pixels, batched equals single."""

import keras
import numpy as np
import pytest
import reference
from PIL import Image

from yolov3_tf2.boxes import decoding, geometry
from yolov3_tf2.boxes.letterbox import boxes_to_letterbox
from yolov3_tf2.inference import detector, nms
from yolov3_tf2.inference.detector import Detections, Detector
from yolov3_tf2.network.model import build_model
from yolov3_tf2.network.variants import VARIANTS

TINY = VARIANTS["yolov3-tiny"]
THRESHOLDS = {"score_threshold": 0.3, "iou_threshold": 0.5, "max_boxes": 10}


def logits_with(objects, num_classes, size=64):
    """Returns logits of yolov3-tiny for `objects` and nothing else.

    An object is (row, col, anchor, objectness, class scores) at the coarse scale.
    """
    logits = [
        np.full((1, size // s, size // s, 3, 5 + num_classes), -20, "float32")
        for s in TINY.strides
    ]
    for row, col, anchor, objectness, classes in objects:
        logits[0][0, row, col, anchor, :4] = 0
        scores = np.array([objectness, *classes])
        logits[0][0, row, col, anchor, 4:] = np.log(scores / (1 - scores))
    return logits


def suppress(objects, num_classes=2, **changes):
    boxes, scores, labels, number = (
        x.numpy()
        for x in nms.suppress(
            logits_with(objects, num_classes), TINY, **(THRESHOLDS | changes)
        )
    )
    count = int(number[0])
    return [
        (int(label), pytest.approx(float(score), abs=1e-4))
        for label, score in zip(labels[0, :count], scores[0, :count], strict=True)
    ], boxes[0, :count]


def test_scores_are_objectness_times_class_and_sorted():
    found, _ = suppress([(0, 0, 0, 0.8, (0.5, 0.001)), (1, 1, 0, 0.9, (0.001, 0.9))])
    assert found == [(1, 0.81), (0, 0.4)]


def test_a_single_class_can_reach_a_score_of_one():
    found, _ = suppress([(0, 0, 0, 0.999, (0.999,))], num_classes=1)
    assert found == [(0, 0.998)]


def test_suppression_is_per_class():
    # Anchors 0 and 1 around one centre: 81x82 in 135x169, an IoU of 0.29; 0.25 is less.
    same = [(0, 0, 0, 0.9, (0.9, 0.001)), (0, 0, 1, 0.8, (0.9, 0.001))]
    other = [(0, 0, 0, 0.9, (0.9, 0.001)), (0, 0, 1, 0.8, (0.001, 0.9))]
    assert len(suppress(same, iou_threshold=0.25)[0]) == 1
    assert len(suppress(same, iou_threshold=0.35)[0]) == 2
    assert len(suppress(other, iou_threshold=0.25)[0]) == 2


def test_a_box_may_have_two_classes():
    found, boxes = suppress([(0, 0, 0, 0.9, (0.9, 0.8))])
    assert found == [(0, 0.81), (1, 0.72)]
    np.testing.assert_array_equal(boxes[0], boxes[1])


def test_suppression_across_classes():
    # As above, with the other class.
    other = [(0, 0, 0, 0.9, (0.9, 0.001)), (0, 0, 1, 0.8, (0.001, 0.9))]
    changes = {"across_classes": True, "iou_threshold": 0.25}
    found, boxes = suppress(other, **changes)
    assert found == [(0, 0.81)]
    np.testing.assert_allclose(boxes, suppress(other)[1][:1])
    assert len(suppress(other, **(changes | {"iou_threshold": 0.35}))[0]) == 2
    # One box with two classes has the better one.
    assert suppress([(0, 0, 0, 0.9, (0.8, 0.9))], **changes)[0] == [(1, 0.81)]
    assert suppress([], **changes)[0] == []


def test_suppression_across_classes_goes_from_the_highest_score_down():
    chance = np.random.default_rng(0)
    logits = [
        chance.normal(0, 1.5, (2, side, side, 3, 8)).astype("float32")
        for side in (2, 4)
    ]
    limits = {"score_threshold": 0.2, "iou_threshold": 0.3, "max_boxes": 7}
    results = nms.suppress(logits, TINY, **limits, across_classes=True)
    boxes, scores, labels, number = (each.numpy() for each in results)
    decoded = [decoding.decode_logits(each, TINY, i) for i, each in enumerate(logits)]
    for image in range(2):
        candidates = [
            (float(o * max(c)), int(np.argmax(c)), b)
            for all_boxes, objectness, classes in decoded
            for b, o, c in zip(
                np.reshape(all_boxes[image], (-1, 4)),
                np.ravel(objectness[image]),
                np.reshape(classes[image], (-1, 3)),
                strict=True,
            )
        ]
        kept = []
        for score, label, box in sorted(candidates, key=lambda row: -row[0]):
            overlaps = [float(geometry.iou(box, other)) for *_, other in kept]
            if score > 0.2 and len(kept) < 7 and max([0, *overlaps]) <= 0.3:
                kept.append((score, label, box))
        assert 3 < len(kept) == number[image]
        for row, (score, label, box) in enumerate(kept):
            assert scores[image, row] == pytest.approx(score, abs=1e-5)
            assert labels[image, row] == label
            np.testing.assert_allclose(boxes[image, row], box, atol=1e-5)
        assert not scores[image, number[image] :].any()


def test_thresholds_and_limits_are_used():
    objects = [(0, 0, 0, 0.8, (0.5, 0.001)), (1, 1, 0, 0.9, (0.001, 0.9))]
    assert len(suppress(objects, score_threshold=0.5)[0]) == 1
    assert len(suppress(objects, score_threshold=0.9)[0]) == 0
    assert len(suppress(objects, max_boxes=1)[0]) == 1


def test_boxes_come_back_in_pixels_inside_the_image():
    # 200x100 into 64: 64x32 at the top, so x is fraction * 200, y fraction * 200.
    # The third is in the grey below the image, the fourth is padding.
    boxes = np.array(
        [[0.25, 0.125, 0.5, 0.25], [-1, -1, 2, 2], [0.2, 0.6, 0.4, 0.9], [0, 0, 0, 0]],
        "float32",
    )
    scores, labels = np.array([0.9, 0.8, 0.7, 0]), np.array([1.0, 0, 0, 0])
    found = detector.to_detections(boxes, scores, labels, 3, (200, 100), 64)
    np.testing.assert_allclose(
        found.boxes_px, [[50, 25, 100, 50], [0, 0, 200, 100]], atol=1e-3
    )
    assert found.labels.tolist() == [1, 0]


@pytest.mark.parametrize("size", [32, 416, 608])
def test_boxes_come_back_from_the_letterbox(size):
    # `boxes_to_pixels` computes by itself where the letterbox has the image.
    chance = np.random.default_rng(size)
    for _ in range(100):
        width, height = map(int, chance.integers(1, chance.integers(2, 5000), 2))
        boxes = chance.random((9, 4), "float32")
        there = boxes_to_letterbox(boxes, width, height, size).numpy()
        back = detector.boxes_to_pixels(there, (width, height), size)
        assert back.dtype == np.float32
        sides = [width, height, width, height]
        np.testing.assert_allclose(back / sides, boxes, atol=1e-4)


def test_detections_above_a_score():
    scores = np.array([0.7, 0.5, 0.3], "float32")
    detections = Detections(np.eye(3, 4), scores, np.array([2, 0, 1]))
    above = detections.above(0.3)  # As float32; 0.3 is not above itself.
    assert above.labels.tolist() == [2, 0]
    np.testing.assert_array_equal(above.boxes_px, np.eye(3, 4)[:2])
    assert detections.above(0.7).scores.size == 0
    full = detections._replace(is_full=True)
    assert full.above(0.2).is_full and not full.above(0.3).is_full
    assert not detections.above(0.2).is_full


def test_detections_are_full_where_the_limit_was_reached():
    boxes = np.array([[0.2, 0.2, 0.4, 0.4]] * 3, "float32")
    scores, labels = np.full(3, 0.5, "float32"), np.zeros(3)
    for number, is_full in ((0, False), (2, False), (3, True)):
        found = detector.to_detections(boxes, scores, labels, number, (50, 50), 64)
        assert (len(found.scores), found.is_full) == (number, is_full)


def test_batched_equals_single():
    keras.utils.set_random_seed(0)
    model = build_model(TINY, 3)
    rng = np.random.default_rng(0)
    reference.calibrate(model, rng.random((4, 96, 96, 3), "float32"))
    for layer in model.layers:  # Confident noise, so that there are boxes to compare.
        if layer.name.startswith("output") and layer.weights:
            layer.kernel.assign(layer.kernel * 60)
    detector = Detector(
        model, TINY, 96, score_threshold=0.05, iou_threshold=0.5, max_boxes=50
    )
    arrays = [
        np.asarray(Image.effect_mandelbrot(size, (-2, -1, 1, 1), 90).convert("RGB"))
        for size in ((120, 60), (50, 80), (96, 96))
    ]
    prepared = [detector.prepare(array) for array in arrays]
    together = detector(prepared)
    assert all(len(found.scores) for found in together)
    for network_input, batched in zip(prepared, together, strict=True):
        (single,) = detector([network_input])
        for ours, theirs in zip(batched, single, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-2)
