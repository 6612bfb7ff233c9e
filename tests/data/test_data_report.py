"""The report on data: each problem by hand, and none where there is none."""

import numpy as np
import pytest

from yolov3_tf2.data import data_report
from yolov3_tf2.data.contents import ImageContents, list_contents
from yolov3_tf2.network.variants import VARIANTS

NAMES = ["cat", "dog"]
ANCHORS = VARIANTS["yolov3"].anchors


def split(*images, start=0, size=(0.2, 0.2)):
    """The contents of images, each a list of labels or of (label, size)."""
    return list_contents(
        [
            ImageContents(
                f"ds/{start + number}.jpg",
                start + number,
                [each[0] if isinstance(each, tuple) else each for each in boxes],
                [each[1] if isinstance(each, tuple) else size for each in boxes],
            )
            for number, boxes in enumerate(images)
        ]
    )


GOOD = [[0, 1]] * 10
TEST = split([0, 1], start=10_000)


def problems(train, size=416, names=NAMES, anchors=ANCHORS, **others):
    splits = {"train": train, "test": TEST} | others
    return data_report.find_problems(splits, names, size, anchors=anchors)


def test_good_data_has_no_problem():
    train, validation = split(*GOOD), split([0], [1], start=20_000)
    assert problems(train) == problems(train, validation=validation) == []


def test_small_boxes():
    # Objects of 8 pixels in images of 1920x1080.
    train = split(*GOOD, size=(8 / 1920, 8 / 1920))
    assert problems(train) == [
        "100% of the training boxes are under 4 pixels at size 416 (median 1.7): the "
        "network hardly finds them; train with size 1920, or cut the images into tiles "
        "of 1/5 of their longer side"
    ]
    # What the line advises helps.
    assert problems(train, size=1920) == []
    assert problems(split(*GOOD, size=(5 * 8 / 1920,) * 2)) == []


def test_a_few_small_boxes_are_no_problem():
    tiny = (0, (0.009, 0.009))
    assert problems(split(*GOOD * 10, [tiny] * 22, [0] * 100)) == []
    (line,) = problems(split(*GOOD * 10, [tiny] * 23))
    assert line.startswith("10% of the training boxes are under 4 pixels at size 416")


def test_a_class_of_small_boxes():
    train = split(*GOOD * 10, [(1, (0.005, 0.005))] * 2, *[[0] * 10] * 100)
    assert problems(train) == []
    names, small = [*NAMES, "ball"], [[(2, (0.005, 0.005))] * 10]
    train = split(*GOOD * 10, *small)
    (line,) = problems(train, names=names, test=split([0, 1, 2], start=10_000))
    assert line.startswith("most training boxes of ball are under 4 pixels at size 416")
    assert "(median 2.1)" in line and "train with size 1600" in line


def test_tiles_alone_where_no_size_is_large_enough():
    (line,) = problems(split(*GOOD, size=(0.001, 0.001)))
    assert "size 416" in line and "train with size" not in line
    assert line.endswith("; cut the images into tiles of 1/20 of their longer side")


def test_anchors_that_do_not_fit():
    # 6 pixels: over four times smaller than the smallest of these anchors, 25 pixels.
    train = split(*GOOD, size=(6 / 416, 6 / 416))
    (line,) = problems(train, anchors=(((25, 25), (50, 50)), ((100, 100),)))
    assert line == (
        "the anchors fit 0% of the training boxes at size 416 (best possible recall; "
        "mean best IoU 0.06): the others are over 4 times wider, narrower, higher or "
        "lower than every anchor; train with size 448, where they fit 100%"
    )
    (line,) = problems(train, anchors=(((200, 200),),))
    assert line.endswith(
        "start from weights with anchors for them (input cfg of weights)"
    )
    # Nothing is known about them in convert.
    assert problems(train, anchors=None) == []


def test_anchors_are_not_blamed_for_boxes_that_nobody_sees():
    (line,) = problems(split(*GOOD, size=(0.002, 0.002)))
    assert "anchors" not in line


def test_one_line_at_most_advises_a_size():
    # 3 and 5 pixels: both are over four times smaller than each of these anchors.
    boxes = [(0, (3 / 416, 3 / 416)), (1, (5 / 416, 5 / 416))]
    anchors = (((25, 25), (50, 50)),)
    (line,) = problems(split(*[boxes] * 20), anchors=anchors)
    assert "under 4 pixels" in line and "the anchors fit" not in line


def test_classes_with_few_boxes():
    assert problems(split(*[[0, 1]] * 9, [0]), names=[*NAMES, "cow"]) == [
        "classes with fewer than 10 training boxes: dog (9), cow (0); label more "
        "objects of them, or remove the classes"
    ]


def test_many_classes_are_not_all_named():
    names = [f"c{number}" for number in range(30)]
    (line,) = problems(split(*GOOD), names=names)
    assert "c2 (0), c3 (0), " in line and "c11 (0), and 18 more; " in line


def test_classes_in_one_split_only():
    assert problems(split(*[[0]] * 10)) == [
        "classes without a box in the training images: dog: the network cannot learn "
        "them; put some images of them into the split train"
    ]
    train, validation = split(*GOOD), split([1], start=20_000)
    lines = problems(train, validation=validation, test=split([0], start=10_000))
    assert set(lines) == {
        "classes without a box in the validation images: cat: their AP cannot be "
        "measured there; put some images of them into the split validation",
        "classes without a box in the test images: dog: their AP cannot be measured "
        "there; put some images of them into the split test",
    }


def test_splits_without_boxes():
    assert problems(split(*GOOD), test=split([], [], start=10_000)) == [
        "no test image has a box: AP cannot be measured on them; put images with "
        "objects into the split test"
    ]
    (line,) = problems(split([], []))
    assert line.startswith("no training image has a box: there is nothing to learn")


def test_copies():
    train = split(*GOOD)
    test = split([0, 1], [0], [1], start=8)  # The first two are also for training.
    assert problems(train, test=test) == [
        "2 of 3 test images are also training images, byte for byte (such as "
        "ds/8.jpg): AP will be too high; remove the copies, or put them "
        "into the same split"
    ]
    test = test._replace(source_ids=["ds/a.jpg", "ds/b.jpg", "ds/c.jpg"])
    (line,) = problems(train, test=test)
    assert "(such as ds/8.jpg and ds/a.jpg)" in line
    lines = problems(train, validation=train, test=test)
    assert [line.split(",")[0] for line in lines] == [
        "10 of 10 validation images are also training images",
        "2 of 3 test images are also training images",
        "2 of 3 test images are also validation images",
    ]


def test_copies_within_a_split_are_no_problem():
    train = split(*GOOD)
    assert problems(train._replace(hashes=np.zeros_like(train.hashes))) == []


def test_description():
    described = data_report.describe_contents(
        {"train": split([0, 1], [1], size=(0.5, 0.125)), "test": split([])}, NAMES
    )
    assert described == {
        "train": {
            "images": 2,
            "boxes": {"cat": 1, "dog": 2},
            "max_boxes": 2,
            "box_sides": dict.fromkeys(("5", "25", "50", "75", "95"), 0.25),
        },
        "test": {
            "images": 1,
            "boxes": {"cat": 0, "dog": 0},
            "max_boxes": 0,
            "box_sides": {},
        },
    }


@pytest.mark.parametrize("number", [99_999, 100_000, 100_001, 250_000])
def test_a_sample_of_many_boxes(number, monkeypatch):
    seen = []
    real = data_report.anchor_fit.best_possible_recall
    monkeypatch.setattr(
        data_report.anchor_fit,
        "best_possible_recall",
        lambda sizes, anchors: seen.append(len(sizes)) or real(sizes, anchors),
    )
    assert problems(split([0] * (number - 10), [1] * 10)) == []
    assert 50_000 <= seen[0] <= 100_000
