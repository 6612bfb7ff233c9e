"""Conversions of boxes, IoU and complete IoU. Pure functions.

A box is xyxy: left, top, right, bottom. The functions work in any unit; inside this
package it is fractions of the network's input.
"""

import math

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
    """Returns the area `[...]` of `boxes` `[..., 4]` xyxy, 0 if corners are swapped."""
    size = ops.maximum(boxes[..., 2:] - boxes[..., :2], 0.0)
    return size[..., 0] * size[..., 1]


def iou(boxes_a, boxes_b):
    """Returns the intersection over union (IoU) of boxes, pair by pair.

    Args:
        boxes_a: `[..., 4]` xyxy.
        boxes_b: `[..., 4]` xyxy, of a shape that broadcasts with `boxes_a`. To
            compare every a with every b, pass `a[:, None, :]` and `b[None, :, :]`.

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
    # The smallest normal float32: avoids 0 / 0 and changes no other result.
    return intersection / ops.maximum(union, 1.2e-38)


def ciou(boxes_a, boxes_b):
    """Returns the complete IoU, pair by pair (https://arxiv.org/abs/1911.08287).

    From the IoU it subtracts the squared distance of the centres, relative to the
    diagonal of the smallest box around both, and a penalty for different aspect ratios.
    So it has a gradient where the boxes do not overlap.

    Args:
        boxes_a: `[..., 4]` xyxy, each with an area.
        boxes_b: `[..., 4]` xyxy, each with an area.

    Returns:
        `[...]`, from -1.5 to 1.

    Example:
        >>> float(ciou([0.0, 0.0, 2.0, 2.0], [1.0, 0.0, 3.0, 2.0]))  # 1 / 3 - 1 / 13
        0.2564102...
    """
    boxes_a, boxes_b = ops.convert_to_tensor(boxes_a), ops.convert_to_tensor(boxes_b)
    overlap = iou(boxes_a, boxes_b)
    a, b = xyxy_to_xywh(boxes_a), xyxy_to_xywh(boxes_b)
    around = ops.maximum(boxes_a[..., 2:], boxes_b[..., 2:]) - ops.minimum(
        boxes_a[..., :2], boxes_b[..., :2]
    )
    distance = ops.sum(ops.square(a[..., :2] - b[..., :2]), axis=-1)
    distance = distance / ops.sum(ops.square(around), axis=-1)
    angles = [ops.arctan2(x[..., 2], x[..., 3]) for x in (a, b)]
    shape = 4 / math.pi**2 * ops.square(angles[0] - angles[1])
    # The weight alpha of the paper, which takes no part in the gradient.
    alpha = ops.stop_gradient(shape / (1 - overlap + shape + 1e-7))
    return overlap - distance - alpha * shape
