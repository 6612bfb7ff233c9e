"""COCO average precision through pycocotools, and the COCO format that it reads."""

import contextlib
import io
from typing import NamedTuple

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from yolov3_tf2.boxes import geometry
from yolov3_tf2.predict import Detections


class Picture(NamedTuple):
    """What is true of a picture and what was found in it.

    Attributes:
        number: the picture's place in its files.
        boxes_px: `[boxes, 4]` xyxy, pixels.
        labels: `[boxes]` class indices.
        detected: `predict.Detections`.
    """

    number: int
    boxes_px: np.ndarray
    labels: np.ndarray
    detected: Detections


def categories(class_names):
    """Returns the COCO categories of a list of names; the ids start at 1."""
    return [
        {"id": number, "name": name} for number, name in enumerate(class_names, start=1)
    ]


def annotations(image_id, boxes_px, labels, scores=None):
    """Returns the COCO annotations of one picture, without ids.

    Args:
        image_id: id of the picture.
        boxes_px: `[boxes, 4]` xyxy, pixels.
        labels: `[boxes]` class indices.
        scores: `[boxes]` in [0, 1] for detections, None for labels.
    """
    found = []
    for i, (left, top, right, bottom) in enumerate(np.asarray(boxes_px).tolist()):
        width, height = right - left, bottom - top
        annotation = {
            "image_id": image_id,
            "category_id": int(labels[i]) + 1,
            "bbox": [round(value, 3) for value in (left, top, width, height)],
            "area": round(width * height, 3),
            "iscrowd": 0,
        }
        if scores is not None:
            annotation["score"] = round(float(scores[i]), 6)
        found.append(annotation)
    return found


def number_annotations(lists):
    """Joins lists of annotations and gives each its id, from 1 on."""
    return [
        {"id": number, **annotation}
        for number, annotation in enumerate(
            (annotation for part in lists for annotation in part), start=1
        )
    ]


def average_precision(evaluation, class_names):
    """Reads COCO AP from the result of `coco_evaluation` or `evaluate_pictures`.

    Returns:
        A dict: `AP` (mean over IoU 0.50 to 0.95), `AP50`, `AP75`, and for each class
        that has labels `AP50/<name>`. The first three are NaN without any labels.
    """
    # [IoU thresholds, recalls, classes, areas, max detections]; -1 where no labels.
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    thresholds = evaluation.params.iouThrs

    def mean(values):
        values = values[values > -1]
        return float(values.mean()) if values.size else float("nan")

    ap50 = precision[np.isclose(thresholds, 0.5)]
    results = {
        "AP": mean(precision),
        "AP50": mean(ap50),
        "AP75": mean(precision[np.isclose(thresholds, 0.75)]),
    }
    for index, name in enumerate(class_names):
        if (ap50[:, :, index] > -1).any():
            results[f"AP50/{name}"] = mean(ap50[:, :, index])
    return results


def evaluate_pictures(pictures, class_names):
    """Returns the accumulated `COCOeval` of a list of `Picture`."""
    numbered = list(enumerate(pictures, start=1))
    truth = [annotations(i, p.boxes_px, p.labels) for i, p in numbered]
    found = [
        annotations(i, p.detected.boxes_px, p.detected.labels, p.detected.scores)
        for i, p in numbered
    ]
    images = [{"id": i} for i, _ in numbered]
    return coco_evaluation(
        images, class_names, number_annotations(truth), number_annotations(found)
    )


def coco_evaluation(images, class_names, truth, detections):
    """Compares detections with labels, both in COCO format.

    Args:
        images: COCO `images`, each at least with an id.
        class_names: list of strings.
        truth: labels, see `number_annotations`.
        detections: the same, with scores.

    Returns:
        An accumulated `COCOeval`.
    """
    # pycocotools prints its progress; errors it raises.
    with contextlib.redirect_stdout(io.StringIO()):
        labelled, found = COCO(), COCO()
        for coco, numbered in ((labelled, truth), (found, detections)):
            coco.dataset = {
                "images": images,
                "categories": categories(class_names),
                "annotations": numbered,
            }
            coco.createIndex()
        evaluation = COCOeval(labelled, found, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def confusion(pictures, num_classes, *, score_threshold, iou_threshold):
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


def worst_pictures(pictures, number, *, score_threshold, iou_threshold):
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
