"""Letterboxing: an image of any shape onto the network's square input.

The image is scaled to fit without changing its shape, and the rest is filled with grey,
as in `letterbox_image` of darknet, with two differences. The image is centred only as
far as its corner lies on a corner of the coarsest cells, so that no cell of any scale
contains half of an edge. And where an image shrinks to half or less, its pixels are
averaged instead of skipped.
"""

import tensorflow as tf

GREY = 128
CELL = 32  # Side of the coarsest cells of all variants, pixels.


def letterbox(image, size):
    """Fits an image onto a square; runs eagerly and in graphs.

    Args:
        image: `[height, width, 3]` uint8 RGB.
        size: side of the square, pixels.

    Returns:
        `[size, size, 3]` uint8 RGB.
    """
    image = tf.convert_to_tensor(image)
    inner, corner = fit_image(tf.shape(image)[1], tf.shape(image)[0], size)
    return place_image(image, inner, corner, size)


def fit_image(width, height, size):
    """Returns where an image lies on the square.

    Args:
        width, height: of the image, pixels, int32.
        size: side of the square, pixels.

    Returns:
        (width, height) of the scaled image and its corner (left, top), pixels.
    """
    longer = tf.maximum(width, height)
    inner_width = tf.maximum(width * size // longer, 1)
    inner_height = tf.maximum(height * size // longer, 1)
    left = (size - inner_width) // 2 // CELL * CELL
    top = (size - inner_height) // 2 // CELL * CELL
    return (inner_width, inner_height), (left, top)


def place_image(image, inner, corner, size):
    """Scales an image and places it on a grey square, cropped at its edges.

    Args:
        image: `[height, width, 3]` uint8 RGB.
        inner: (width, height) of the scaled image, pixels.
        corner: (left, top) of the scaled image on the square; may be negative.
        size: side of the square, pixels; an int or a scalar tensor.

    Returns:
        `[size, size, 3]` uint8 RGB.
    """
    image = _resize_image(image, (inner[1], inner[0]))
    crops, before, after = [], [], []  # Rows, then columns.
    for side, start in zip((inner[1], inner[0]), (corner[1], corner[0]), strict=True):
        end = tf.clip_by_value(start + side, 0, size)
        first = tf.clip_by_value(start, 0, size)
        crops.append((first - start, end - start))
        before.append(first)
        after.append(size - end)
    image = image[crops[0][0] : crops[0][1], crops[1][0] : crops[1][1]]
    padding = [*zip(before, after, strict=True), (0, 0)]
    image = tf.pad(image, padding, constant_values=GREY)
    # A size that is a tensor is unknown while the graph is built.
    static_size = size if isinstance(size, int) else None
    return tf.ensure_shape(image, (static_size, static_size, 3))


def to_float(images):
    """Returns uint8 pixels as float32 in [0, 1], as the network takes them."""
    return tf.cast(images, tf.float32) / 255.0


def boxes_to_letterbox(boxes, width, height, size):
    """Maps `boxes` `[..., 4]` xyxy from fractions of the image to the square's."""
    scale, offset = _transform(width, height, size)
    return boxes * scale + offset


def _resize_image(image, shape):
    """Scales a uint8 image to (height, width), rounded to uint8."""
    height, width = tf.shape(image)[0], tf.shape(image)[1]
    is_halved = (height >= 2 * shape[0]) | (width >= 2 * shape[1])
    scaled = tf.cond(
        is_halved,
        lambda: tf.image.resize(image, shape, "area"),
        # Reads four pixels for each one that it writes. That is all of them, unless the
        # image shrinks to less than half.
        lambda: tf.image.resize(image, shape, "bilinear"),
    )
    return tf.cast(scaled + 0.5, tf.uint8)


def _transform(width, height, size):
    """Scale and offset `[4]` that map fractions of the image to the square's."""
    sides = (tf.cast(side, tf.int32) for side in (width, height))
    inner, corner = fit_image(*sides, size)
    size = tf.cast(size, tf.float32)
    scale = tf.cast(tf.stack([*inner, *inner]), tf.float32)
    offset = tf.cast(tf.stack([*corner, *corner]), tf.float32)
    return scale / size, offset / size
