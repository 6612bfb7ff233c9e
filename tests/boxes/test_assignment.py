"""Assignment of boxes: by hand, by invariance, at the edges, inside tf.data."""

import numpy as np
import pytest
import tensorflow as tf

from yolov3_tf2.boxes import decoding
from yolov3_tf2.boxes.assignment import assign_boxes
from yolov3_tf2.network.variants import VARIANTS

TINY = VARIANTS["yolov3-tiny"]
FULL = VARIANTS["yolov3"]


def positives(targets):
    """Returns the targets with a box: a list of (scale, row, col, anchor, values)."""
    found = []
    for scale, tensor in enumerate(targets):
        array = np.asarray(tensor)[0]
        for row, col, anchor in np.argwhere(array[..., 4] > 0):
            found.append((scale, row, col, anchor, array[row, col, anchor]))
    return found


def box_of_anchor(variant, scale, anchor, size, x, y):
    """Returns a box with the shape of an anchor and its centre at x, y, fractions."""
    w, h = np.array(variant.anchors[scale][anchor]) / size
    return [x - w / 2, y - h / 2, x + w / 2, y + h / 2]


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=lambda v: v.name)
def test_a_box_with_the_shape_of_an_anchor_is_assigned_to_it(variant):
    size = 416
    for scale, anchors in enumerate(variant.anchors):
        for anchor in range(len(anchors)):
            box = box_of_anchor(variant, scale, anchor, size, 0.52, 0.3)
            targets, unassigned = assign_boxes([[box]], [[7]], variant, size)
            # yolov3-tiny has 81x82 on both scales.
            places = [
                (s, variant.anchors[s].index(anchors[anchor]))
                for s in range(len(variant.anchors))
                if anchors[anchor] in variant.anchors[s]
            ]
            found = positives(targets)
            assert [(s, a) for s, _, _, a, _ in found] == places
            for s, row, col, _, values in found:
                cells = size // variant.strides[s]
                assert (row, col) == (int(0.3 * cells), int(0.52 * cells))
                np.testing.assert_allclose(values, [*box, 1, 7], atol=1e-6)
            assert unassigned.numpy().tolist() == [0]


def test_an_anchor_of_two_scales_gets_the_best_fit_at_each():
    size = 416
    boxes = [box_of_anchor(TINY, 0, 0, size, x, 0.3) for x in (0.515, 0.53)]
    boxes[1][2] += 0.01  # Fits less well, in the same coarse cell.
    targets, unassigned = assign_boxes([boxes], [[0, 1]], TINY, size)
    at = {(s, a, col): int(v[5]) for s, _, col, a, v in positives(targets)}
    # At the coarse scale the better fit wins the anchor. The other box gets its second
    # best, 81x82 at the fine scale, unless both are in the same cell there too.
    assert at[0, 0, 6] == 0
    assert at[1, 2, 13] == 0
    assert sorted(at.values()) == [0, 0, 1]
    assert unassigned.numpy().tolist() == [0]


def test_anchors_are_pixels_of_the_input_whatever_its_size():
    box = [[[0.4, 0.4, 0.4 + 116 / 608, 0.4 + 90 / 608]]]
    targets, _ = assign_boxes(box, [[0]], FULL, 608)
    ((scale, _, _, anchor, _),) = positives(targets)
    assert (scale, anchor) == (0, 0)
    offsets = decoding.encode_boxes(targets[0][..., :4], FULL, 0)
    at = np.asarray(offsets)[np.asarray(targets[0])[..., 4] > 0]
    np.testing.assert_allclose(at[0, 2:], [0, 0], atol=1e-5)  # log of 1


def test_two_boxes_in_one_cell_are_both_assigned():
    first = box_of_anchor(FULL, 0, 0, 416, 0.51, 0.51)
    better = [v + 0.001 for v in first]
    worse = [first[0] - 0.02, first[1], first[2] + 0.02, first[3]]
    for boxes in ([worse, better], [better, worse]):
        targets, unassigned = assign_boxes([boxes], [[0, 1]], FULL, 416)
        found = positives(targets)
        assert len(found) == 2 and unassigned.numpy().tolist() == [0]
        # The better fit wins the conflict.
        (winner,) = [v for s, _, _, a, v in found if (s, a) == (0, 0)]
        np.testing.assert_allclose(winner[:4], better, atol=1e-6)


def test_more_boxes_than_anchors_leave_some_unassigned():
    box = box_of_anchor(FULL, 0, 0, 416, 0.51, 0.51)
    targets, unassigned = assign_boxes([[box] * 12], [list(range(12))], FULL, 416)
    found = positives(targets)
    assert len(found) == 9 and unassigned.numpy().tolist() == [3]
    assert len({values[5] for *_, values in found}) == 9


def test_the_order_of_the_boxes_does_not_matter():
    rng = np.random.default_rng(2)
    # The centres are close together, so that there are many conflicts.
    centres, sizes = (
        rng.uniform(0.4, 0.6, (1, 20, 2)),
        rng.uniform(0.1, 0.5, (1, 20, 2)),
    )
    boxes = np.concatenate([centres - sizes / 2, centres + sizes / 2], -1)
    labels = np.arange(20)[None]
    order = rng.permutation(20)
    one, _ = assign_boxes(boxes, labels, FULL, 416)
    two, _ = assign_boxes(boxes[:, order], labels[:, order], FULL, 416)
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("x, y", [(0, 0), (1, 1), (1, 0.5), (0.5, 1)])
@pytest.mark.parametrize("size", [416, 512])
def test_a_centre_on_the_border_belongs_to_a_cell(x, y, size):
    box = [[[x - 0.1, y - 0.1, x + 0.1, y + 0.1]]]
    targets, unassigned = assign_boxes(box, [[0]], FULL, size)
    ((scale, row, col, _, _),) = positives(targets)
    last = size // FULL.strides[scale] - 1
    assert row == min(int(y * (last + 1)), last)
    assert col == min(int(x * (last + 1)), last)
    assert unassigned.numpy().tolist() == [0]


def test_padding_and_images_without_boxes():
    boxes = np.zeros((2, 3, 4), "float32")
    boxes[0, 1] = [0.1, 0.1, 0.3, 0.3]
    boxes[1, 2] = [0.3, 0.3, 0.2, 0.5]  # Corners swapped: no area, so padding.
    targets, unassigned = assign_boxes(boxes, np.zeros((2, 3)), TINY, 64)
    assert sum(np.asarray(t)[0, ..., 4].sum() for t in targets) == 1
    assert sum(np.asarray(t)[1, ..., 4].sum() for t in targets) == 0
    assert unassigned.numpy().tolist() == [0, 0]


def test_batched_equals_single_and_tf_data_equals_eager():
    rng = np.random.default_rng(3)
    centres, sizes = rng.uniform(0.2, 0.8, (4, 6, 2)), rng.uniform(0.02, 0.4, (4, 6, 2))
    boxes = np.concatenate([centres - sizes / 2, centres + sizes / 2], -1)
    boxes = boxes.astype("float32")
    labels = rng.integers(0, 4, (4, 6))
    batched, _ = assign_boxes(boxes, labels, FULL, 96)
    dataset = tf.data.Dataset.from_tensor_slices((boxes, labels)).batch(3)
    in_graph = [t for t, _ in dataset.map(lambda b, k: assign_boxes(b, k, FULL, 96))]
    for scale in range(3):
        single = [
            assign_boxes(boxes[i : i + 1], labels[i : i + 1], FULL, 96)[0]
            for i in range(4)
        ]
        np.testing.assert_array_equal(
            batched[scale], np.concatenate([s[scale] for s in single])
        )
        np.testing.assert_array_equal(
            batched[scale], np.concatenate([t[scale] for t in in_graph])
        )
