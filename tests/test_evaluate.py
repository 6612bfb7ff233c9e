"""Average precision, on cases that can be worked out by hand."""

import numpy as np
import pytest

from yolov3_tf2 import evaluate

NAMES = ["cat", "dog"]
IMAGES = [{"id": 1}, {"id": 2}]


def numbered(*lists):
    return evaluate.number_annotations(lists)


def average_precision(truth, found):
    return evaluate.average_precision(IMAGES, NAMES, truth, found)


TRUTH = numbered(
    evaluate.annotations(1, [[0, 0, 100, 100]], [0]),
    evaluate.annotations(2, [[0, 0, 50, 50], [100, 100, 200, 200]], [0, 1]),
)


def test_perfect_detections():
    found = numbered(
        evaluate.annotations(1, [[0, 0, 100, 100]], [0], [0.9]),
        evaluate.annotations(2, [[0, 0, 50, 50], [100, 100, 200, 200]], [0, 1], [1, 1]),
    )
    results = average_precision(TRUTH, found)
    assert results == pytest.approx(
        {"AP": 1, "AP50": 1, "AP75": 1, "AP50/cat": 1, "AP50/dog": 1}
    )


def test_half_of_one_class_and_none_of_the_other():
    found = numbered(evaluate.annotations(1, [[0, 0, 100, 100]], [0], [0.9]))
    results = average_precision(TRUTH, found)
    # Precision 1 up to recall 0.5: 51 of 101 points.
    assert results["AP50/cat"] == pytest.approx(51 / 101)
    assert results["AP50/dog"] == 0
    assert results["AP50"] == pytest.approx(51 / 202)


def test_the_overlap_decides_at_which_threshold_a_box_counts():
    # 62 of 100 columns: an IoU of 0.62, so right at 0.50, 0.55 and 0.60 alone.
    truth = numbered(evaluate.annotations(1, [[0, 0, 100, 100]], [0]))
    found = numbered(evaluate.annotations(1, [[0, 0, 62, 100]], [0], [0.9]))
    results = average_precision(truth, found)
    assert results["AP50"] == pytest.approx(1) and results["AP75"] == 0
    assert results["AP"] == pytest.approx(0.3)
    assert "AP50/dog" not in results


def test_nothing_found():
    results = average_precision(TRUTH, [])
    assert results["AP"] == results["AP50"] == results["AP50/cat"] == 0


def test_nothing_to_find_is_no_measurement():
    found = numbered(evaluate.annotations(1, [[0, 0, 9, 9]], [0], [1]))
    results = average_precision([], found)
    assert np.isnan(results["AP"]) and np.isnan(results["AP50"])
    assert "AP50/cat" not in results
