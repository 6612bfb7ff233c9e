"""Drawing: colours, letters of any script, names inside the image."""

import numpy as np
import pytest
from PIL import Image

from yolov3_tf2.evaluation import draw

WHITE = (255, 255, 255)


def changed(image, before=WHITE):
    """Returns `[pixels, 2]`, rows and columns of the pixels that were drawn on."""
    return np.argwhere((np.asarray(image) != before).any(axis=-1))


def test_a_class_has_one_colour_and_neighbours_differ():
    colours = [draw.class_colour(label) for label in range(80)]
    assert len(set(colours)) == 80
    for one, two in zip(colours, colours[1:], strict=False):
        assert sum(abs(a - b) for a, b in zip(one, two, strict=True)) > 60
    assert draw.class_colour(3) == draw.class_colour(3)


def test_the_box_is_drawn_where_it_is():
    image = Image.new("RGB", (400, 300), WHITE)
    drawn = draw.draw_boxes(image, [[100, 120, 200, 250]], [0], ["cat"], [0.5])
    colour = draw.class_colour(0)
    for point in ((100, 200), (200, 200), (150, 120), (150, 250)):
        assert drawn.getpixel(point) == colour
    assert drawn.getpixel((150, 200)) == WHITE
    assert not changed(image).size  # The original is not changed.


@pytest.mark.parametrize(
    "box", [[0, 0, 40, 30], [360, 0, 400, 300], [0, 280, 400, 300]]
)
def test_names_stay_inside_the_image(box):
    image = Image.new("RGB", (400, 300), WHITE)
    with_name = draw.draw_boxes(image, [box], [0], ["a rather long name"], [1.0])
    without = draw.draw_boxes(image, [box], [0], [""])
    label = np.argwhere((np.asarray(with_name) != np.asarray(without)).any(axis=-1))
    # A whole filled label of some 200 pixels, however close the box is to an edge.
    assert label[:, 1].max() - label[:, 1].min() > 80


@pytest.mark.parametrize("name", ["사람", "자동차", "猫", "ねこ", "Ünï"])
def test_letters_of_any_script_differ_from_the_missing_glyph(name):
    def drawn(text):
        image = Image.new("RGB", (300, 120), WHITE)
        return np.asarray(draw.draw_boxes(image, [[10, 60, 290, 110]], [0], [text]))

    missing = "\uffff" * len(name)
    assert (drawn(name) != drawn(missing)).any()


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (40, 2000), (4000, 3000)])
def test_images_of_any_size(size):
    image = Image.new("RGB", size, WHITE)
    box = [size[0] * 0.2, size[1] * 0.2, size[0] * 0.8, size[1] * 0.8]
    drawn = draw.draw_boxes(image, [box], [0], ["cat"], [0.5])
    assert drawn.size == size
    assert changed(drawn).size


def test_letters_grow_with_the_image():
    heights = []
    for side in (300, 3000):
        image = Image.new("RGB", (side, side), WHITE)
        box = [side * 0.4, side * 0.5, side * 0.5, side * 0.6]
        rows = changed(draw.draw_boxes(image, [box], [0], ["cat"], [0.5]))[:, 0]
        heights.append(side * 0.5 - rows.min())
    assert 6 < heights[1] / heights[0] < 12
