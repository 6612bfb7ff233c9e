"""The COCO format, and average precision computed by pycocotools."""

import contextlib
import io
import itertools
from collections import Counter
from typing import NamedTuple

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from yolov3_tf2.inference.detector import Detections

# The limit of COCO's own evaluation, per image and class.
COCO_MAX_BOXES = 100
# Thresholds for boxes that enter an evaluation. A precision curve needs low scores too,
# lower than a person would look at.
THRESHOLDS = {"score_threshold": 0.001, "iou_threshold": 0.5}


class EvaluatedImage(NamedTuple):
    """The labels and the detections of one image.

    Attributes:
        number: index of the image in its record files.
        boxes_px: `[boxes, 4]` xyxy, pixels; the true boxes.
        labels: `[boxes]` class indices of the true boxes.
        detections: `detector.Detections`.
    """

    number: int
    boxes_px: np.ndarray
    labels: np.ndarray
    detections: Detections


def categories(class_names):
    """Returns the COCO categories of a list of class names; ids start at 1."""
    return [
        {"id": number, "name": name} for number, name in enumerate(class_names, start=1)
    ]


def coco_annotations(image_id, boxes_px, labels, scores=None):
    """Returns the COCO annotations of one image, without ids.

    Args:
        image_id: id of the image.
        boxes_px: `[boxes, 4]` xyxy, pixels.
        labels: `[boxes]` class indices.
        scores: `[boxes]` in [0, 1] for detections, None for true boxes.
    """
    annotations = []
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
        annotations.append(annotation)
    return annotations


def number_annotations(lists):
    """Returns one list of the annotations of several lists, with ids from 1."""
    joined = itertools.chain.from_iterable(lists)
    return [{"id": number, **annotation} for number, annotation in enumerate(joined, 1)]


def detection_limit(num_boxes):
    """Returns how many detections of an image to keep, given its true boxes.

    Args:
        num_boxes: the largest number of true boxes in an image of the data.

    Returns:
        COCO's 100 where no image has more boxes. Otherwise a multiple of 1,000 that is
        at least twice as large, so that wrong detections of higher scores do not crowd
        out the right ones.

    Example:
        >>> [detection_limit(number) for number in (3, 100, 101, 600)]
        [100, 100, 1000, 2000]
    """
    if num_boxes <= COCO_MAX_BOXES:
        return COCO_MAX_BOXES
    return -(-2 * num_boxes // 1000) * 1000


def average_precision(evaluation, class_names):
    """Reads average precision from a `COCOeval`.

    Args:
        evaluation: the result of `coco_evaluation` or `evaluate_images`.
        class_names: list of strings.

    Returns:
        A dict with `AP` (mean over IoU 0.50 to 0.95), `AP50`, `AP75`, and `AP50/<name>`
        for each class that has true boxes. The first three are NaN if no class has.
    """
    # [IoU thresholds, recalls, classes, areas, max detections]; -1 for classes
    # without true boxes.
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


def evaluate_images(images, class_names):
    """Returns the accumulated `COCOeval` of a list of `EvaluatedImage`."""
    numbered = list(enumerate(images, start=1))
    truth = [coco_annotations(i, image.boxes_px, image.labels) for i, image in numbered]
    detections = [
        coco_annotations(i, found.boxes_px, found.labels, found.scores)
        for i, found in ((i, image.detections) for i, image in numbered)
    ]
    return coco_evaluation(
        [{"id": i} for i, _ in numbered],
        class_names,
        number_annotations(truth),
        number_annotations(detections),
    )


def coco_evaluation(images, class_names, truth, detections):
    """Compares detections with true boxes, both in COCO format.

    Args:
        images: list of COCO images; only their ids are used.
        class_names: list of strings.
        truth: list of COCO annotations, see `number_annotations`.
        detections: list of COCO annotations with scores. All of them count: COCO's
            limit of 100 for each image and class is raised where there are more.

    Returns:
        An accumulated `COCOeval`.
    """
    # pycocotools prints its progress. Errors are raised and not hidden by this.
    with contextlib.redirect_stdout(io.StringIO()):
        sides = []
        for annotations in (truth, detections):
            side = COCO()
            side.dataset = {
                "images": images,
                "categories": categories(class_names),
                "annotations": annotations,
            }
            side.createIndex()
            sides.append(side)
        evaluation = COCOeval(*sides, "bbox")
        per_image = Counter(each["image_id"] for each in detections)
        most = max([COCO_MAX_BOXES, *per_image.values()])
        evaluation.params.maxDets = [1, 10, most]
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation
