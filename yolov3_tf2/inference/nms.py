"""Non-maximum suppression: keeps the best of the boxes that overlap."""

import tensorflow as tf

from yolov3_tf2.boxes import decoding


def suppress(
    logits,
    variant,
    *,
    score_threshold,
    iou_threshold,
    max_boxes,
    across_classes=False,
):
    """Decodes the logits of all scales and suppresses overlapping boxes.

    A network predicts an object at several cells and anchors. Suppression goes through
    the boxes of a class from the highest score down, and drops each that overlaps one
    it has already kept. By default classes do not affect each other, as in darknet's
    `box.c`: two boxes of different classes are both kept, and so is one box with two
    classes. Across classes, a box has the class of its highest score only, and
    suppresses the boxes of all classes that it overlaps.

    Args:
        logits: tuple of `[batch, rows, cols, anchors, 5 + classes]`, one per scale.
        variant: a `variants.Variant`.
        score_threshold: boxes are kept if their score is above this.
        iou_threshold: boxes overlap if their IoU is above this.
        max_boxes: maximum number of boxes per image, of all classes together.
        across_classes: whether boxes of different classes suppress each other.

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
        boxes.append(tf.reshape(scale_boxes, (batch, -1, 4)))
        scores.append(
            tf.reshape(objectness[..., None] * classes, (batch, -1, num_classes))
        )
    boxes, scores = tf.concat(boxes, axis=1), tf.concat(scores, axis=1)
    if across_classes:
        return _suppress_across_classes(
            boxes, scores, score_threshold, iou_threshold, max_boxes
        )
    boxes, scores, labels, number = tf.image.combined_non_max_suppression(
        boxes[:, :, None, :],
        scores,
        max_output_size_per_class=max_boxes,
        max_total_size=max_boxes,
        iou_threshold=iou_threshold,
        score_threshold=score_threshold,
        clip_boxes=False,
    )
    return boxes, scores, labels, number


def _suppress_across_classes(boxes, scores, score_threshold, iou_threshold, max_boxes):
    """Returns the results of `suppress` for the best class of every box.

    Args:
        boxes: `[batch, boxes, 4]`.
        scores: `[batch, boxes, classes]`.
        score_threshold, iou_threshold, max_boxes: see `suppress`.
    """

    def suppress_image(image):
        own_boxes, own_scores, labels = image
        chosen = tf.image.non_max_suppression(
            own_boxes, own_scores, max_boxes, iou_threshold, score_threshold
        )
        number = tf.shape(chosen)[0]
        missing = max_boxes - number
        return (
            tf.pad(tf.gather(own_boxes, chosen), ((0, missing), (0, 0))),
            tf.pad(tf.gather(own_scores, chosen), ((0, missing),)),
            tf.pad(tf.gather(labels, chosen), ((0, missing),)),
            number,
        )

    # `combined_non_max_suppression` cannot do this: it forgets which box it kept, and
    # so the label.
    labels = tf.cast(tf.argmax(scores, axis=-1), tf.float32)
    return tf.map_fn(
        suppress_image,
        (boxes, tf.reduce_max(scores, axis=-1), labels),
        fn_output_signature=(
            tf.TensorSpec((max_boxes, 4), tf.float32),
            tf.TensorSpec((max_boxes,), tf.float32),
            tf.TensorSpec((max_boxes,), tf.float32),
            tf.TensorSpec((), tf.int32),
        ),
    )
