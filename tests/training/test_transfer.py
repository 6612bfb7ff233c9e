"""Whether pretrained layers stay frozen: decided by the amount of data."""

import pytest

from yolov3_tf2.training import transfer


@pytest.mark.parametrize(
    ("num_labelled", "num_classes", "all_pretrained", "few"),
    [
        (80, 5, True, True),  # 80 COCO photographs
        (40, 1, True, False),  # photographs of raccoons, named "cat"
        (160, 1, True, False),
        (59, 2, True, True),
        (60, 2, True, False),
        (1, 1, False, False),  # A new class has to be learned, whatever there is.
    ],
)
def test_few_images_of_pretrained_classes(
    caplog, num_labelled, num_classes, all_pretrained, few
):
    caplog.set_level("INFO")
    found = transfer.are_few_images(all_pretrained, num_labelled, num_classes)
    assert found == few
    if all_pretrained:
        decision = "fewer than 30: pretrained layers stay" if few else "enough to train"
        per_class = f"{num_labelled / num_classes:.0f} labelled training images"
        assert f"{per_class} per class are {decision}" in caplog.text


@pytest.mark.parametrize(
    ("freeze_epochs", "few", "expected"),
    [(-1, True, 15), (-1, False, 3), (0, True, 0), (7, False, 7)],
)
def test_the_number_of_frozen_epochs(freeze_epochs, few, expected):
    values = {"freeze_epochs": freeze_epochs, "epochs": 15}
    assert transfer.count_frozen_epochs(values, few) == expected
