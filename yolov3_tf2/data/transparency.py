"""Decodes PNGs of other programs, whose transparent pixels nobody sees, on white.

The records of this project hold no transparency; see `files/prepared_image.py`.
"""

import tensorflow as tf

_PNG = b"\x89PNG\r\n\x1a\n"
_COLOUR_TYPE = 25  # Offset in a PNG.
_PALETTE, _GRAY_WITH_ALPHA, _RGB_WITH_ALPHA = b"\x03", b"\x04", b"\x06"


def decode_on_white(encoded):
    """Decodes any image that TensorFlow reads, of an animation the first.

    Returns:
        `[height, width, 3]` uint8 RGB.
    """
    # Padded, as a file may be shorter than a header.
    start = tf.strings.substr(encoded, 0, _COLOUR_TYPE + 1) + bytes(_COLOUR_TYPE + 1)
    is_png = tf.strings.substr(start, 0, len(_PNG)) == _PNG
    colour_type = tf.strings.substr(start, _COLOUR_TYPE, 1)
    has_alpha = (colour_type == _GRAY_WITH_ALPHA) | (colour_type == _RGB_WITH_ALPHA)
    has_alpha = tf.cond(
        is_png & (colour_type == _PALETTE),
        lambda: _has_transparent_colours(encoded),
        lambda: has_alpha,
    )
    return tf.cond(
        is_png & has_alpha,
        lambda: _draw_on_white(tf.io.decode_png(encoded, 4)),
        lambda: tf.io.decode_image(encoded, 3, expand_animations=False),
    )


def _has_transparent_colours(encoded):
    """Returns whether a PNG with a palette has a list of opacities before its pixels.

    Without one, TensorFlow decodes an opacity of 0 everywhere.
    """
    before_pixels = tf.strings.split(encoded, "IDAT", maxsplit=1)[0]
    return tf.size(tf.strings.split(before_pixels, "tRNS")) > 1


def _draw_on_white(rgba):
    """Returns `[height, width, 3]` uint8 of `[height, width, 4]`."""
    values = tf.cast(rgba, tf.int32)
    colour, alpha = values[..., :3], values[..., 3:]
    return tf.cast((colour * alpha + 255 * (255 - alpha) + 127) // 255, tf.uint8)
