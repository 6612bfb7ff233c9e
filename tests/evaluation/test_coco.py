"""Average precision, on cases that can be worked out by hand."""

import numpy as np
import pytest

from yolov3_tf2.evaluation import coco, matching
from yolov3_tf2.evaluation.coco import EvaluatedImage
from yolov3_tf2.inference.detector import Detections

NAMES = ["cat", "dog"]


def picture(number, labelled, found):
    """A picture of (box, label) that are labelled and (box, label, score) found."""
    boxes, labels, scores = (
        np.array([row[i] for row in found], float) for i in range(3)
    )
    return EvaluatedImage(
        number,
        np.array([box for box, _ in labelled], float).reshape(-1, 4),
        np.array([label for _, label in labelled], int),
        Detections(boxes.reshape(-1, 4), scores, labels.astype(int)),
    )


ONE = [([0, 0, 100, 100], 0)]
TWO = [([0, 0, 50, 50], 0), ([100, 100, 200, 200], 1)]


def average_precision(*pictures):
    evaluation = coco.evaluate_images(list(pictures), NAMES)
    return coco.average_precision(evaluation, NAMES)


def test_perfect_detections():
    results = average_precision(
        picture(0, ONE, [([0, 0, 100, 100], 0, 0.9)]),
        picture(1, TWO, [(box, label, 1) for box, label in TWO]),
    )
    assert results == pytest.approx(
        {"AP": 1, "AP50": 1, "AP75": 1, "AP50/cat": 1, "AP50/dog": 1}
    )


def test_half_of_one_class_and_none_of_the_other():
    results = average_precision(
        picture(0, ONE, [([0, 0, 100, 100], 0, 0.9)]), picture(1, TWO, [])
    )
    # Precision 1 up to recall 0.5: 51 of 101 points.
    assert results["AP50/cat"] == pytest.approx(51 / 101)
    assert results["AP50/dog"] == 0
    assert results["AP50"] == pytest.approx(51 / 202)


def test_the_overlap_decides_at_which_threshold_a_box_counts():
    # 62 of 100 columns: an IoU of 0.62, so right at 0.50, 0.55 and 0.60 alone.
    results = average_precision(picture(0, ONE, [([0, 0, 62, 100], 0, 0.9)]))
    assert results["AP50"] == pytest.approx(1) and results["AP75"] == 0
    assert results["AP"] == pytest.approx(0.3)
    assert "AP50/dog" not in results


def test_nothing_found():
    results = average_precision(picture(0, ONE, []), picture(1, TWO, []))
    assert results["AP"] == results["AP50"] == results["AP50/cat"] == 0


def test_nothing_to_find_is_no_measurement():
    results = average_precision(picture(0, [], [([0, 0, 9, 9], 0, 1)]))
    assert np.isnan(results["AP"]) and np.isnan(results["AP50"])
    assert "AP50/cat" not in results


THRESHOLDS = {"score_threshold": 0.3, "iou_threshold": 0.5}
MIXED = [
    picture(0, ONE, [([0, 0, 90, 100], 0, 0.9)]),  # right
    # A cat found as a dog, a dog missed, a cat where none is, a score too low.
    picture(
        1,
        TWO,
        [
            ([0, 0, 50, 45], 1, 0.8),
            ([300, 300, 350, 350], 0, 0.7),
            ([100, 100, 200, 200], 1, 0.2),
        ],
    ),
    picture(2, TWO, [([0, 0, 50, 50], 0, 0.9)]),  # a dog missed
    picture(3, [], []),
]


def test_confusion():
    counts = matching.confusion_counts(MIXED, 2, **THRESHOLDS)
    # Labelled then found; the last row and column are the background.
    assert counts.tolist() == [[2, 1, 0], [0, 0, 2], [1, 0, 0]]


def test_the_best_overlap_is_paired_first():
    found = [([0, 0, 60, 100], 1, 0.9), ([0, 0, 95, 100], 0, 0.4)]
    counts = matching.confusion_counts([picture(0, ONE, found)], 2, **THRESHOLDS)
    assert counts.tolist() == [[1, 0, 0], [0, 0, 0], [0, 1, 0]]


def test_worst_pictures():
    worst = matching.worst_images(MIXED, 3, **THRESHOLDS)
    assert [p.number for p in worst] == [1, 2]  # The others have no error.
    assert [p.number for p in matching.worst_images(MIXED, 1, **THRESHOLDS)] == [1]
