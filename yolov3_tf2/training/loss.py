"""The YOLOv3 loss as darknet computes it (`yolo_layer.c`), on logits.

Darknet computes gradients instead of a loss: `scale * (target - sigmoid(t))` for x and
y, `scale * (target - t)` for w and h, `target - sigmoid(t)` for the objectness and each
class. They are the gradients of binary cross-entropy on logits and of half a squared
error, which this module computes.

The box loss `ciou` compares boxes by complete IoU. The target of a predicted box's
objectness is then its IoU with the true box, as in the first YOLO (1506.02640, section
2: confidence is Pr(object) * IoU), instead of 1 as in YOLOv3. Scores then rank boxes by
how well they fit, which average precision rewards.
"""

from keras import ops

from yolov3_tf2.boxes import decoding, geometry

# A prediction with a higher IoU with any true box is not background (`ignore_thresh`
# of yolov3.cfg).
IGNORE_IOU = 0.7

PARTS = ("loss_box", "loss_objectness", "loss_class")
BOX_LOSSES = ("darknet", "ciou")
# Brings the CIoU loss to the scale of darknet's loss of boxes.
CIOU_WEIGHT = 4.0


def yolo_loss(logits, targets, true_boxes, variant, box_loss="darknet"):
    """Computes the loss of each image of a batch.

    Args:
        logits: per scale `[batch, rows, cols, anchors, 5 + classes]`.
        targets: per scale `[batch, rows, cols, anchors, 6]`, see `assign_boxes`.
        true_boxes: `[batch, boxes, 4]` xyxy, fractions, at least one; a box without
            area is padding. All boxes of the image: a prediction at one scale that
            matches a box assigned to another scale is not background.
        variant: a `variants.Variant`.
        box_loss: one of `BOX_LOSSES`.

    Returns:
        A dict from each name of `PARTS` to `[batch]` float32, summed over the scales.
    """
    if box_loss not in BOX_LOSSES:
        raise ValueError(
            f"box_loss: expected one of {', '.join(BOX_LOSSES)}, got {box_loss!r}."
        )
    parts = dict.fromkeys(PARTS, 0.0)
    for scale, (scale_logits, scale_targets) in enumerate(
        zip(logits, targets, strict=True)
    ):
        losses = _scale_loss(
            ops.cast(scale_logits, "float32"),
            scale_targets,
            true_boxes,
            variant,
            scale,
            box_loss,
        )
        parts = {
            name: parts[name] + loss for name, loss in zip(PARTS, losses, strict=True)
        }
    return parts


def _box_loss(logits, boxes, objectness, variant, scale, box_loss):
    """Returns the loss of boxes, `[batch, rows, cols, anchors]`; 0 without an object.

    Values without an object are replaced before the loss instead of masked after it:
    infinity times zero would make the gradient NaN.
    """
    has_object = objectness[..., None] > 0
    if box_loss == "ciou":
        anywhere = ops.convert_to_tensor([0.0, 0.0, 1.0, 1.0])
        predicted = decoding.decode_boxes(
            ops.where(has_object, logits[..., :4], 0.0), variant, scale
        )
        boxes = ops.where(has_object, boxes, anywhere)
        return CIOU_WEIGHT * objectness * (1.0 - geometry.ciou(predicted, boxes))
    # Small boxes weigh more: 2 - w * h.
    weight = objectness * (2.0 - geometry.area(boxes))
    offsets = ops.where(has_object, decoding.encode_boxes(boxes, variant, scale), 0.0)
    xy = ops.sum(_cross_entropy(offsets[..., :2], logits[..., :2]), axis=-1)
    wh = ops.sum(ops.square(offsets[..., 2:] - logits[..., 2:4]), axis=-1) / 2
    return weight * (xy + wh)


def _scale_loss(logits, targets, true_boxes, variant, scale, box_loss):
    """Returns the losses of one scale, each `[batch]`, in the order of `PARTS`."""
    boxes, objectness = targets[..., :4], targets[..., 4]
    # One split: the gradient of each slice would be as large as the logits.
    offsets, object_logits, class_logits = ops.split(logits, [4, 5], axis=-1)
    object_logits = object_logits[..., 0]
    box_part = _box_loss(offsets, boxes, objectness, variant, scale, box_loss)

    pred_boxes = ops.stop_gradient(decoding.decode_boxes(offsets, variant, scale))
    best_iou = ops.max(
        geometry.iou(pred_boxes[..., None, :], true_boxes[:, None, None, None, :, :]),
        axis=-1,
    )  # [batch, rows, cols, anchors]
    background = (1.0 - objectness) * ops.cast(best_iou <= IGNORE_IOU, "float32")
    confidence = objectness
    if box_loss == "ciou":
        confidence = objectness * geometry.iou(pred_boxes, boxes)
    objectness_part = _cross_entropy(confidence, object_logits)
    objectness_part = (objectness + background) * objectness_part
    most = 2 * ops.shape(true_boxes)[1]  # A box is encoded twice at most.
    return (
        ops.sum(box_part, axis=(1, 2, 3)),
        ops.sum(objectness_part, axis=(1, 2, 3)),
        _class_loss(class_logits, targets, most),
    )


def _class_loss(logits, targets, most):
    """Returns the loss of classes, `[batch]`.

    Only cells with an object have a class. They are gathered first: most cells are
    empty, and most logits belong to classes.

    Args:
        logits: `[batch, rows, cols, anchors, classes]`.
        targets: `[batch, rows, cols, anchors, 6]`.
        most: the largest number of cells with an object in an image.
    """
    batch, num_classes = ops.shape(logits)[0], logits.shape[-1]
    targets = ops.reshape(targets, (batch, -1, 6))
    logits = ops.reshape(logits, (batch, -1, num_classes))
    most = ops.minimum(most, ops.shape(targets)[1])
    _, cells = ops.top_k(targets[..., 4], most, sorted=False)
    targets = ops.take_along_axis(targets, cells[..., None], axis=1)
    logits = ops.take_along_axis(logits, cells[..., None], axis=1)
    one_hot = ops.one_hot(ops.cast(targets[..., 5], "int32"), num_classes)
    class_loss = ops.sum(_cross_entropy(one_hot, logits), axis=-1)
    return ops.sum(targets[..., 4] * class_loss, axis=-1)


def _cross_entropy(target, logits):
    """Returns the binary cross-entropy, in a form that does not overflow."""
    return ops.softplus(logits) - logits * target
