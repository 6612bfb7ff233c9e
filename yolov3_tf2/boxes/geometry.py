"""Boxes: conversions, intersection over union, clipping. Pure functions.

A box is xyxy: left, top, right, bottom. The unit is the caller's, fractions of the
network's input everywhere inside this package.
"""

from keras import ops


def xyxy_to_xywh(boxes):
    """Returns centre x, centre y, width, height of `boxes` `[..., 4]` xyxy.

    Example:
        >>> xyxy_to_xywh([[0.0, 0.0, 4.0, 2.0]]).numpy().tolist()
        [[2.0, 1.0, 4.0, 2.0]]
    """
    boxes = ops.convert_to_tensor(boxes)
    low, high = boxes[..., :2], boxes[..., 2:]
    return ops.concatenate([(low + high) / 2, high - low], axis=-1)


def xywh_to_xyxy(boxes_xywh):
    """Returns left, top, right, bottom of `boxes_xywh` `[..., 4]` centre and size.

    Example:
        >>> xywh_to_xyxy([[2.0, 1.0, 4.0, 2.0]]).numpy().tolist()
        [[0.0, 0.0, 4.0, 2.0]]
    """
    boxes_xywh = ops.convert_to_tensor(boxes_xywh)
    centre, half = boxes_xywh[..., :2], boxes_xywh[..., 2:] / 2
    return ops.concatenate([centre - half, centre + half], axis=-1)


def area(boxes):
    """Returns the area `[...]` of `boxes` `[..., 4]` xyxy; 0 for a box turned round."""
    size = ops.maximum(boxes[..., 2:] - boxes[..., :2], 0.0)
    return size[..., 0] * size[..., 1]


def iou(boxes_a, boxes_b):
    """Returns the intersection over union of two sets of boxes, pair by pair.

    Args:
        boxes_a: `[..., 4]` xyxy.
        boxes_b: `[..., 4]` xyxy, of a shape that broadcasts against `boxes_a`: for
            every a against every b pass `a[:, None, :]` and `b[None, :, :]`.

    Returns:
        `[...]` in [0, 1]. Two boxes without area have an IoU of 0, not NaN.

    Example:
        >>> float(iou([0.0, 0.0, 2.0, 2.0], [1.0, 0.0, 3.0, 2.0]))  # 2 / (4 + 4 - 2)
        0.3333333432674408
    """
    boxes_a, boxes_b = ops.convert_to_tensor(boxes_a), ops.convert_to_tensor(boxes_b)
    low = ops.maximum(boxes_a[..., :2], boxes_b[..., :2])
    high = ops.minimum(boxes_a[..., 2:], boxes_b[..., 2:])
    size = ops.maximum(high - low, 0.0)
    intersection = size[..., 0] * size[..., 1]
    union = area(boxes_a) + area(boxes_b) - intersection
    # The smallest float32 that is not denormal: guards 0 / 0 and changes nothing else.
    return intersection / ops.maximum(union, 1.2e-38)


def clip(boxes, width, height):
    """Returns `boxes` `[..., 4]` xyxy cut off at 0, `width` and `height`."""
    limits = ops.convert_to_tensor([width, height, width, height])
    boxes = ops.convert_to_tensor(boxes)
    return ops.clip(boxes, 0, ops.cast(limits, boxes.dtype))
