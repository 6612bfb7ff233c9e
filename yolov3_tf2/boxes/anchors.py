"""Anchors: how well boxes fit them."""

from keras import ops

# A box fits an anchor if neither its width nor its height is more than this many times
# larger or smaller: the `anchor_t` by which YOLOv5 counts its best possible recall.
FITTING_RATIO = 4.0


def shape_iou(sizes, anchors):
    """Returns the IoU of every box with every anchor, both at the same centre.

    Args:
        sizes: `[..., 2]` width and height of the boxes.
        anchors: `[anchors, 2]` width and height, in the unit of `sizes`.

    Returns:
        `[..., anchors]`, in [0, 1] for sizes above 0.

    Example:
        >>> shape_iou([[2.0, 1.0]], [[1.0, 2.0], [2.0, 1.0]])[0].numpy().tolist()
        [0.3333333432674408, 1.0]
    """
    sizes, anchors = ops.convert_to_tensor(sizes), ops.convert_to_tensor(anchors)
    pairs = ops.minimum(sizes[..., None, :], anchors)  # [..., anchors, 2]
    intersection = ops.prod(pairs, axis=-1)
    areas = ops.prod(sizes, axis=-1)[..., None] + ops.prod(anchors, axis=-1)
    return intersection / (areas - intersection)


def best_possible_recall(sizes, anchors):
    """Returns the share of boxes that fit at least one anchor, see `FITTING_RATIO`.

    Args:
        sizes: `[boxes, 2]` width and height of the boxes, at least one.
        anchors: `[anchors, 2]` width and height, in the unit of `sizes`.

    Returns:
        A float in [0, 1].

    Example:
        >>> best_possible_recall([[3.0, 3.0], [1.0, 5.0]], [[1.0, 1.0], [12.0, 1.0]])
        0.5
    """
    sizes, anchors = ops.convert_to_tensor(sizes), ops.convert_to_tensor(anchors)
    ratios = sizes[..., None, :] / anchors  # [boxes, anchors, 2]
    ratios = ops.max(ops.maximum(ratios, 1 / ratios), axis=-1)
    is_fitting = ops.min(ratios, axis=-1) < FITTING_RATIO
    return float(ops.mean(ops.cast(is_fitting, "float32")))
