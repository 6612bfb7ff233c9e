"""Decoding: by hand, by inverse, at the edges."""

import numpy as np
import pytest

from yolov3_tf2.boxes import decoding
from yolov3_tf2.boxes.assignment import assign_boxes
from yolov3_tf2.network.variants import VARIANTS

FULL = VARIANTS["yolov3"]


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=lambda v: v.name)
def test_decode_inverts_encode(variant):
    rng = np.random.default_rng(1)
    centres, sizes = (
        rng.uniform(0.2, 0.8, (1, 12, 2)),
        rng.uniform(0.02, 0.4, (1, 12, 2)),
    )
    boxes = np.concatenate([centres - sizes / 2, centres + sizes / 2], -1)
    labels = rng.integers(0, 4, (1, 12))
    targets, unassigned = assign_boxes(boxes, labels, variant, 320)
    decoded = []
    for scale, target in enumerate(targets):
        offsets = np.asarray(decoding.encode_boxes(target[..., :4], variant, scale))
        xy = np.clip(offsets[..., :2], 1e-7, 1 - 1e-7)
        logits = np.concatenate([np.log(xy / (1 - xy)), offsets[..., 2:]], -1)
        found = np.asarray(
            decoding.decode_boxes(logits.astype("float32"), variant, scale)
        )
        decoded.append(found[np.asarray(target)[..., 4] > 0])
    decoded = np.concatenate(decoded)
    assert unassigned.numpy().tolist() == [0]
    # yolov3-tiny has some boxes at both scales.
    decoded = np.unique(decoded.round(4), axis=0)
    assert len(decoded) == 12
    order, expected = np.lexsort(decoded.T), np.lexsort(boxes[0].T)
    np.testing.assert_allclose(decoded[order], boxes[0][expected], atol=1e-4)


def test_decode_by_hand():
    # Column 1 of 2, row 0 of 2 at stride 32; sigmoid(0) = 0.5, exp(0) = 1.
    logits = np.full((1, 2, 2, 3, 7), -30, "float32")
    logits[0, 0, 1, 0] = [0, 0, 0, np.log(2), 30, 0, -30]
    boxes, objectness, classes = decoding.decode_logits(logits, FULL, 0)
    w, h = 116 / 64, 2 * 90 / 64
    np.testing.assert_allclose(
        np.asarray(boxes)[0, 0, 1, 0],
        [0.75 - w / 2, 0.25 - h / 2, 0.75 + w / 2, 0.25 + h / 2],
        rtol=1e-5,
    )
    np.testing.assert_allclose(objectness[0, 0, 1, 0], 1, atol=1e-6)
    np.testing.assert_allclose(classes[0, 0, 1, 0], [0.5, 0], atol=1e-6)


def test_decode_stays_finite_for_extreme_logits():
    logits = np.full((1, 1, 1, 3, 6), 1e4, "float32")
    boxes, objectness, classes = decoding.decode_logits(logits, FULL, 0)
    for tensor in (boxes, objectness, classes):
        assert np.isfinite(tensor).all()
