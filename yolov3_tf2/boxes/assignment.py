"""Assigns boxes to cells and anchors: the targets of the training."""

from keras import ops


def assign_boxes(boxes, labels, variant, image_size):
    """Turns the boxes of a batch into training targets.

    Each box goes to the cell under its centre, at the scale and anchor whose shape
    fits it best (IoU of the two shapes laid on each other, as darknet's
    `yolo_layer.c`). Where two boxes want the same cell and anchor, the better fit has
    it and the other takes the next best anchor of its own that is free, so that no
    box is lost before all anchors over its centre are taken. An anchor that two scales
    share (81x82 of yolov3-tiny) learns its boxes at both, as in darknet, where each
    scale looks at all boxes for itself.

    Args:
        boxes: `[batch, boxes, 4]` xyxy, fractions of the input. A box without area
            is padding.
        labels: `[batch, boxes]` class indices.
        variant: a `Variant`.
        image_size: width and height of the square input, pixels; an int or a tensor.

    Returns:
        A pair: the targets, a tuple of `[batch, rows, cols, anchors, 6]` float32 per
        scale, coarse first, holding xyxy, objectness (0 or 1) and label; and the
        number of boxes that found no free anchor, `[batch]` float32.
    """
    boxes = ops.cast(boxes, "float32")
    labels = ops.cast(labels, "float32")
    batch, num_boxes = ops.shape(boxes)[0], ops.shape(boxes)[1]
    sizes = boxes[..., 2:] - boxes[..., :2]  # [batch, boxes, 2]
    is_box = ops.all(sizes > 0, axis=-1)  # [batch, boxes]
    fit, slots, num_slots = _fit_and_slots(boxes, sizes, variant, image_size)

    # Every box proposes its best anchor, then its second best, and so on. A round is
    # settled for all boxes at once; a slot given in an earlier round stays given.
    num_anchors = fit.shape[-1]
    by_fit = ops.argsort(-fit, axis=-1)  # [batch, boxes, anchors], best first
    ranked_slots = ops.take_along_axis(slots, by_fit, axis=-1)
    ranked_fit = ops.take_along_axis(fit, by_fit, axis=-1)
    nothing = ops.full((batch, num_boxes), -1, dtype="int32")
    shared = nothing

    def settle_rank(rank, given):
        wish, wish_fit = (
            ops.take(ranked, rank, axis=-1) for ranked in (ranked_slots, ranked_fit)
        )
        pending = ops.logical_and(is_box, given < 0)
        wins = _settle(wish, wish_fit, pending, (given, shared))
        return ops.where(wins, wish, given)

    given = settle_rank(0, nothing)
    for anchor, twin in _twins(variant):
        best = by_fit[..., 0]
        wants = ops.logical_or(best == anchor, best == twin)
        wants = ops.logical_and(is_box, wants)
        wish = slots[..., anchor] + slots[..., twin] - ranked_slots[..., 0]
        wins = _settle(wish, ranked_fit[..., 0], wants, (given, shared))
        shared = ops.where(wins, wish, shared)
    # Mostly all boxes have their best anchor by now.
    _, given = ops.while_loop(
        lambda rank, given: ops.any(ops.logical_and(is_box, given < 0)),
        lambda rank, given: (rank + 1, settle_rank(rank, given)),
        (1, given),
        maximum_iterations=num_anchors - 1,
    )
    lost = ops.sum(ops.cast(ops.logical_and(is_box, given < 0), "float32"), axis=-1)

    # One slot more than there are catches the boxes without a slot, and is cut off.
    given = ops.concatenate([given, shared], axis=1)
    given = ops.where(given < 0, num_slots, given)
    rows_of_batch = ops.broadcast_to(ops.arange(batch)[:, None], (batch, 2 * num_boxes))
    values = ops.concatenate(
        [boxes, ops.ones_like(boxes[..., :1]), labels[..., None]], axis=-1
    )
    values = ops.concatenate([values, values], axis=1)
    flat = ops.scatter(
        ops.reshape(ops.stack([rows_of_batch, given], axis=-1), (-1, 2)),
        ops.reshape(values, (-1, 6)),
        (batch, num_slots + 1, 6),
    )
    targets, start = [], 0
    for scale in range(len(variant.strides)):
        cells = variant.grid_size(scale, image_size)
        anchors = variant.num_anchors(scale)
        end = start + cells * cells * anchors
        shape = (-1, cells, cells, anchors, 6)
        targets.append(ops.reshape(flat[:, start:end], shape))
        start = end
    return tuple(targets), lost


def _settle(wish, fit, pending, given):
    """Gives wanted slots to boxes, each to the best fit, the earlier box at a tie.

    Args:
        wish: `[batch, boxes]` int32, the slot that each box wants.
        fit: `[batch, boxes]`, how well it would fit.
        pending: `[batch, boxes]` bool, whether it wants one at all.
        given: list of `[batch, boxes]` int32, the slots that are taken; -1 is none.

    Returns:
        `[batch, boxes]` bool, whether a box gets what it wants.
    """
    index = ops.arange(ops.shape(wish)[1])
    is_earlier = index[None, :] < index[:, None]  # [boxes, rivals]
    wish = ops.where(pending, wish, -2)  # Which equals no slot.
    same_wish = wish[:, :, None] == wish[:, None, :]  # [batch, boxes, rivals]
    rival_fit, own_fit = fit[:, None, :], fit[:, :, None]
    rival_wins = ops.logical_or(
        rival_fit > own_fit, ops.logical_and(rival_fit == own_fit, is_earlier)
    )
    beaten = ops.any(ops.logical_and(same_wish, rival_wins), axis=-1)
    for slots in given:
        taken = ops.any(wish[:, :, None] == slots[:, None, :], axis=-1)
        beaten = ops.logical_or(beaten, taken)
    return ops.logical_and(pending, ops.logical_not(beaten))


def _twins(variant):
    """Pairs of places, in the list of all anchors, that hold the same anchor."""
    anchors = [anchor for scale in variant.anchors for anchor in scale]
    return [
        (first, second)
        for second, anchor in enumerate(anchors)
        for first in range(second)
        if anchors[first] == anchor
    ]


def _fit_and_slots(boxes, sizes, variant, image_size):
    """Rates every anchor for every box, and finds its place in the flat targets.

    Returns:
        The IoU of box and anchor shapes `[batch, boxes, anchors of all scales]`, the
        index of the anchor at the box's cell `[batch, boxes, anchors]` int32, and the
        number of all slots.
    """
    fit, slots, start = [], [], 0
    centres = (boxes[..., :2] + boxes[..., 2:]) / 2
    for scale, anchors_px in enumerate(variant.anchors):
        anchors = ops.convert_to_tensor(anchors_px, dtype="float32")
        anchors = anchors / ops.cast(image_size, "float32")
        shared = ops.prod(ops.minimum(sizes[:, :, None, :], anchors), axis=-1)
        together = ops.prod(sizes, axis=-1)[:, :, None] + ops.prod(anchors, axis=-1)
        fit.append(shared / (together - shared))
        cells = variant.grid_size(scale, image_size)
        # A centre on the right or bottom edge belongs to the last cell.
        cell = ops.floor(centres * ops.cast(cells, "float32"))
        cell = ops.clip(ops.cast(cell, "int32"), 0, cells - 1)
        first = (cell[..., 1] * cells + cell[..., 0]) * len(anchors_px) + start
        slots.append(first[..., None] + ops.arange(len(anchors_px), dtype="int32"))
        start += cells * cells * len(anchors_px)
    return ops.concatenate(fit, axis=-1), ops.concatenate(slots, axis=-1), start
