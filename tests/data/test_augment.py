"""Augmentation: by hand, by what a box must cover, by seed, at strength 0."""

import ast
import colorsys

import numpy as np
import pytest
import tensorflow as tf
from project import REPOSITORY

from yolov3_tf2.boxes.letterbox import GREY, boxes_to_letterbox, letterbox
from yolov3_tf2.data import augment

SIZE = 96
OFF = dict.fromkeys(augment.STRENGTHS, 0.0)


def strengths(**changed):
    return OFF | changed


def run(image, boxes, strengths, seed):
    sides = image.shape[1::-1]
    return augment.augment_image(
        lambda inner: image, sides, boxes, SIZE, strengths, seed
    )


def scene(width=80, height=60):
    """Returns a dark image with a white block, and the box of the block, fractions."""
    image = np.full((height, width, 3), 20, "uint8")
    image[15:45, 20:50] = 250
    box = [20 / width, 15 / height, 50 / width, 45 / height]
    return image, np.array([box], "float32")


def white_box(image, size=SIZE):
    """Returns the box around the white pixels, fractions."""
    rows, cols = np.nonzero(np.asarray(image).min(axis=-1) > 190)
    return np.array(
        [cols.min(), rows.min(), cols.max() + 1, rows.max() + 1], float
    ) / float(size)


def test_the_parameters_of_train_have_the_strengths_as_defaults():
    tree = ast.parse((REPOSITORY / "train.py").read_text(encoding="utf-8"))
    (parameters,) = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and node.targets[0].id == "PARAMETERS"
    ]
    assert {
        name: parameter["default"]
        for name, parameter in parameters.items()
        if parameter["category"] == "Augmentation"
    } == augment.STRENGTHS


def test_strength_0_is_the_letterbox():
    image, boxes = scene(96, 96)
    ours, moved = run(image, boxes, OFF, (1, 2))
    np.testing.assert_array_equal(ours, letterbox(image, SIZE))
    np.testing.assert_allclose(moved, boxes_to_letterbox(boxes, 96, 96, SIZE))


@pytest.mark.parametrize(
    "kinds",
    [
        {"flip": 1.0},
        {"scale": 0.5},
        {"aspect": 0.5},
        {"translate": 0.1},
        {"flip": 0.5, "scale": 0.4, "aspect": 0.3, "translate": 0.1},
    ],
    ids=lambda kinds: "+".join(kinds),
)
def test_boxes_move_with_their_image(kinds):
    image, boxes = scene()
    seen = []
    for seed in range(12):
        ours, moved = run(image, boxes, strengths(**kinds), (seed, 0))
        expected = np.clip(np.asarray(moved)[0], 0, 1)
        np.testing.assert_allclose(white_box(ours), expected, atol=1.5 / SIZE)
        seen.append(tuple(np.asarray(moved)[0].round(4)))
    assert len(set(seen)) > 6 or kinds == {"flip": 1.0}


def test_a_mirrored_image_by_hand():
    image, boxes = scene(96, 96)
    ours, moved = run(image, boxes, strengths(flip=1.0), (0, 0))
    np.testing.assert_array_equal(ours, letterbox(image, SIZE)[:, ::-1])
    left, top, right, bottom = boxes[0]
    np.testing.assert_allclose(moved[0], [1 - right, top, 1 - left, bottom], atol=1e-6)


def test_scale_stays_within_its_strength():
    image, boxes = scene(96, 96)
    widths = []
    for seed in range(40):
        _, moved = run(image, boxes, strengths(scale=0.5), (seed, seed))
        widths.append(float(moved[0, 2] - moved[0, 0]) / (30 / 96))
    assert 0.65 < min(widths) < 0.8 and 1.25 < max(widths) < 1.52


def test_colours_do_not_change_the_grey_beside_the_image():
    image, boxes = scene()
    colours = strengths(hue=0.2, saturation=1.0, exposure=1.0)
    ours, _ = run(image, boxes, colours, (3, 3))
    np.testing.assert_array_equal(ours[:5], GREY)
    assert abs(float(np.mean(ours[40:50, 5:15])) - 20) > 0.5


def test_colours_by_hand():
    image = np.full((96, 96, 3), (200, 100, 100), "uint8")
    factors = []
    for seed in range(20):
        ours, _ = run(image, np.zeros((0, 4), "f"), strengths(exposure=0.25), (seed, 0))
        pixel = ours[50, 50].numpy().astype(float)
        assert pixel[1] == pixel[2]
        assert pixel[1] == pytest.approx(pixel[0] / 2, abs=1)  # Same colour.
        factors.append(pixel[0] / 200)
    assert 0.79 < min(factors) < 0.9 and 1.1 < max(factors) < 1.26
    # Up to a third of the circle either way, from red.
    largest = set()
    for seed in range(20):
        ours, _ = run(image, np.zeros((0, 4), "f"), strengths(hue=0.33), (seed, 0))
        pixel = ours[50, 50].numpy()
        assert [pixel.max(), pixel.min()] == [200, 100]
        largest.add(int(pixel.argmax()))
    assert largest == {0, 1, 2}


@pytest.mark.parametrize("change", [(0, 1, 1), (0.3, 1.5, 0.7), (-0.1, 0.6, 1.4)])
def test_colours_are_those_of_pythons_hsv(change):
    chance = np.random.default_rng(0)
    colours = chance.random((300, 3)).astype("float32")
    colours[:100] = chance.integers(0, 3, (100, 3)) / 2  # Greys, edges and corners.
    ours = augment._distort(*tf.unstack(tf.constant(colours), axis=1), *change)
    expected = []
    for colour in colours.tolist():
        hue, saturation, value = colorsys.rgb_to_hsv(*colour)
        saturation, value = min(saturation * change[1], 1), min(value * change[2], 1)
        expected.append(colorsys.hsv_to_rgb((hue + change[0]) % 1, saturation, value))
    np.testing.assert_allclose(np.stack(ours, axis=1), expected, atol=1e-5)


def test_the_image_is_a_function_of_the_seed():
    image, boxes = scene()
    results = [
        run(image, boxes, augment.STRENGTHS, seed)
        for seed in ((1, 2), (1, 2), (1, 3), (2, 2))
    ]
    same = [
        bool(np.array_equal(results[0][0], other[0]))
        and bool(np.array_equal(results[0][1], other[1]))
        for other in results[1:]
    ]
    assert same == [True, False, False]


def test_boxes_are_clipped_and_dropped():
    window = tf.constant([0.0, 0, 1, 1])
    boxes = tf.constant(
        [
            [-0.1, 0.2, 0.1, 0.4],  # half of it is left
            [0.9, 0.2, 1.9, 0.4],  # a tenth
            [1.2, 0.2, 1.4, 0.4],  # nothing
            [0.5, 0.5, 0.501, 0.6],  # narrow, as it was
            [-0.5, 0.5, 0.011, 0.52],  # a sliver
            [0.0, 0.0, 0.0, 0.0],  # padding
        ]
    )
    clipped = augment.clip_visible(boxes, window, SIZE).numpy()
    np.testing.assert_allclose(clipped[0], [0, 0.2, 0.1, 0.4], atol=1e-6)
    np.testing.assert_allclose(clipped[3], boxes[3])
    assert not clipped[[1, 2, 4, 5]].any()
