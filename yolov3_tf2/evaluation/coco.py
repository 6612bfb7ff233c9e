"""COCO average precision through pycocotools, and the COCO format that it reads."""

import contextlib
import io
from typing import NamedTuple

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from yolov3_tf2.inference.detector import Detections


class EvaluatedImage(NamedTuple):
    """What is true of a picture and what was found in it.

    Attributes:
        number: the picture's place in its files.
        boxes_px: `[boxes, 4]` xyxy, pixels.
        labels: `[boxes]` class indices.
        detected: `detector.Detections`.
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


def coco_annotations(image_id, boxes_px, labels, scores=None):
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


def evaluate_images(pictures, class_names):
    """Returns the accumulated `COCOeval` of a list of `Picture`."""
    numbered = list(enumerate(pictures, start=1))
    truth = [coco_annotations(i, p.boxes_px, p.labels) for i, p in numbered]
    found = [
        coco_annotations(i, p.detected.boxes_px, p.detected.labels, p.detected.scores)
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
