"""Matches detections with true boxes: best F1, confusion matrix, worst images."""

import numpy as np

from yolov3_tf2.boxes import geometry

# A detection and a true box are the same object from this IoU on.
MATCH_IOU = 0.5
# Lower scores are no candidates for the threshold of the best F1: a model that has
# learned next to nothing would show its noise.
MIN_SHOWN_SCORE = 0.05


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


def best_f1(evaluation):
    """Finds the score threshold of the best F1, at an IoU of 0.5.

    F1 = 2 tp / (2 tp + fp + fn), over the boxes of all classes together. Scores below
    `MIN_SHOWN_SCORE` are not looked at.

    Args:
        evaluation: the result of `coco.evaluate_images`.

    Returns:
        A pair: the F1, and a threshold midway between the lowest score that counts and
        the highest one that does not. (0, None) without a correct detection.
    """
    images = [image for image in evaluation.evalImgs if image is not None]
    # Images, classes and areas; the first area is "all". [IoU thresholds, detections].
    images = [i for i in images if i["aRng"] == evaluation.params.areaRng[0]]
    scores = np.concatenate([[], *(image["dtScores"] for image in images)])
    hits = np.concatenate([[], *(image["dtMatches"][0] > 0 for image in images)])
    num_true = sum(len(image["gtIds"]) for image in images)
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] >= MIN_SHOWN_SCORE]
    scores, true_positives = scores[order], np.cumsum(hits[order])
    f1 = 2 * true_positives / (np.arange(1, len(scores) + 1) + num_true)
    if not f1.any():
        return 0.0, None
    # A threshold cannot separate equal scores: only the last of them counts.
    lower = np.append(scores[1:], MIN_SHOWN_SCORE / 2)
    f1[scores == lower] = 0.0
    best = len(f1) - 1 - int(np.argmax(f1[::-1]))  # The last of equally good ones.
    return float(f1[best]), float((scores[best] + lower[best]) / 2)


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
