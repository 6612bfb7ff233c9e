"""What to label next: the score of an image by hand, and the order of images."""

import csv

import numpy as np
import pytest

from yolov3_tf2.inference import review
from yolov3_tf2.inference.detector import Detections

NAMES = ["car", "book"]
COMMON = np.zeros(2)


def build_detections(*boxes):
    """Returns `Detections` of (score, label, xyxy), the highest score first."""
    boxes = sorted(boxes, key=lambda box: -box[0])
    places = np.array([box[2] for box in boxes], "float32").reshape(-1, 4)
    scores = np.array([box[0] for box in boxes], "float32")
    return Detections(places, scores, np.array([box[1] for box in boxes], "int64"))


def apart(number):
    """Returns a box that overlaps no box of another number."""
    return (100 * number, 0, 100 * number + 50, 50)


def rate(*boxes, rarities=COMMON, name="a.jpg"):
    image = (name, build_detections(*boxes), len(boxes))
    (row,) = review.rate_images([image], NAMES, rarities)
    return row


def test_uncertainty_by_hand():
    row = rate((0.5, 0, apart(0)), (0.75, 0, apart(1)), (0.9, 0, apart(2)))
    # 1 - |2s - 1| is 1, 0.5 and 0.2; the second counts half, the third a quarter.
    assert row.uncertainty == pytest.approx(1 + 0.5 / 2 + 0.2 / 4, abs=1e-4)
    assert row.score == row.uncertainty and row.boxes == 3
    assert row.reason == "uncertain: car 0.50, car 0.75"


def test_conflict_by_hand():
    over = [(0, 0, 100, 100), (0, 0, 100, 80)]  # IoU 0.8
    row = rate((0.95, 0, over[0]), (0.9, 1, over[1]))
    assert row.conflict == pytest.approx(0.9)
    assert row.reason == "two classes for one object: car 0.95, book 0.90"
    # No conflict: boxes of the same class, or that hardly overlap.
    assert rate((0.95, 0, over[0]), (0.9, 0, over[1])).conflict == 0
    assert rate((0.95, 0, over[0]), (0.9, 1, (0, 60, 100, 160))).conflict == 0


def test_rarity_by_hand():
    # One box is added to each class: 27 and 3, with a mean of 15.
    rarities = review.class_rarity(NAMES, {"car": 26, "book": 2})
    np.testing.assert_allclose(rarities, [0, 1 - np.sqrt(3 / 15)])
    row = rate((0.9, 1, apart(0)), (0.9, 0, apart(1)), rarities=rarities)
    assert row.rarity == pytest.approx(0.9 * (1 - np.sqrt(3 / 15)), abs=1e-4)
    assert "rare in training: book 0.90" in row.reason
    assert review.class_rarity(NAMES, None).tolist() == [0, 0]
    assert review.class_rarity(NAMES, {"car": 0, "book": 0}).tolist() == [0, 0]
    assert review.class_rarity(["car"], {"car": 5}).tolist() == [0]


def test_no_boxes_rank_between_an_uncertain_and_a_certain_box():
    empty, uncertain, certain = (
        rate(),
        rate((0.4, 0, apart(0))),
        rate((0.97, 0, apart(0))),
    )
    assert (empty.score, empty.reason) == (0.5, "nothing found")
    assert certain.score < empty.score < uncertain.score
    assert certain.reason == "confident in all detections"
    # Boxes below the minimum score are ignored.
    assert rate((0.09, 0, apart(0))).score == 0.5


def test_a_crowd_of_easy_boxes_is_worth_less_than_a_hard_one():
    crowd = rate(*[(0.9, 0, apart(i)) for i in range(100)])
    assert crowd.score < rate((0.5, 0, apart(0))).score


def test_the_score_of_an_image_depends_on_no_other_image():
    chance = np.random.default_rng(0)
    images = [
        (
            f"{i}.jpg",
            build_detections(
                *(
                    (chance.random(), chance.integers(2), (*p, *(p + 40)))
                    for p in chance.integers(0, 60, (i, 2))
                )
            ),
            i,
        )
        for i in range(12)
    ]
    rarities = np.array([0.0, 0.5])
    together = review.rate_images(images, NAMES, rarities)
    apart = [review.rate_images([x], NAMES, rarities)[0] for x in images]
    assert together == apart
    assert review.rank_rows(together) == review.rank_rows(together[::-1])
    ranked = [row.score for row in review.rank_rows(together)]
    assert ranked == sorted(ranked, reverse=True)


def test_the_csv_file(tmp_path):
    names = ['a,"b".jpg', "여러 줄\n이름.jpg", "c.jpg"]
    rows = [
        rate((s, 0, apart(0)), name=n)
        for s, n in zip((0.9, 0.5, 0.7), names, strict=True)
    ]
    review.write_csv(tmp_path / "review.csv", review.rank_rows(rows))
    with (tmp_path / "review.csv").open(encoding="utf-8", newline="") as file:
        read = list(csv.DictReader(file))
    assert [row["file_name"] for row in read] == [names[1], names[2], names[0]]
    assert [row["rank"] for row in read] == ["1", "2", "3"]
    assert read[0]["score"] == "1.0000" and read[0]["boxes"] == "1"
