"""Which detection belongs to which label: confusion matrix and worst images."""

import numpy as np

from yolov3_tf2.boxes import geometry


def confusion_counts(pictures, num_classes, *, score_threshold, iou_threshold):
    """Counts which class was found where which was labelled.

    Args:
        pictures: list of `Picture`.
        num_classes: number of classes.
        score_threshold: detections under it do not count.
        iou_threshold: overlap from which a detection is of a label.

    Returns:
        `[num_classes + 1, num_classes + 1]` integers, labelled then found; the last
        index is the background.
    """
    counts = np.zeros((num_classes + 1, num_classes + 1), int)
    for picture in pictures:
        pairs = _pair(picture, score_threshold, iou_threshold)
        for labelled, found in pairs:
            row = num_classes if labelled is None else picture.labels[labelled]
            column = num_classes if found is None else picture.detected.labels[found]
            counts[int(row), int(column)] += 1
    return counts


def worst_images(pictures, number, *, score_threshold, iou_threshold):
    """Returns the `number` pictures with the most errors, the worst first.

    An error is a label without a detection of its class, or a detection without a
    label of its class. Pictures without any are left out.
    """

    def errors(picture):
        return sum(
            1
            if labelled is None or found is None
            else 2 * int(picture.labels[labelled] != picture.detected.labels[found])
            for labelled, found in _pair(picture, score_threshold, iou_threshold)
        )

    ranked = sorted(pictures, key=errors, reverse=True)[:number]
    return [picture for picture in ranked if errors(picture)]


def _pair(picture, score_threshold, iou_threshold):
    """Pairs labels with detections, whatever their classes, best overlap first.

    Returns:
        Pairs of indices of a label and a detection; what has no partner has None.
    """
    shown = np.flatnonzero(picture.detected.scores >= score_threshold)
    boxes = picture.boxes_px[:, None]
    iou = np.asarray(geometry.iou(boxes, picture.detected.boxes_px[shown][None]))
    free_labels, free_found = set(range(len(boxes))), set(shown.tolist())
    pairs = []
    for flat in np.argsort(-iou, axis=None, kind="stable"):
        label, column = np.unravel_index(flat, iou.shape)
        found = int(shown[column])
        if iou[label, column] < iou_threshold:
            break
        if label in free_labels and found in free_found:
            pairs.append((int(label), found))
            free_labels.discard(label)
            free_found.discard(found)
    pairs += [(label, None) for label in sorted(free_labels)]
    return pairs + [(None, found) for found in sorted(free_found)]
