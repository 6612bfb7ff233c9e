"""The figures: their curves and numbers, Korean class names, and odd cases."""

import io

import numpy as np
import pytest
from evaluated import build_evaluated
from PIL import Image

from yolov3_tf2.evaluation import plots

NAMES = ["자동차", "dog"]
IMAGES = [
    build_evaluated(0, [([0, 0, 50, 50], 0)], [([0, 0, 50, 50], 0, 0.9)]),
    build_evaluated(1, [([9, 9, 60, 60], 1)], [([9, 9, 60, 60], 0, 0.8)]),
    build_evaluated(2, [], []),
]


def render(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer)
    return Image.open(buffer)


def test_curves():
    history = [
        {"epoch": 0, "val_loss": 9, "AP": 0.1, "AP50": 0.2},
        {"epoch": 1, "loss": 8, "loss_box": 3, "val_loss": 7, "AP": 0.2, "AP50": 0.3},
        {"epoch": 2, "loss": 6, "loss_box": 2, "val_loss": 6},  # AP not measured
    ]
    figure = plots.curves(history, "validation")
    lines = {
        line.get_label(): line.get_xydata().tolist()
        for axis in figure.axes
        for line in axis.lines
    }
    assert lines["loss"] == [[1, 8], [2, 6]]
    assert lines["val_loss"] == [[0, 9], [1, 7], [2, 6]]
    assert lines["AP50"] == [[0, 0.2], [1, 0.3]]
    assert "AP75" not in lines
    titles = [axis.get_title() for axis in figure.axes]
    assert "accuracy, validation images" in titles
    render(figure)


def test_precision_over_recall():
    figure = plots.precision_recall(IMAGES, NAMES)
    (axis,) = figure.axes
    curves = {line.get_label(): line.get_ydata() for line in axis.lines}
    # The car is found before the wrong one: AP50 of 1. No dog is found: 0.
    assert set(curves) == {"자동차 1.00", "dog 0.00"}
    np.testing.assert_allclose(curves["자동차 1.00"], 1)
    render(figure)


def test_confusion_matrix():
    figure = plots.confusion_matrix(IMAGES, NAMES, 0.3)
    (axis,) = figure.axes
    ticks = [t.get_text() for t in axis.get_yticklabels()]
    assert ticks == ["자동차", "dog", "background"]
    assert [(t.get_position(), t.get_text()) for t in axis.texts] == [
        ((0, 0), "1"),
        ((0, 1), "1"),
    ]
    render(figure)


@pytest.mark.filterwarnings("error")
def test_the_font_has_korean_letters():
    # matplotlib warns about letters that no font has.
    render(plots.confusion_matrix(IMAGES, NAMES, 0.3))


def test_no_labels_and_no_detections():
    empty = [build_evaluated(0, [], [])]
    render(plots.precision_recall(empty, NAMES))
    render(plots.confusion_matrix(empty, NAMES, 0.3))
    render(plots.curves([], "test"))
