"""Assigns true boxes to cells and anchors: the training targets.

The candidates of a box are all anchors, at the cell under its centre at their scale. A
candidate is an index into the targets of an image, the scales one after the other. Two
boxes that want the same candidate are in conflict: the one with the better fit wins.
"""

from keras import ops

from yolov3_tf2.boxes.anchors import shape_iou


def assign_boxes(boxes, labels, variant, image_size):
    """Turns the true boxes of a batch into training targets.

    Each box is assigned to the anchor that it fits best by `shape_iou`, as in
    `yolo_layer.c` of darknet, at the cell under its centre. In a conflict the other
    box is assigned to its next best candidate that is free. So a box stays unassigned
    only where all anchors under its centre are taken.

    An anchor that two scales have (81x82 of yolov3-tiny) is assigned at both, as in
    darknet, where every scale looks at all boxes.

    Args:
        boxes: `[batch, boxes, 4]` xyxy, fractions of the input. A box without area
            is padding.
        labels: `[batch, boxes]` class indices.
        variant: a `Variant`.
        image_size: width and height of the square input, pixels; an int or a tensor.

    Returns:
        A pair: the targets, a tuple of `[batch, rows, cols, anchors, 6]` float32 per
        scale, coarse first, holding xyxy, objectness (0 or 1) and label; and the
        number of unassigned boxes, `[batch]` float32.
    """
    boxes = ops.cast(boxes, "float32")
    labels = ops.cast(labels, "float32")
    sizes = boxes[..., 2:] - boxes[..., :2]
    is_box = ops.all(sizes > 0, axis=-1)
    fit, candidates, num_targets = _rate_candidates(boxes, sizes, variant, image_size)
    assigned, repeated = _assign_candidates(fit, candidates, is_box, variant)
    is_unassigned = ops.logical_and(is_box, assigned < 0)
    targets = _scatter_boxes(
        ops.concatenate([boxes, boxes], axis=1),
        ops.concatenate([labels, labels], axis=1),
        ops.concatenate([assigned, repeated], axis=1),
        num_targets,
    )
    return (
        _split_scales(targets, variant, image_size),
        ops.sum(ops.cast(is_unassigned, "float32"), axis=-1),
    )


def _rate_candidates(boxes, sizes, variant, image_size):
    """Lists the candidates of every box and how well it fits each.

    Returns:
        The fit, `[batch, boxes, anchors of all scales]`; the candidates, int32 of the
        same shape; and the number of targets of an image.
    """
    fit, candidates, start = [], [], 0
    centres = (boxes[..., :2] + boxes[..., 2:]) / 2
    for scale, anchors_px in enumerate(variant.anchors):
        anchors = ops.convert_to_tensor(anchors_px, dtype="float32")
        fit.append(shape_iou(sizes, anchors / ops.cast(image_size, "float32")))
        cells = variant.grid_size(scale, image_size)
        # A centre on the right or bottom edge belongs to the last cell.
        cell = ops.floor(centres * ops.cast(cells, "float32"))
        cell = ops.clip(ops.cast(cell, "int32"), 0, cells - 1)
        first = (cell[..., 1] * cells + cell[..., 0]) * len(anchors_px) + start
        candidates.append(first[..., None] + ops.arange(len(anchors_px), dtype="int32"))
        start += cells * cells * len(anchors_px)
    return ops.concatenate(fit, axis=-1), ops.concatenate(candidates, axis=-1), start


def _assign_candidates(fit, candidates, is_box, variant):
    """Assigns boxes to candidates.

    All boxes want their best candidate first, then those that are still unassigned
    their second best, and so on. An assignment is never taken back.

    Args:
        fit, candidates: see `_rate_candidates`.
        is_box: `[batch, boxes]` bool, false for padding.
        variant: a `Variant`.

    Returns:
        The candidate of each box; and its second one, where its anchor is repeated at
        another scale. Both `[batch, boxes]` int32, -1 for none.
    """
    num_anchors = fit.shape[-1]
    by_fit = ops.argsort(-fit, axis=-1)  # [batch, boxes, anchors], best first
    ranked_candidates = ops.take_along_axis(candidates, by_fit, axis=-1)
    ranked_fit = ops.take_along_axis(fit, by_fit, axis=-1)
    none = ops.full(ops.shape(is_box), -1, dtype="int32")

    def assign_rank(rank, assigned, repeated):
        candidate = ops.take(ranked_candidates, rank, axis=-1)
        candidate_fit = ops.take(ranked_fit, rank, axis=-1)
        is_pending = ops.logical_and(is_box, assigned < 0)
        taken = (assigned, repeated)
        wins = _resolve_conflicts(candidate, candidate_fit, is_pending, taken)
        return ops.where(wins, candidate, assigned)

    assigned, repeated = assign_rank(0, none, none), none
    best = by_fit[..., 0]
    for first, second in _repeated_anchors(variant):
        is_repeated = ops.logical_or(best == first, best == second)
        is_pending = ops.logical_and(is_box, is_repeated)
        # Of the two candidates, the one that is not the best.
        candidate = candidates[..., first] + candidates[..., second]
        candidate = candidate - ranked_candidates[..., 0]
        taken = (assigned, repeated)
        wins = _resolve_conflicts(candidate, ranked_fit[..., 0], is_pending, taken)
        repeated = ops.where(wins, candidate, repeated)
    # Most of the time all boxes have their best candidate by now.
    _, assigned = ops.while_loop(
        lambda rank, assigned: ops.any(ops.logical_and(is_box, assigned < 0)),
        lambda rank, assigned: (rank + 1, assign_rank(rank, assigned, repeated)),
        (1, assigned),
        maximum_iterations=num_anchors - 1,
    )
    return assigned, repeated


def _resolve_conflicts(candidate, fit, is_pending, taken):
    """Decides which boxes win the candidate that they want.

    The best fit wins, the earlier box at a tie, unless the candidate is taken.

    Args:
        candidate: `[batch, boxes]` int32, the candidate that each box wants.
        fit: `[batch, boxes]`, how well the box fits it.
        is_pending: `[batch, boxes]` bool, whether the box takes part at all.
        taken: list of `[batch, boxes]` int32, candidates assigned before; -1 is none.

    Returns:
        `[batch, boxes]` bool, whether the box wins.
    """
    index = ops.arange(ops.shape(candidate)[1])
    is_earlier = index[None, :] < index[:, None]  # [boxes, rivals]
    candidate = ops.where(is_pending, candidate, -2)  # Equals no candidate.
    in_conflict = candidate[:, :, None] == candidate[:, None, :]  # [..., boxes, rivals]
    rival_fit, own_fit = fit[:, None, :], fit[:, :, None]
    rival_wins = ops.logical_or(
        rival_fit > own_fit, ops.logical_and(rival_fit == own_fit, is_earlier)
    )
    loses = ops.any(ops.logical_and(in_conflict, rival_wins), axis=-1)
    for others in taken:
        is_taken = ops.any(candidate[:, :, None] == others[:, None, :], axis=-1)
        loses = ops.logical_or(loses, is_taken)
    return ops.logical_and(is_pending, ops.logical_not(loses))


def _repeated_anchors(variant):
    """Returns pairs of indices, among the anchors of all scales, of equal anchors."""
    anchors = [anchor for scale in variant.anchors for anchor in scale]
    return [
        (first, second)
        for second, anchor in enumerate(anchors)
        for first in range(second)
        if anchors[first] == anchor
    ]


def _scatter_boxes(boxes, labels, assigned, num_targets):
    """Writes each box at its assigned index: `[batch, num_targets + 1, 6]`.

    The extra target at the end receives the boxes without an assignment.
    """
    batch, num_boxes = ops.shape(boxes)[0], ops.shape(boxes)[1]
    assigned = ops.where(assigned < 0, num_targets, assigned)
    images = ops.broadcast_to(ops.arange(batch)[:, None], (batch, num_boxes))
    values = ops.concatenate(
        [boxes, ops.ones_like(boxes[..., :1]), labels[..., None]], axis=-1
    )
    return ops.scatter(
        ops.reshape(ops.stack([images, assigned], axis=-1), (-1, 2)),
        ops.reshape(values, (-1, 6)),
        (batch, num_targets + 1, 6),
    )


def _split_scales(targets, variant, image_size):
    """Cuts `[batch, targets, 6]` into a grid per scale, see `assign_boxes`."""
    grids, start = [], 0
    for scale in range(len(variant.strides)):
        cells = variant.grid_size(scale, image_size)
        anchors = variant.num_anchors(scale)
        end = start + cells * cells * anchors
        shape = (-1, cells, cells, anchors, 6)
        grids.append(ops.reshape(targets[:, start:end], shape))
        start = end
    return tuple(grids)
