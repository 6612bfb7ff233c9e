"""Augmentation of training images in tf.data, as in darknet.

Every random number is a function of a seed, so that a resumed training sees the same
images as an uninterrupted one. Boxes are xyxy, fractions of the network's input, and
move with their image.
"""

import tensorflow as tf

from yolov3_tf2.boxes import letterbox

# The kinds of augmentation and their default strengths, see `augment_image` and
# `mosaic.make_mosaics`; 0 switches a kind off. The values are those of yolov3.cfg where
# it has one. train.py repeats them: `vh yaml step` reads its PARAMETERS without running
# it, and takes only literals. A test compares the two.
STRENGTHS = {
    "flip": 0.5,
    "scale": 0.5,
    "aspect": 0.3,
    "translate": 0.2,
    "hue": 0.1,
    "saturation": 0.5,
    "exposure": 0.5,
    "mosaic": 0.5,
}

# A box is dropped if less than this fraction of it is visible, or if the visible part
# is narrower than this many pixels.
MIN_VISIBLE = 0.2
MIN_PIXELS = 2


def augment_image(decode, sides, boxes, size, strengths, seed):
    """Places one image on the network's input, changed at random.

    Args:
        decode: a function that returns the pixels, `[height, width, 3]` uint8 RGB at
            any scale. Its argument is the (width, height) that they are scaled to.
        sides: `[2]`, width and height of the image, pixels.
        boxes: `[boxes, 4]` xyxy, fractions of the image.
        size: side of the input, pixels.
        strengths: a dict with the keys of `STRENGTHS`. `flip` is a probability.
            `scale`, `aspect`, `saturation` and `exposure` multiply or divide by up to
            1 + strength. `translate` is the largest shift as a fraction of the input,
            and `hue` as a fraction of the colour circle.
        seed: `[2]` integers.

    Returns:
        The image `[size, size, 3]` uint8, grey beside the original, and the boxes, see
        `clip_visible`.
    """
    uniform = tf.random.stateless_uniform((8,), seed)
    side = tf.cast(size, tf.float32)
    # Fitted into the square as by `letterbox`, then larger or smaller.
    sides = tf.cast(sides, tf.float32)
    shape = tf.sqrt(_factor(uniform[0], strengths["aspect"]))
    sides *= tf.stack([shape, 1 / shape])
    scale = side / tf.reduce_max(sides) * _factor(uniform[1], strengths["scale"])
    inner = tf.maximum(tf.cast(tf.round(sides * scale), tf.int32), 1)
    free = size - inner  # Negative if the image is larger than the input.
    shift = (2 * uniform[2:4] - 1) * strengths["translate"] * side
    corner = tf.cast(tf.round(tf.cast(free, tf.float32) / 2 + shift), tf.int32)

    flips = uniform[4] < strengths["flip"]
    # The corner that ends up at `corner` when the whole input is mirrored.
    mirrored = tf.stack([free[0] - corner[0], corner[1]])
    image = letterbox.place_image(
        decode(inner), inner, tf.where(flips, mirrored, corner), size
    )
    if any(strengths[kind] for kind in ("flip", "hue", "saturation", "exposure")):
        window = tf.concat([corner, corner + inner], axis=0)
        planes = _change_pixels(image, flips, window, uniform[5:8], strengths)
        image = _interleave(planes)

    left, top, right, bottom = tf.unstack(boxes, axis=-1)
    mirrored = tf.stack([1 - right, top, 1 - left, bottom], axis=-1)
    boxes = tf.where(flips, mirrored, boxes)
    scale, offset = (
        tf.concat([tf.cast(value, tf.float32)] * 2, axis=0) / side
        for value in (inner, corner)
    )
    return image, clip_visible(
        boxes * scale + offset, tf.constant([0.0, 0, 1, 1]), size
    )


def clip_visible(boxes, window, size):
    """Clips boxes to a window.

    A box becomes zeros if too little of it is left, see `MIN_VISIBLE` and `MIN_PIXELS`.

    Args:
        boxes: `[..., 4]` xyxy, fractions of an input of `size` pixels.
        window: `[..., 4]` xyxy.
    """
    low = tf.maximum(boxes[..., :2], window[..., :2])
    high = tf.minimum(boxes[..., 2:], window[..., 2:])
    sides = tf.maximum(high - low, 0.0)
    before = tf.reduce_prod(boxes[..., 2:] - boxes[..., :2], axis=-1)
    visible = tf.reduce_prod(sides, axis=-1) >= MIN_VISIBLE * before
    wide = tf.reduce_min(sides, axis=-1) * tf.cast(size, tf.float32) >= MIN_PIXELS
    # A box that was narrow from the start and is not clipped stays.
    whole = tf.reduce_all((low == boxes[..., :2]) & (high == boxes[..., 2:]), axis=-1)
    keep = ((visible & wide) | whole)[..., None]
    return tf.where(keep, tf.concat([low, high], axis=-1), 0.0)


# Compiled: all of it becomes one loop, which takes a fifteenth of the time.
@tf.function(jit_compile=True, autograph=False)
def _change_pixels(image, flips, window, uniform, strengths):
    """Mirrors an image, shifts its hue and multiplies saturation and value.

    Args:
        image: `[size, size, 3]` uint8 RGB.
        flips: whether to mirror it.
        window: `[4]` xyxy, pixels of the result; outside of it colours do not change.
        uniform: `[3]`, random numbers in [0, 1].
        strengths: see `augment_image`.

    Returns:
        `[3, size, size]` uint8. With the channels last, the compiled loop would change
        one number at a time.
    """
    planes = tf.transpose(tf.where(flips, image[:, ::-1], image), (2, 0, 1))
    if not any(strengths[kind] for kind in ("hue", "saturation", "exposure")):
        return planes
    hue = (2 * uniform[0] - 1) * strengths["hue"]
    saturation = _factor(uniform[1], strengths["saturation"])
    value = _factor(uniform[2], strengths["exposure"])
    changed = _distort(*tf.unstack(letterbox.to_float(planes)), hue, saturation, value)
    changed = tf.cast(255.0 * tf.stack(changed) + 0.5, tf.uint8)
    axis = tf.range(tf.shape(image)[0])
    inside = (axis >= window[:2, None]) & (axis < window[2:, None])
    return tf.where(inside[1][:, None] & inside[0], changed, planes)


# Compiled on its own: together with the function above, the colour of each pixel would
# be computed three times.
@tf.function(jit_compile=True, autograph=False)
def _interleave(planes):
    """Returns `[rows, cols, 3]` from `[3, rows, cols]`."""
    return tf.transpose(planes, (1, 2, 0))


def _distort(red, green, blue, hue, saturation, value):
    """Changes colours in HSV, as `distort_image` in image.c of darknet.

    HSV is converted back to RGB without cases, by the alternative formula of
    https://en.wikipedia.org/wiki/HSL_and_HSV.

    Args:
        red, green, blue: of the same shape, in [0, 1].
        hue: fraction of the colour circle to add.
        saturation, value: factors; the products are limited to 1.

    Returns:
        A list of red, green and blue.
    """
    largest = tf.maximum(tf.maximum(red, green), blue)
    chroma = largest - tf.minimum(tf.minimum(red, green), blue)
    sixth = 1 / tf.maximum(6 * chroma, 1e-9)  # Grey has no hue.
    angle = hue + tf.where(
        red == largest,
        (green - blue) * sixth,
        tf.where(
            green == largest,
            (blue - red) * sixth + 1 / 3,
            (red - green) * sixth + 2 / 3,
        ),
    )
    brightest = tf.minimum(value * largest, 1.0)
    chroma = brightest * tf.minimum(
        saturation * chroma / tf.maximum(largest, 1e-9), 1.0
    )

    def channel(number):
        k = angle + number / 6
        k = 6 * (k - tf.floor(k))
        return brightest - chroma * tf.clip_by_value(tf.minimum(k, 4 - k), 0.0, 1.0)

    return [channel(number) for number in (5, 3, 1)]


def _factor(uniform, strength):
    """Returns a factor between 1 / (1 + strength) and 1 + strength, log-uniform."""
    return tf.pow(1.0 + strength, 2 * uniform - 1)
