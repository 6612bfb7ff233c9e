"""The plots: what they say, in any script, and that they say it of odd cases too."""

import io

import numpy as np
import pytest
from PIL import Image

from yolov3_tf2.evaluation import draw, plots
from yolov3_tf2.evaluation.coco import EvaluatedImage
from yolov3_tf2.inference.detector import Detections

NAMES = ["자동차", "dog"]


def picture(number, boxes, labels, found=(), scores=(), found_labels=()):
    return EvaluatedImage(
        number,
        np.array(boxes, float).reshape(-1, 4),
        np.array(labels, int),
        Detections(
            np.array(found, float).reshape(-1, 4),
            np.array(scores, float),
            np.array(found_labels, int),
        ),
    )


PICTURES = [
    picture(0, [[0, 0, 50, 50]], [0], [[0, 0, 50, 50]], [0.9], [0]),
    picture(1, [[9, 9, 60, 60]], [1], [[9, 9, 60, 60]], [0.8], [0]),
    picture(2, [], []),
]


def texts(figure):
    return [t.get_text() for t in figure.findobj(lambda x: hasattr(x, "get_text"))]


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
    figure = plots.curves(history)
    lines = {
        line.get_label(): line.get_xydata().tolist()
        for axis in figure.axes
        for line in axis.lines
    }
    assert lines["loss"] == [[1, 8], [2, 6]]
    assert lines["val_loss"] == [[0, 9], [1, 7], [2, 6]]
    assert lines["AP50"] == [[0, 0.2], [1, 0.3]]
    assert "AP75" not in lines
    render(figure)


def test_precision_over_recall():
    figure = plots.precision_recall(PICTURES, NAMES)
    (axis,) = figure.axes
    curves = {line.get_label(): line.get_ydata() for line in axis.lines}
    # One car found first, one where a dog is: AP50 of 1; no dog found: 0.
    assert set(curves) == {"자동차 1.00", "dog 0.00"}
    np.testing.assert_allclose(curves["자동차 1.00"], 1)
    render(figure)


def test_confusion_matrix():
    figure = plots.confusion_matrix(PICTURES, NAMES)
    (axis,) = figure.axes
    ticks = [t.get_text() for t in axis.get_yticklabels()]
    assert ticks == ["자동차", "dog", "background"]
    assert [(t.get_position(), t.get_text()) for t in axis.texts] == [
        ((0, 0), "1"),
        ((0, 1), "1"),
    ]
    render(figure)


@pytest.mark.filterwarnings("error")
def test_class_names_in_korean_have_letters():
    # matplotlib warns of a letter that no font has.
    render(plots.confusion_matrix(PICTURES, NAMES))


def test_nothing_labelled_and_nothing_found():
    empty = [picture(0, [], [])]
    for plot in (plots.precision_recall, plots.confusion_matrix):
        render(plot(empty, NAMES))
    render(plots.curves([]))


def test_batch_mosaic():
    images = np.zeros((3, 64, 64, 3), "f") + 0.25
    boxes = np.zeros((3, 2, 4), "f")
    boxes[1, 0] = [0.25, 0.25, 0.75, 0.75]
    labels = np.ones((3, 2), int)
    mosaic = plots.batch_mosaic(images, boxes, labels, NAMES, tile=64)
    array = np.asarray(mosaic)
    assert array.shape == (128, 128, 3)
    assert (array[:64, :64] == 64).all()  # No box, and the value of the picture.
    assert (array[64:, 64:] == 128).all()  # No picture.
    assert (array[48, 64 + 16] == draw.class_colour(1)).all()


def test_worst_mosaic_shows_labels_and_detections():
    worst = [PICTURES[1]]
    image = Image.new("RGB", (80, 80), (10, 10, 10))
    mosaic = np.asarray(plots.worst_mosaic(worst, [image], NAMES, tile=80))
    assert mosaic.shape == (80, 160, 3)
    assert (mosaic[60, 30] == draw.class_colour(1)).all()  # Labelled a dog,
    assert (mosaic[60, 80 + 30] == draw.class_colour(0)).all()  # found a car.
