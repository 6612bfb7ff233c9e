"""Means of losses over images, by hand."""

from yolov3_tf2.training.means import Means


def test_sums_are_divided_by_the_number_of_images():
    means = Means()
    means.add({"loss": 6.0, "unassigned": 1.0, "images": 4.0})
    means.add({"loss": 3.0, "unassigned": 2.0, "images": 2.0})
    assert means.images == 6
    assert means.last == {"loss": 3.0, "unassigned": 2.0, "images": 2.0}
    assert means.results() == {"loss": 1.5, "unassigned": 3.0}


def test_no_images_have_a_mean_of_zero():
    means = Means()
    means.add({"loss": 0.0, "images": 0.0})
    assert means.results() == {"loss": 0.0}
