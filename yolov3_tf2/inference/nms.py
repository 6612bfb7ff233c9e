"""Non-maximum suppression: keeps the best of the boxes that overlap."""

import tensorflow as tf

from yolov3_tf2.boxes import decoding


def suppress(logits, variant, *, score_threshold, iou_threshold, max_boxes):
    """Decodes the logits of all scales and suppresses overlapping boxes.

    A network predicts an object at several cells and anchors. Suppression goes through
    the boxes of a class from the highest score down, and drops each that overlaps one
    it has already kept. Classes do not affect each other, as in darknet's `box.c`: two
    boxes of different classes are both kept, and so is one box with two classes.

    Args:
        logits: tuple of `[batch, rows, cols, anchors, 5 + classes]`, one per scale.
        variant: a `variants.Variant`.
        score_threshold: boxes are kept if their score is above this.
        iou_threshold: boxes of a class overlap if their IoU is above this.
        max_boxes: maximum number of boxes per image, of all classes together.

    Returns:
        A tuple, each sorted by score, highest first, and padded to `max_boxes`:
        boxes `[batch, max_boxes, 4]` xyxy, fractions of the input, not clipped;
        scores `[batch, max_boxes]`; labels `[batch, max_boxes]` float32; and the
        number of boxes before the padding `[batch]`.
    """
    boxes, scores = [], []
    for scale, scale_logits in enumerate(logits):
        scale_boxes, objectness, classes = decoding.decode_logits(
            scale_logits, variant, scale
        )
        batch, num_classes = tf.shape(classes)[0], classes.shape[-1]
        boxes.append(tf.reshape(scale_boxes, (batch, -1, 1, 4)))
        scores.append(
            tf.reshape(objectness[..., None] * classes, (batch, -1, num_classes))
        )
    boxes, scores, labels, number = tf.image.combined_non_max_suppression(
        tf.concat(boxes, axis=1),
        tf.concat(scores, axis=1),
        max_output_size_per_class=max_boxes,
        max_total_size=max_boxes,
        iou_threshold=iou_threshold,
        score_threshold=score_threshold,
        clip_boxes=False,
    )
    return boxes, scores, labels, number
