"""What may differ between a training run and the one that it resumes."""

import pytest

from valohai_step import resuming
from yolov3_tf2.data.contents import ImageContents, list_contents
from yolov3_tf2.errors import InputError

DATA = {"train": "8 images, aa", "test": "2 images, bb"}


@pytest.mark.parametrize("before", [None, DATA])
def test_the_same_images_and_checkpoints_without_a_record_of_them(caplog, before):
    resuming.check_data("path", before, DATA)
    assert not caplog.text


def test_other_training_images_are_said(caplog):
    resuming.check_data("path", DATA | {"train": "9 images, cc"}, DATA)
    assert "the training images are not those of the checkpoint" in caplog.text


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (DATA | {"test": "2 images, cc"}, "chosen on other test images"),
        ({"train": DATA["train"], "validation": "1 images, dd"}, "other validation im"),
    ],
)
def test_other_images_to_choose_the_best_epoch_on_are_refused(now, words):
    with pytest.raises(InputError, match=words):
        resuming.check_data("path", DATA, now)


@pytest.mark.parametrize("size", ["416", "320-416"])
def test_ap_at_one_size_can_be_compared(size):
    resuming.check_size("path", {"size": size}, {"size": "416"})
    resuming.check_size("path", {}, {"size": size})


def test_ap_at_another_size_is_refused():
    with pytest.raises(InputError, match="AP at size 416.*size 608.*--size=320-416"):
        resuming.check_size("path", {"size": "320-416"}, {"size": "608"})


def describe(*images):
    return list_contents([ImageContents(*image) for image in images]).describe()


def test_a_description_differs_where_images_or_boxes_do():
    one = ("a", 7, [0, 1], [(0.1, 0.2), (0.3, 0.4)])
    two = ("b", 9, [1], [(0.5, 0.6)])
    same = {describe(one, two), describe(two, one)}
    assert len(same) == 1 and "2 images, " in same.pop()
    others = [
        describe(one),
        describe(one, two),
        describe(one, ("b", 8, [1], [(0.5, 0.6)])),
        describe(one, ("b", 9, [0], [(0.5, 0.6)])),
        describe(one, ("b", 9, [1], [(0.5, 0.7)])),
        describe(one, ("b", 9, [1, 1], [(0.5, 0.6)] * 2)),
    ]
    assert len(set(others)) == len(others)
