"""Matching detections with labels, on cases that can be worked out by hand."""

from evaluated import ONE, TWO, build_evaluated

from yolov3_tf2.evaluation import matching

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
