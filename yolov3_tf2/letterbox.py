"""Letterboxing: a picture of any shape onto the network's square input, and back.

As darknet's `letterbox_image`: scaled to fit without changing its shape, centred, the
rest filled with grey.
"""

import tensorflow as tf

GREY = 0.5


def letterbox(image, size):
    """Fits a picture onto a square; runs eagerly and inside tf.data.

    Args:
        image: `[height, width, 3]` uint8 RGB.
        size: side of the square, pixels.

    Returns:
        `[size, size, 3]` float32 RGB in [0, 1].
    """
    image = tf.convert_to_tensor(image)
    height, width = tf.shape(image)[0], tf.shape(image)[1]
    inner_width, inner_height, left, top = _placement(width, height, size)
    image = tf.image.resize(tf.cast(image, tf.float32), (inner_height, inner_width),antialias=True)
    right, bottom = size - inner_width - left, size - inner_height - top
    image = tf.pad(
        image / 255.0, ((top, bottom), (left, right), (0, 0)), constant_values=GREY
    )
    return tf.ensure_shape(image, (size, size, 3))


def boxes_to_letterbox(boxes, width, height, size):
    """Maps `boxes` `[..., 4]` xyxy from fractions of the picture to the square's."""
    scale, offset = _transform(width, height, size)
    return boxes * scale + offset


def letterbox_to_boxes(boxes, width, height, size):
    """The inverse of `boxes_to_letterbox`: fractions of the picture again."""
    scale, offset = _transform(width, height, size)
    return (boxes - offset) / scale


def _placement(width, height, size):
    """Width, height, left and top of the picture inside the square, whole pixels."""
    longer = tf.maximum(width, height)
    inner_width = tf.maximum(width * size // longer, 1)
    inner_height = tf.maximum(height * size // longer, 1)
    return (
        inner_width,
        inner_height,
        (size - inner_width) // 2,
        (size - inner_height) // 2,
    )


def _transform(width, height, size):
    """Scale and offset `[4]` that map fractions of the picture to the square's."""
    inner_width, inner_height, left, top = (
        tf.cast(value, tf.float32)
        for value in _placement(tf.cast(width, tf.int32), tf.cast(height, tf.int32), size)
    )
    scale = tf.stack([inner_width, inner_height] * 2) / size
    offset = tf.stack([left, top] * 2) / size
    return scale, offset
