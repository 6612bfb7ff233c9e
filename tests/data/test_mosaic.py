"""Mosaics: at probability 0 and 1, and by what a box must cover."""

import numpy as np
import tensorflow as tf

from yolov3_tf2.data.mosaic import make_mosaics

SIZE = 96


def flat_batch(number=4, size=SIZE):
    """Images of one grey value each, with a box in the middle."""
    values = (np.arange(number) + 1) / 10
    images = np.broadcast_to(values[:, None, None, None], (number, size, size, 3))
    boxes = np.zeros((number, 3, 4), "float32")
    boxes[:, 0] = [0.25, 0.25, 0.75, 0.75]
    labels = np.zeros((number, 3), "int32")
    labels[:, 0] = np.arange(number)
    return {
        "images": tf.constant(images, tf.float32),
        "boxes": tf.constant(boxes),
        "labels": tf.constant(labels),
        "sizes": tf.zeros((number, 2)),
    }


def test_no_mosaic_changes_nothing():
    batch = flat_batch()
    ours = make_mosaics(batch, 0.0, SIZE, tf.constant([1, 2]))
    np.testing.assert_array_equal(ours["images"], batch["images"])
    np.testing.assert_array_equal(ours["boxes"][:, 0], batch["boxes"][:, 0])
    assert ours["boxes"].shape == (4, 2, 4)  # Padding that no image needs is gone.
    assert not ours["boxes"][:, 1].numpy().any()
    np.testing.assert_array_equal(ours["sizes"], batch["sizes"])


def test_a_mosaic_shows_four_images_and_their_boxes():
    # Bright blocks on images of different greys: a block shows where its box is.
    batch = flat_batch(8)
    images = batch["images"].numpy() / 2
    for image in images:
        image[SIZE // 4 : SIZE * 3 // 4, SIZE // 4 : SIZE * 3 // 4] += 0.5
    batch["images"] = tf.constant(images)
    ours = make_mosaics(batch, 1.0, SIZE, tf.constant([4, 5]))
    pixels = ours["images"].numpy()[..., 0]
    boxes, labels = ours["boxes"].numpy(), ours["labels"].numpy()
    parts = 0
    for i in range(8):
        greys = np.unique((pixels[i] % 0.5).round(3))
        assert 2 <= len(greys) <= 4
        is_box = (boxes[i, :, 2:] > boxes[i, :, :2]).all(-1)
        parts += is_box.sum()
        for box, label in zip(boxes[i, is_box], labels[i, is_box], strict=True):
            left, top, right, bottom = np.round(box * SIZE).astype(int)
            block = pixels[i, top:bottom, left:right]
            np.testing.assert_allclose(block, 0.5 + (label + 1) / 20, atol=1e-5)
            # No pixel of the block lies outside the box.
            around = pixels[
                i, max(top - 1, 0) : bottom + 1, max(left - 1, 0) : right + 1
            ]
            same = np.isclose(around, 0.5 + (label + 1) / 20, atol=1e-5)
            assert same.sum() == block.size
    assert parts > 12


def test_a_mosaic_of_one_image_with_a_size_that_is_a_tensor():
    batch = flat_batch(1)

    @tf.function
    def run(batch, size):
        return make_mosaics(batch, 1.0, size, tf.constant([1, 1]))

    ours = run(batch, tf.constant(SIZE))
    np.testing.assert_allclose(ours["images"], batch["images"])
    assert ours["boxes"].shape[1] >= 1
