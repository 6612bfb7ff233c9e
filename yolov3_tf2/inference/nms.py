"""Non-maximum suppression."""

import tensorflow as tf

from yolov3_tf2.boxes import decoding


def suppress(logits, variant, *, score_threshold, iou_threshold, max_boxes):
    """Turns the logits of all scales into the boxes that are kept.

    Non-maximum suppression is per class, as darknet's (`box.c`): a box of one class
    never suppresses a box of another, and a box may be kept for several classes.

    Args:
        logits: per scale `[batch, rows, cols, anchors, 5 + classes]`.
        variant: a `variants.Variant`.
        score_threshold: boxes of a lower score are dropped.
        iou_threshold: of two boxes of a class with a larger IoU the weaker is dropped.
        max_boxes: boxes kept a picture.

    Returns:
        boxes `[batch, max_boxes, 4]` xyxy, fractions of the input, unclipped; scores
        and labels `[batch, max_boxes]`; number of boxes that are real `[batch]`.
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
