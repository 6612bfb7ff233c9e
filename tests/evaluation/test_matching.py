"""Matching detections with labels, on cases that can be worked out by hand."""

import pytest
from evaluated import ONE, TWO, build_evaluated, grid_of_boxes

from yolov3_tf2.evaluation import coco, matching

NAMES = ["cat", "dog"]

MIXED = [
    build_evaluated(0, ONE, [([0, 0, 90, 100], 0, 0.9)]),  # right
    # A cat detected as a dog, a cat where none is, a dog below the score threshold.
    build_evaluated(
        1,
        TWO,
        [
            ([0, 0, 50, 45], 1, 0.8),
            ([300, 300, 350, 350], 0, 0.7),
            ([100, 100, 200, 200], 1, 0.2),
        ],
    ),
    build_evaluated(2, TWO, [([0, 0, 50, 50], 0, 0.9)]),  # a dog missed
    build_evaluated(3, [], []),
]


def test_confusion():
    counts = matching.confusion_counts(MIXED, 2, score_threshold=0.3)
    # Labelled, then detected; the last row and column are the background.
    assert counts.tolist() == [[2, 1, 0], [0, 0, 2], [1, 0, 0]]


def test_the_best_overlap_is_paired_first():
    found = [([0, 0, 60, 100], 1, 0.9), ([0, 0, 95, 100], 0, 0.4)]
    counts = matching.confusion_counts(
        [build_evaluated(0, ONE, found)], 2, score_threshold=0.3
    )
    assert counts.tolist() == [[1, 0, 0], [0, 0, 0], [0, 1, 0]]


def test_worst_images():
    worst = matching.worst_images(MIXED, 3, score_threshold=0.3)
    assert [image.number for image in worst] == [1, 2]  # The others have no error.
    worst = matching.worst_images(MIXED, 1, score_threshold=0.3)
    assert [image.number for image in worst] == [1]


def test_thresholds_are_used():
    counts = matching.confusion_counts(MIXED[1:2], 2, score_threshold=0.1)
    assert counts.tolist() == [[0, 1, 0], [0, 1, 0], [1, 0, 0]]
    # The only overlap of a whole box is that of the dog; the others are 0.9.
    counts = matching.confusion_counts(
        MIXED[:2], 2, score_threshold=0.3, iou_threshold=0.95
    )
    assert counts.tolist() == [[0, 0, 2], [0, 0, 1], [2, 1, 0]]


def best_f1(*images):
    return matching.best_f1(coco.evaluate_images(list(images), NAMES))


def test_the_best_f1_by_hand():
    boxes = grid_of_boxes(4)
    far = [300, 300, 310, 310]
    scores = [0.9, 0.8, 0.6, 0.1]
    found = [(box, 0, s) for (box, _), s in zip(boxes, scores, strict=True)]
    found += [(far, 0, 0.4), (far, 0, 0.3), ([500, 500, 509, 509], 0, 0.2)]
    # Scores in order: three right, three wrong, one right. F1 after three: 6 / 7; after
    # all seven: 8 / 11. The threshold is between 0.6 and 0.4.
    f1, threshold = best_f1(build_evaluated(0, boxes, found))
    assert f1 == pytest.approx(6 / 7) and threshold == pytest.approx(0.5)


def test_the_best_f1_counts_all_images_and_classes():
    # The label is wrong in the second image.
    f1, threshold = best_f1(
        build_evaluated(0, ONE, [(ONE[0][0], 0, 0.9)]),
        build_evaluated(1, TWO, [(TWO[0][0], 1, 0.8), (TWO[1][0], 1, 0.7)]),
        build_evaluated(2, [], [(TWO[0][0], 1, 0.06)]),
    )
    assert f1 == pytest.approx(2 * 2 / (3 + 3))
    assert threshold == pytest.approx((0.7 + 0.06) / 2)


def test_equal_scores_cannot_be_told_apart():
    boxes = grid_of_boxes(2)
    found = [(box, 0, 0.5) for box, _ in boxes] + [([300, 300, 310, 310], 0, 0.5)] * 3
    f1, threshold = best_f1(build_evaluated(0, boxes, found))
    assert f1 == pytest.approx(2 * 2 / (5 + 2)) and threshold < 0.5


def test_no_threshold_without_a_correct_box_of_a_score_worth_showing():
    low = [(ONE[0][0], 0, matching.MIN_SHOWN_SCORE - 0.01)]
    for image in (
        build_evaluated(0, ONE, []),
        build_evaluated(0, ONE, [([0, 0, 9, 9], 0, 1)]),
        build_evaluated(0, [], [([0, 0, 9, 9], 0, 1)]),
        build_evaluated(0, ONE, low),
    ):
        assert best_f1(image) == (0.0, None)
