"""Whether pretrained layers stay frozen: decided by the amount of data."""

import pytest

from yolov3_tf2.training import transfer

NAMES = ["cat", "dog"]


@pytest.mark.parametrize(
    ("counts", "all_pretrained", "few"),
    [
        ((63, 63), True, True),  # 80 COCO photographs
        ((171, 171), True, False),  # 160 photographs of raccoons, named "cat"
        ((99, 100), True, True),
        ((0, 200), True, False),
        ((1, 1), False, False),  # A new class has to be learned, whatever there is.
    ],
)
def test_few_boxes_of_pretrained_classes(caplog, counts, all_pretrained, few):
    caplog.set_level("INFO")
    boxes = dict(zip(NAMES, counts, strict=True))
    assert transfer.are_few_boxes(all_pretrained, boxes) == few
    if all_pretrained:
        reason = "fewer than 100: pretrained layers are frozen" if few else "enough to"
        assert f"{sum(counts) / 2:.0f} training boxes per class" in caplog.text
        assert reason in caplog.text


@pytest.mark.parametrize(
    ("freeze_epochs", "few", "expected"),
    [(-1, True, 15), (-1, False, 3), (0, True, 0), (7, False, 7)],
)
def test_the_number_of_frozen_epochs(freeze_epochs, few, expected):
    values = {"freeze_epochs": freeze_epochs, "epochs": 15}
    assert transfer.count_frozen_epochs(values, few) == expected
