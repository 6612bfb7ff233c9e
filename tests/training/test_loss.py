"""The loss: against darknet's gradients, by hand, by invariance, at the edges."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from yolov3_tf2.boxes import decoding, geometry
from yolov3_tf2.boxes.assignment import assign_boxes
from yolov3_tf2.network.variants import VARIANTS
from yolov3_tf2.training import loss

FULL = VARIANTS["yolov3"]
SIZE, NUM_CLASSES = 64, 3


def random_case(seed=0, num_boxes=4, batch=2):
    rng = np.random.default_rng(seed)
    logits = [
        rng.normal(0, 1, (batch, SIZE // s, SIZE // s, 3, 5 + NUM_CLASSES)).astype("f")
        for s in FULL.strides
    ]
    centres = rng.uniform(0.2, 0.8, (batch, num_boxes, 2))
    sizes = rng.uniform(0.1, 0.4, (batch, num_boxes, 2))
    boxes = np.concatenate([centres - sizes / 2, centres + sizes / 2], -1).astype("f")
    labels = rng.integers(0, NUM_CLASSES, (batch, num_boxes))
    return logits, boxes, labels


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def darknet_delta(logits, targets, boxes, scale):
    """Returns darknet's `-delta` of one image, in the loops of `yolo_layer.c`."""
    rows, cols, anchors, _ = logits.shape
    gradient = np.zeros_like(logits)
    for row in range(rows):
        for col in range(cols):
            for anchor in range(anchors):
                t = logits[row, col, anchor]
                w, h = np.array(FULL.anchors[scale][anchor]) / SIZE
                x, y = (sigmoid(t[0]) + col) / cols, (sigmoid(t[1]) + row) / rows
                pw, ph = np.exp(t[2]) * w, np.exp(t[3]) * h
                pred = np.array([x - pw / 2, y - ph / 2, x + pw / 2, y + ph / 2])
                target = targets[row, col, anchor]
                best = max(float(geometry.iou(pred.astype("f"), b)) for b in boxes)
                if target[4] == 0:
                    gradient[row, col, anchor, 4] = 0 if best > 0.7 else sigmoid(t[4])
                    continue
                left, top, right, bottom = target[:4]
                tw, th = right - left, bottom - top
                tx = (left + right) / 2 * cols - col
                ty = (top + bottom) / 2 * rows - row
                s = 2 - tw * th
                gradient[row, col, anchor, :4] = s * np.array(
                    [
                        sigmoid(t[0]) - tx,
                        sigmoid(t[1]) - ty,
                        t[2] - np.log(tw / w),
                        t[3] - np.log(th / h),
                    ]
                )
                gradient[row, col, anchor, 4] = sigmoid(t[4]) - 1
                one_hot = np.eye(NUM_CLASSES)[int(target[5])]
                gradient[row, col, anchor, 5:] = sigmoid(t[5:]) - one_hot
    return gradient


def test_gradients_are_darknets():
    logits, boxes, labels = random_case()
    targets, _ = assign_boxes(boxes, labels, FULL, SIZE)
    # In one cell per scale, all anchors predict the first box. It is no background
    # where another anchor is assigned to it.
    for scale, x in enumerate(logits):
        everywhere = np.broadcast_to(boxes[0, 0], (*x.shape[:-1], 4))
        offsets = np.asarray(decoding.encode_boxes(everywhere, FULL, scale))
        in_cell = (offsets[0, ..., :2] > 0) & (offsets[0, ..., :2] < 1)
        row, col = np.argwhere(in_cell[:, :, 0].all(axis=-1))[0]
        at = offsets[0, row, col]
        x[0, row, col, :, :2] = np.log(at[:, :2] / (1 - at[:, :2]))
        x[0, row, col, :, 2:4] = at[:, 2:]
    variables = [tf.Variable(x) for x in logits]
    with tf.GradientTape() as tape:
        parts = loss.yolo_loss(variables, targets, boxes, FULL)
        total = tf.reduce_sum(sum(parts.values()))
    gradients = tape.gradient(total, variables)
    assert sum(int((np.asarray(g)[..., 4] == 0).sum()) for g in gradients) >= 8
    for scale, gradient in enumerate(gradients):
        for i in range(2):
            expected = darknet_delta(
                logits[scale][i], np.asarray(targets[scale])[i], boxes[i], scale
            )
            np.testing.assert_allclose(gradient[i], expected, rtol=2e-4, atol=2e-5)


def bce(target, logit):
    p = sigmoid(np.float64(logit))
    return -(target * np.log(p) + (1 - target) * np.log(1 - p))


def darknet_loss(logits, targets, boxes, scale):
    """Returns the loss of one image that darknet's gradients belong to, in loops."""
    rows, cols, anchors, depth = logits.shape
    total = 0.0
    for row, col, anchor in itertools.product(*map(range, (rows, cols, anchors))):
        t = logits[row, col, anchor].astype(float)
        target = targets[row, col, anchor].astype(float)
        w, h = np.array(FULL.anchors[scale][anchor]) / SIZE
        x, y = (sigmoid(t[0]) + col) / cols, (sigmoid(t[1]) + row) / rows
        half = np.array([np.exp(t[2]) * w, np.exp(t[3]) * h]) / 2
        if target[4] == 0:
            pred = (x - half[0], y - half[1], x + half[0], y + half[1])
            best = max(slow_iou(pred, box.astype(float)) for box in boxes)
            total += bce(0, t[4]) if best <= 0.7 else 0.0
            continue
        left, top, right, bottom = target[:4]
        tw, th = right - left, bottom - top
        xy = bce((left + right) / 2 * cols - col, t[0])
        xy += bce((top + bottom) / 2 * rows - row, t[1])
        wh = (t[2] - np.log(tw / w)) ** 2 + (t[3] - np.log(th / h)) ** 2
        total += (2 - tw * th) * (xy + wh / 2) + bce(1, t[4])
        total += sum(bce(float(target[5] == k), t[5 + k]) for k in range(depth - 5))
    return total


def slow_iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    intersection = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return intersection / (sum(areas) - intersection) if intersection else 0.0


@pytest.mark.parametrize("seed", range(5))
def test_the_loss_equals_that_of_a_slow_loop(seed):
    logits, boxes, labels = random_case(seed, num_boxes=1 + 2 * seed)
    targets, _ = assign_boxes(boxes, labels, FULL, SIZE)
    parts = loss.yolo_loss(logits, targets, boxes, FULL)
    ours = np.sum([np.asarray(part, float) for part in parts.values()], axis=0)
    for i in range(2):
        expected = sum(
            darknet_loss(logits[s][i], np.asarray(targets[s])[i], boxes[i], s)
            for s in range(3)
        )
        assert ours[i] == pytest.approx(expected, rel=1e-5)


def test_an_unknown_box_loss_is_refused():
    logits, boxes, labels = random_case()
    targets, _ = assign_boxes(boxes, labels, FULL, SIZE)
    words = "box_loss: expected one of darknet, ciou, got 'giou'"
    with pytest.raises(ValueError, match=words):
        loss.yolo_loss(logits, targets, boxes, FULL, "giou")


def test_objectness_learns_the_overlap_with_ciou():
    boxes = np.array([[[0.3, 0.2, 0.6, 0.7]]], "f")
    targets, _ = assign_boxes(boxes, [[0]], FULL, SIZE)
    logits = [logits_of(targets, s) for s in range(3)]
    for x, target in zip(logits, targets, strict=True):
        at = np.asarray(target)[..., 4] > 0
        x[at, 2] += np.log(0.5)  # Half as wide: an IoU of 0.5.
        x[at, 4] = 0
    variables = [tf.Variable(x) for x in logits]

    def gradient(box_loss):
        with tf.GradientTape() as tape:
            parts = loss.yolo_loss(variables, targets, boxes, FULL, box_loss)
            value = tf.reduce_sum(parts["loss_objectness"])
        gradients = tape.gradient(value, variables)
        at = [np.asarray(target)[..., 4] > 0 for target in targets]
        (values,) = [
            g.numpy()[a] for g, a in zip(gradients, at, strict=True) if a.any()
        ]
        return values[0]

    # sigmoid(0) minus the target; no gradient for the box.
    assert gradient("darknet")[4] == pytest.approx(0.5 - 1)
    assert gradient("ciou")[4] == pytest.approx(0.5 - 0.5, abs=1e-4)
    assert not gradient("ciou")[:4].any()


def test_ciou_pulls_boxes_to_their_targets():
    boxes = np.array([[[0.3, 0.2, 0.6, 0.7], [0.1, 0.1, 0.2, 0.15]]], "f")
    targets, _ = assign_boxes(boxes, [[0, 1]], FULL, SIZE)
    variables = [
        tf.Variable(np.zeros((*np.asarray(t).shape[:-1], 8), "f")) for t in targets
    ]

    @tf.function
    def descend(rate):
        with tf.GradientTape() as tape:
            parts = loss.yolo_loss(variables, targets, boxes, FULL, "ciou")
            value = tf.reduce_sum(parts["loss_box"])
        for v, g in zip(variables, tape.gradient(value, variables), strict=True):
            v.assign_sub(rate * g)
        return value

    # The gradient does not shrink near the target, so the steps must.
    rates = tf.linspace(0.1, 0.0, 200)
    losses = [float(descend(rate)) for rate in rates]
    assert losses[-1] < 0.1 * losses[0]


def logits_of(targets, scale, score=8.0):
    """Returns logits that predict the targets of a scale and nothing elsewhere."""
    targets = np.asarray(targets[scale])
    offsets = np.asarray(decoding.encode_boxes(targets[..., :4], FULL, scale))
    xy = np.clip(offsets[..., :2], 1e-4, 1 - 1e-4)
    shape = (*targets.shape[:-1], 5 + NUM_CLASSES)
    logits = np.full(shape, -score, "f")
    at = targets[..., 4] > 0
    logits[..., :4] = 0
    logits[at, :2] = np.log(xy / (1 - xy))[at]
    logits[at, 2:4] = offsets[..., 2:][at]
    logits[at, 4] = score
    logits[at, 5:] = np.where(
        np.eye(NUM_CLASSES)[targets[at, 5].astype(int)], score, -score
    )
    return logits


def test_a_box_predicted_at_another_scale_is_not_background():
    boxes = np.array([[[0.3, 0.3, 0.6, 0.6]]], "f")
    targets, _ = assign_boxes(boxes, [[0]], FULL, SIZE)
    (scale,) = [s for s in range(3) if np.asarray(targets[s])[..., 4].any()]
    other = (scale + 1) % 3
    logits = [logits_of(targets, s) for s in range(3)]
    before = loss.yolo_loss(logits, targets, boxes, FULL)["loss_objectness"]

    # The other scale predicts the same box with a high score.
    cells = SIZE // FULL.strides[other]
    cell = int(0.45 * cells)
    wh = 0.3 / (np.array(FULL.anchors[other][0]) / SIZE)
    offset = np.clip(0.45 * cells - cell, 1e-4, 1 - 1e-4)
    logits[other][0, cell, cell, 0, :2] = np.log(offset / (1 - offset))
    logits[other][0, cell, cell, 0, 2:4] = np.log(wh)
    logits[other][0, cell, cell, 0, 4] = 8
    after = loss.yolo_loss(logits, targets, boxes, FULL)["loss_objectness"]
    assert float(after[0]) == pytest.approx(float(before[0]), abs=1e-2)

    # The same score for a box that does not match is background, and costs about 8.
    logits[other][0, cell, cell, 0, 2:4] -= 2
    wrong = loss.yolo_loss(logits, targets, boxes, FULL)["loss_objectness"]
    assert float(wrong[0] - after[0]) == pytest.approx(8, abs=0.1)


def test_a_single_class_is_learned():
    boxes = np.array([[[0.3, 0.3, 0.6, 0.6]]], "f")
    targets, _ = assign_boxes(boxes, [[0]], FULL, SIZE)
    logits = [np.zeros((*np.asarray(t).shape[:-1], 6), "f") for t in targets]
    part = loss.yolo_loss(logits, targets, boxes, FULL)["loss_class"]
    assert float(part[0]) == pytest.approx(np.log(2), rel=1e-5)


def test_small_boxes_weigh_more():
    for side in (0.1, 0.8):
        boxes = np.array([[[0.5 - side / 2] * 2 + [0.5 + side / 2] * 2]], "f")
        targets, _ = assign_boxes(boxes, [[0]], FULL, SIZE)
        logits = [logits_of(targets, s) for s in range(3)]
        right = loss.yolo_loss(logits, targets, boxes, FULL)["loss_box"]
        for x in logits:
            x[..., 2] += 1  # Half a squared error of 1 wherever there is a box.
        wrong = loss.yolo_loss(logits, targets, boxes, FULL)["loss_box"]
        weight = 2 - side * side
        np.testing.assert_allclose(wrong[0] - right[0], 0.5 * weight, rtol=1e-4)


def test_the_order_of_boxes_and_batching_change_nothing():
    logits, boxes, labels = random_case(seed=4)
    order = [2, 0, 3, 1]

    def total(logits, boxes, labels):
        targets, _ = assign_boxes(boxes, labels, FULL, SIZE)
        parts = loss.yolo_loss(logits, targets, boxes, FULL)
        return np.sum([np.asarray(p) for p in parts.values()], axis=0)

    whole = total(logits, boxes, labels)
    np.testing.assert_allclose(
        total(logits, boxes[:, order], labels[:, order]), whole, rtol=1e-5
    )
    single = [
        total([x[i : i + 1] for x in logits], boxes[i : i + 1], labels[i : i + 1])[0]
        for i in range(2)
    ]
    np.testing.assert_allclose(single, whole, rtol=1e-5)


def test_no_boxes_and_extreme_logits_stay_finite():
    boxes = np.zeros((1, 1, 4), "f")
    targets, _ = assign_boxes(boxes, [[0]], FULL, SIZE)
    for value in (0.0, 1e4, -1e4):
        variables = [
            tf.Variable(np.full((*np.asarray(t).shape[:-1], 8), value, "f"))
            for t in targets
        ]
        with tf.GradientTape() as tape:
            parts = loss.yolo_loss(variables, targets, boxes, FULL)
            total = tf.add_n([tf.reduce_sum(p) for p in parts.values()])
        assert np.isfinite(total)
        assert float(tf.reduce_sum(parts["loss_box"])) == 0
        assert all(np.isfinite(g).all() for g in tape.gradient(total, variables))
