"""Builds the labels and detections of images by hand."""

import numpy as np

from yolov3_tf2.evaluation.coco import EvaluatedImage
from yolov3_tf2.inference.detector import Detections


def build_detections(found):
    """Returns `Detections` of a list of (box, label, score)."""
    boxes, labels, scores = (
        np.array([row[i] for row in found], float) for i in range(3)
    )
    return Detections(boxes.reshape(-1, 4), scores, labels.astype(int))


def build_evaluated(number, labelled, found):
    """Returns an `EvaluatedImage` of lists of (box, label) and (box, label, score)."""
    return EvaluatedImage(
        number,
        np.array([box for box, _ in labelled], float).reshape(-1, 4),
        np.array([label for _, label in labelled], int),
        build_detections(found),
    )


ONE = [([0, 0, 100, 100], 0)]
TWO = [([0, 0, 50, 50], 0), ([100, 100, 200, 200], 1)]


def grid_of_boxes(number, side=10):
    """Returns (box, label) pairs whose boxes do not touch each other."""
    return [
        ([x, y, x + side, y + side], 0)
        for x, y in ((i % 50 * 12, i // 50 * 12) for i in range(number))
    ]
