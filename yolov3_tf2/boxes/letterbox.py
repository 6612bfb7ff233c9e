"""Letterboxing: a picture of any shape onto the network's square input, and back.

Scaled to fit without changing its shape, the rest filled with grey, as darknet's
`letterbox_image` does it, with two differences. The picture lies in the middle only as
far as its corner falls on a corner of the coarsest cells, so that no cell of any scale
sees half of an edge; and where a picture shrinks to half or less, it is averaged over
pixels in place of skipping them.
"""

import tensorflow as tf

GREY = 128
CELL = 32  # side of the coarsest cells of all variants, pixels


def letterbox(image, size):
    """Fits a picture onto a square; runs eagerly and in graphs.

    Args:
        image: `[height, width, 3]` uint8 RGB.
        size: side of the square, pixels.

    Returns:
        `[size, size, 3]` uint8 RGB.
    """
    image = tf.convert_to_tensor(image)
    inner, corner = fit(tf.shape(image)[1], tf.shape(image)[0], size)
    return place(image, inner, corner, size)


def place(image, inner, corner, size):
    """Scales a picture and lays it onto a grey square, cut off at its edges.

    Args:
        image: `[height, width, 3]` uint8 RGB.
        inner: (width, height) to scale it to, pixels.
        corner: (left, top) of the scaled picture on the square; may be negative.
        size: side of the square, pixels; an int or a scalar tensor.

    Returns:
        `[size, size, 3]` uint8 RGB.
    """
    image = _scale(image, (inner[1], inner[0]))
    cut, before, after = [], [], []
    for side, start in zip((inner[1], inner[0]), (corner[1], corner[0]), strict=True):
        end = tf.clip_by_value(start + side, 0, size)
        first = tf.clip_by_value(start, 0, size)
        cut.append((first - start, end - start))
        before.append(first)
        after.append(size - end)
    image = image[cut[0][0] : cut[0][1], cut[1][0] : cut[1][1]]
    padding = [*zip(before, after, strict=True), (0, 0)]
    image = tf.pad(image, padding, constant_values=GREY)
    # A size that is a tensor is known when the graph runs.
    known = size if isinstance(size, int) else None
    return tf.ensure_shape(image, (known, known, 3))


def to_float(images):
    """Returns uint8 pixels as float32 in [0, 1], as the network takes them."""
    return tf.cast(images, tf.float32) / 255.0


def _scale(image, shape):
    """Scales a uint8 picture to (height, width), rounded to uint8."""
    height, width = tf.shape(image)[0], tf.shape(image)[1]
    is_half = (height >= 2 * shape[0]) | (width >= 2 * shape[1])
    scaled = tf.cond(
        is_half,
        lambda: tf.image.resize(image, shape, "area"),
        # Reads four pixels for each that it writes: below a half, all of them.
        lambda: tf.image.resize(image, shape, "bilinear"),
    )
    return tf.cast(scaled + 0.5, tf.uint8)


def boxes_to_letterbox(boxes, width, height, size):
    """Maps `boxes` `[..., 4]` xyxy from fractions of the picture to the square's."""
    scale, offset = _transform(width, height, size)
    return boxes * scale + offset


def letterbox_to_boxes(boxes, width, height, size):
    """The inverse of `boxes_to_letterbox`: fractions of the picture again."""
    scale, offset = _transform(width, height, size)
    return (boxes - offset) / scale


def fit(width, height, size):
    """Where a picture lies on the square: (width, height) and (left, top), pixels."""
    longer = tf.maximum(width, height)
    inner_width = tf.maximum(width * size // longer, 1)
    inner_height = tf.maximum(height * size // longer, 1)
    left = (size - inner_width) // 2 // CELL * CELL
    top = (size - inner_height) // 2 // CELL * CELL
    return (inner_width, inner_height), (left, top)


def _transform(width, height, size):
    """Scale and offset `[4]` that map fractions of the picture to the square's."""
    inner, corner = fit(*(tf.cast(side, tf.int32) for side in (width, height)), size)
    size = tf.cast(size, tf.float32)
    scale = tf.cast(tf.stack([*inner, *inner]), tf.float32)
    offset = tf.cast(tf.stack([*corner, *corner]), tf.float32)
    return scale / size, offset / size
