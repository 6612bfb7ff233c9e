"""Matches detections with true boxes: the confusion matrix and the worst images."""

import numpy as np

from yolov3_tf2.boxes import geometry

# A detection and a true box are the same object from this IoU on.
MATCH_IOU = 0.5


def confusion_counts(images, num_classes, *, score_threshold, iou_threshold=MATCH_IOU):
    """Counts which class was detected for which labelled class.

    Args:
        images: list of `coco.EvaluatedImage`.
        num_classes: number of classes.
        score_threshold: detections with a lower score are ignored.
        iou_threshold: minimum IoU of a detection and a true box of the same object.

    Returns:
        `[num_classes + 1, num_classes + 1]` integers, labelled then detected class. The
        last index is the background: labels without a detection, and detections without
        a label.
    """
    counts = np.zeros((num_classes + 1, num_classes + 1), int)
    for image in images:
        for true, found in _match_boxes(image, score_threshold, iou_threshold):
            row = num_classes if true is None else image.labels[true]
            column = num_classes if found is None else image.detections.labels[found]
            counts[int(row), int(column)] += 1
    return counts


def worst_images(images, number, *, score_threshold, iou_threshold=MATCH_IOU):
    """Returns the images with the most errors, the worst first.

    An error is a label without a detection of its class, or a detection without a label
    of its class.

    Args:
        images: list of `coco.EvaluatedImage`.
        number: maximum number of images to return; images without errors are not.
        score_threshold, iou_threshold: see `confusion_counts`.
    """

    def count_errors(image):
        return sum(
            1
            if true is None or found is None
            else 2 * int(image.labels[true] != image.detections.labels[found])
            for true, found in _match_boxes(image, score_threshold, iou_threshold)
        )

    ranked = sorted(images, key=count_errors, reverse=True)[:number]
    return [image for image in ranked if count_errors(image)]


def _match_boxes(image, score_threshold, iou_threshold):
    """Pairs true boxes with detections of any class, the highest IoU first.

    Returns:
        List of pairs of the index of a true box and the index of a detection. One of
        them is None for boxes without a match.
    """
    candidates = np.flatnonzero(image.detections.scores >= score_threshold)
    boxes = image.boxes_px[:, None]
    iou = np.asarray(geometry.iou(boxes, image.detections.boxes_px[candidates][None]))
    free_true, free_found = set(range(len(boxes))), set(candidates.tolist())
    pairs = []
    for flat in np.argsort(-iou, axis=None, kind="stable"):
        true, column = np.unravel_index(flat, iou.shape)
        found = int(candidates[column])
        if iou[true, column] < iou_threshold:
            break
        if true in free_true and found in free_found:
            pairs.append((int(true), found))
            free_true.discard(true)
            free_found.discard(found)
    pairs += [(true, None) for true in sorted(free_true)]
    return pairs + [(None, found) for found in sorted(free_found)]
