"""The YOLOv3 loss as darknet computes it (`yolo_layer.c`), on logits.

Darknet writes gradients, not a loss: for x and y `scale * (target - sigmoid(t))`, for
w and h `scale * (target - t)`, for objectness and each class `target - sigmoid(t)`.
They are the gradients of binary cross-entropy on logits and of half a squared error,
which is what stands here.

With the box loss `ciou`, boxes are compared by complete IoU, and the objectness of a
box that is to be found is its IoU with it, as in YOLO itself (1506.02640, section 2:
confidence is Pr(object) * IoU), where darknet's YOLOv3 has 1: scores then rank boxes by
how well they fit, which is what average precision asks for.
"""

from keras import ops

from yolov3_tf2.boxes import decoding, geometry

# A prediction this close to any true box is not punished for seeing an object
# (`ignore_thresh` of yolov3.cfg).
IGNORE_IOU = 0.7

PARTS = ("loss_box", "loss_objectness", "loss_class")
BOX_LOSSES = ("darknet", "ciou")
# What a box that misses costs, whatever its size, in the unit of darknet's loss.
CIOU_WEIGHT = 4.0


def yolo_loss(logits, targets, true_boxes, variant, box_loss="darknet"):
    """Computes the loss of every picture of a batch.

    Args:
        logits: per scale `[batch, rows, cols, anchors, 5 + classes]`.
        targets: per scale `[batch, rows, cols, anchors, 6]`, see `assign_boxes`.
        true_boxes: `[batch, boxes, 4]` xyxy, fractions, at least one; a box without
            area is padding. All boxes of the picture, since a prediction at one scale
            that covers a box assigned to another is not background.
        variant: a `variants.Variant`.
        box_loss: one of `BOX_LOSSES`.

    Returns:
        A dict from each name of `PARTS` to `[batch]` float32, summed over the scales.
    """
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
    """What misplaced boxes cost, `[batch, rows, cols, anchors]`; 0 without an object.

    What stands where there is no object is replaced before the loss, and not masked
    after it, so that no large number times zero enters a gradient.
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
    """The three parts of one scale, each `[batch]`."""
    boxes, objectness = targets[..., :4], targets[..., 4]
    # Once, and not by three slices: the gradient of each is as large as the logits.
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
    """What wrong classes cost a picture, `[batch]`.

    Only cells with an object have a class. They are gathered, as most of the logits
    are those of classes, and most cells are empty.

    Args:
        logits: `[batch, rows, cols, anchors, classes]`.
        targets: those of the scale.
        most: no picture has more cells with an object.
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
    """Binary cross-entropy, in the form that overflows for no logit."""
    return ops.softplus(logits) - logits * target
