"""The previews: where the images and boxes are."""

import numpy as np
from evaluated import build_evaluated
from PIL import Image

from yolov3_tf2.evaluation import draw, previews

NAMES = ["car", "dog"]


def test_batch_mosaic():
    images = np.zeros((3, 64, 64, 3), "f") + 0.25
    boxes = np.zeros((3, 2, 4), "f")
    boxes[1, 0] = [0.25, 0.25, 0.75, 0.75]
    labels = np.ones((3, 2), int)
    mosaic = previews.batch_mosaic(images, boxes, labels, NAMES, tile_size=64)
    array = np.asarray(mosaic)
    assert array.shape == (128, 128, 3)
    assert (array[:64, :64] == 64).all()  # No box, and the value of the image.
    assert (array[64:, 64:] == 128).all()  # No image.
    assert (array[48, 64 + 16] == draw.class_colour(1)).all()


def test_worst_mosaic_shows_labels_and_detections():
    box = [9, 9, 60, 60]
    worst = [build_evaluated(1, [(box, 1)], [(box, 0, 0.8)])]
    rgb = Image.new("RGB", (80, 80), (10, 10, 10))
    mosaic = np.asarray(previews.worst_mosaic(worst, [rgb], NAMES, 0.5, tile_size=80))
    assert mosaic.shape == (80, 160, 3)
    assert (mosaic[60, 30] == draw.class_colour(1)).all()  # Labelled as a dog,
    assert (mosaic[60, 80 + 30] == draw.class_colour(0)).all()  # detected as a car.
    mosaic = np.asarray(previews.worst_mosaic(worst, [rgb], NAMES, 0.9, tile_size=80))
    assert (mosaic[60, 80 + 30] == 10).all()  # The score is below the threshold.


def test_an_image_that_cannot_be_decoded_is_grey():
    image = previews.load_to_draw(b"no image", "ds/a.jpg")
    assert image.mode == "RGB" and image.getcolors() == [(320 * 320, (128, 128, 128))]
