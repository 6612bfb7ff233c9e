"""Anchors: how well boxes fit them."""

from keras import ops


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
