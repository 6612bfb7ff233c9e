"""Average precision, on cases that can be worked out by hand."""

import json

import numpy as np
import pytest
from evaluated import ONE, TWO, build_evaluated, grid_of_boxes
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from yolov3_tf2.evaluation import coco

NAMES = ["cat", "dog"]


def average_precision(*images):
    evaluation = coco.evaluate_images(list(images), NAMES)
    return coco.average_precision(evaluation, NAMES)


def test_perfect_detections():
    results = average_precision(
        build_evaluated(0, ONE, [([0, 0, 100, 100], 0, 0.9)]),
        build_evaluated(1, TWO, [(box, label, 1) for box, label in TWO]),
    )
    assert results == pytest.approx(
        {"AP": 1, "AP50": 1, "AP75": 1, "AP50/cat": 1, "AP50/dog": 1}
    )


def test_half_of_one_class_and_none_of_the_other():
    results = average_precision(
        build_evaluated(0, ONE, [([0, 0, 100, 100], 0, 0.9)]),
        build_evaluated(1, TWO, []),
    )
    # Precision 1 up to recall 0.5: 51 of 101 points.
    assert results["AP50/cat"] == pytest.approx(51 / 101)
    assert results["AP50/dog"] == 0
    assert results["AP50"] == pytest.approx(51 / 202)


def test_the_overlap_decides_at_which_threshold_a_box_counts():
    # 62 of 100 columns: an IoU of 0.62, right only at 0.50, 0.55 and 0.60.
    results = average_precision(build_evaluated(0, ONE, [([0, 0, 62, 100], 0, 0.9)]))
    assert results["AP50"] == pytest.approx(1) and results["AP75"] == 0
    assert results["AP"] == pytest.approx(0.3)
    assert "AP50/dog" not in results


def test_nothing_found():
    results = average_precision(
        build_evaluated(0, ONE, []), build_evaluated(1, TWO, [])
    )
    assert results["AP"] == results["AP50"] == results["AP50/cat"] == 0


def test_nothing_to_find_is_no_measurement():
    results = average_precision(build_evaluated(0, [], [([0, 0, 9, 9], 0, 1)]))
    assert np.isnan(results["AP"]) and np.isnan(results["AP50"])
    assert "AP50/cat" not in results


@pytest.mark.parametrize("number", [100, 101, 300, 1500])
def test_perfect_detections_of_crowded_images(number):
    boxes = grid_of_boxes(number)
    found = [(box, label, 0.9) for box, label in boxes]
    results = average_precision(build_evaluated(0, boxes, found))
    assert results["AP"] == results["AP50"] == pytest.approx(1)


def test_crowded_images_score_as_pycocotools_with_1000_boxes_does(tmp_path):
    chance = np.random.default_rng(0)
    boxes = grid_of_boxes(300)
    found = [
        ((np.array(box) + chance.normal(0, 2, 4)).tolist(), 0, chance.uniform(0.1, 1))
        for box, _ in boxes * 3
    ]
    image = build_evaluated(0, boxes, found)
    truth = {
        "images": [{"id": 1}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": coco.number_annotations(
            [coco.coco_annotations(1, image.boxes_px, image.labels)]
        ),
    }
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    their_truth = COCO(tmp_path / "truth.json")
    evaluation = COCOeval(
        their_truth,
        their_truth.loadRes(
            coco.coco_annotations(
                1,
                image.detections.boxes_px,
                image.detections.labels,
                image.detections.scores,
            )
        ),
        "bbox",
    )
    evaluation.params.maxDets = [1, 10, 1000]
    evaluation.evaluate()
    evaluation.accumulate()
    theirs = evaluation.eval["precision"][0, :, 0, 0, -1].mean()
    assert average_precision(image)["AP50"] == pytest.approx(theirs, abs=1e-9)
    assert 0.2 < theirs < 0.99


@pytest.mark.parametrize(
    ("num_boxes", "limit"),
    [(0, 100), (100, 100), (101, 1000), (300, 1000), (500, 1000), (501, 2000)],
)
def test_detection_limit(num_boxes, limit):
    assert coco.detection_limit(num_boxes) == limit
