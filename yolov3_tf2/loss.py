"""The YOLOv3 loss as darknet computes it (`yolo_layer.c`), on logits.

Darknet writes gradients, not a loss: for x and y `scale * (target - sigmoid(t))`, for
w and h `scale * (target - t)`, for objectness and each class `target - sigmoid(t)`.
They are the gradients of binary cross-entropy on logits and of half a squared error,
which is what stands here.
"""

from keras import ops

from yolov3_tf2 import boxes as box_ops
from yolov3_tf2 import grid

# A prediction this close to any true box is not punished for seeing an object
# (`ignore_thresh` of yolov3.cfg).
IGNORE_IOU = 0.7

PARTS = ("loss_xy", "loss_wh", "loss_objectness", "loss_class")


def yolo_loss(logits, targets, true_boxes, variant):
    """Computes the loss of every picture of a batch.

    Args:
        logits: per scale `[batch, rows, cols, anchors, 5 + classes]`.
        targets: per scale `[batch, rows, cols, anchors, 6]`, see `grid.encode`.
        true_boxes: `[batch, boxes, 4]` xyxy, fractions, at least one; a box without
            area is padding. All boxes of the picture, since a prediction at one scale
            that covers a box assigned to another is not background.
        variant: a `grid.Variant`.

    Returns:
        A dict from each name of `PARTS` to `[batch]` float32, summed over the scales.
    """
    parts = dict.fromkeys(PARTS, 0.0)
    for scale, (scale_logits, scale_targets) in enumerate(
        zip(logits, targets, strict=True)
    ):
        losses = _scale_loss(
            ops.cast(scale_logits, "float32"), scale_targets, true_boxes, variant, scale
        )
        parts = {
            name: parts[name] + ops.sum(loss, axis=(1, 2, 3))
            for name, loss in zip(PARTS, losses, strict=True)
        }
    return parts


def _scale_loss(logits, targets, true_boxes, variant, scale):
    """The four parts of one scale, each `[batch, rows, cols, anchors]`."""
    boxes, objectness = targets[..., :4], targets[..., 4]
    offsets = grid.encode_boxes(boxes, variant, scale)
    # Cells without an object have no offsets: theirs are masked before the loss, so
    # that no large number times zero enters a gradient.
    offsets = ops.where(objectness[..., None] > 0, offsets, 0.0)
    # Small boxes weigh more: 2 - w * h.
    weight = objectness * (2.0 - box_ops.area(boxes))
    xy = ops.sum(_cross_entropy(offsets[..., :2], logits[..., :2]), axis=-1)
    wh = ops.sum(ops.square(offsets[..., 2:] - logits[..., 2:4]), axis=-1) / 2

    pred_boxes = ops.stop_gradient(grid.decode_boxes(logits[..., :4], variant, scale))
    best_iou = ops.max(
        box_ops.iou(pred_boxes[..., None, :], true_boxes[:, None, None, None, :, :]),
        axis=-1,
    )  # [batch, rows, cols, anchors]
    background = (1.0 - objectness) * ops.cast(best_iou <= IGNORE_IOU, "float32")
    objectness_loss = _cross_entropy(objectness, logits[..., 4])
    objectness_loss = (objectness + background) * objectness_loss

    num_classes = logits.shape[-1] - 5
    one_hot = ops.one_hot(ops.cast(targets[..., 5], "int32"), num_classes)
    class_loss = ops.sum(_cross_entropy(one_hot, logits[..., 5:]), axis=-1)
    return weight * xy, weight * wh, objectness_loss, objectness * class_loss


def _cross_entropy(target, logits):
    """Binary cross-entropy, in the form that overflows for no logit."""
    return (
        ops.maximum(logits, 0.0)
        - logits * target
        + ops.log1p(ops.exp(-ops.abs(logits)))
    )
