"""Decodes the image of a record, a large JPEG at a smaller scale."""

import tensorflow as tf

from yolov3_tf2.data.transparency import decode_on_white

# The factors by which the JPEG decoder can reduce an image.
_RATIOS = (1, 2, 4, 8)


def decode_image(example, target):
    """Decodes a JPEG or PNG to no fewer pixels than the target.

    A JPEG with less than twice the sides of the target is decoded to all its pixels,
    exactly as Pillow does, and so as in detection. A larger one is decoded at 1/2, 1/4
    or 1/8 of its sides: the decoder then averages blocks of pixels, which takes a
    fraction of the time.

    Once scaled to the target, a reduced image differs slightly from one that was
    decoded whole: by 1.7 of 255 on average for 1600x1203 pixels scaled to 416. With
    images reduced to 1/2, AP50 of the official yolov3-tiny is 0.2 to 1.2 points lower.
    So only training uses it.

    Args:
        example: a dict with `encoded`, `width`, `height` and `source_id`, see
            `records.parse_example`; width and height int32.
        target: (width, height) to which the image will be scaled, pixels.

    Returns:
        `[height, width, 3]` uint8 RGB.
    """
    encoded, width, height = (example[k] for k in ("encoded", "width", "height"))

    def jpeg_decoder(ratio):
        return lambda: tf.io.decode_jpeg(
            encoded, 3, ratio=ratio, dct_method="INTEGER_ACCURATE"
        )

    def decode_other():
        return decode_on_white(encoded)

    factor = tf.minimum(width // target[0], height // target[1])
    branch = tf.reduce_sum(tf.cast(factor >= tf.constant(_RATIOS[1:]), tf.int32))
    branch = tf.where(tf.io.is_jpeg(encoded), branch, len(_RATIOS))
    image = tf.switch_case(branch, [*map(jpeg_decoder, _RATIOS), decode_other])
    # If an image is smaller than its record says, a ratio would blur it.
    ratio = tf.gather(tf.constant([*_RATIOS, 1]), branch)
    sides = tf.stack([width, height])
    check = tf.debugging.Assert(
        tf.reduce_all(tf.shape(image)[1::-1] == -(-sides // ratio)),
        ["width and height are not those of its image:", sides, example["source_id"]],
    )
    with tf.control_dependencies([check]):
        image = tf.identity(image)
    image.set_shape((None, None, 3))
    return image
