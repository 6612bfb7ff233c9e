"""Augmentation of training images in tf.data: that of darknet, and mosaics of four.

Every random number is a function of a seed, so that a resumed training sees the same
images as an uninterrupted one. Boxes are xyxy, fractions of the network's input, and
move with their image.
"""

import tensorflow as tf

from yolov3_tf2.boxes import letterbox

# The kinds of augmentation and their default strengths, see `augment` and `mosaic`; 0
# switches a kind off. The values are those of yolov3.cfg where it has one. train.py
# repeats them: `vh yaml step` reads its PARAMETERS without running it, and takes only
# literals. A test compares the two.
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


def augment(decode, sides, boxes, size, strengths, seed):
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


def mosaic(batch, probability, size, seed):
    """Turns some images of a batch into mosaics of four images of the batch.

    A vertical and a horizontal cut divide an image. Each quarter shows a random part of
    one image, which is not scaled.

    Args:
        batch: a dict with `images` `[batch, size, size, 3]`, `boxes`
            `[batch, boxes, 4]`, padded with boxes without area, and `labels`
            `[batch, boxes]`.
        probability: of an image to become a mosaic.
        size: side of the input, pixels.
        seed: `[2]` integers.

    Returns:
        The dict with these three changed. `boxes` and `labels` are as long as the
        image with the most boxes needs, and one longer.
    """
    images, boxes, labels = batch["images"], batch["boxes"], batch["labels"]
    number, side = tf.shape(images)[0], tf.cast(size, tf.float32)
    seeds = tf.random.split(seed, 4)
    # The cuts, x and y, between a fifth and four fifths; at the far edge for an image
    # that stays as it is.
    cut = tf.random.stateless_uniform((number, 2), seeds[0], 0.2, 0.8)
    is_mosaic = tf.random.stateless_uniform((number, 1), seeds[1]) < probability
    cut = tf.cast(tf.round(tf.where(is_mosaic, cut, 1.0) * side), tf.int32)
    # The sources of the quarters [batch, 4]: the image itself is the first, then three
    # others, which differ if the batch is large enough.
    ranks = tf.random.stateless_uniform((number, tf.maximum(number - 1, 3)), seeds[2])
    others = tf.argsort(ranks)[:, :3] % tf.maximum(number - 1, 1)
    others = (tf.range(number)[:, None] + 1 + others) % number
    sources = tf.concat([tf.range(number)[:, None], others], axis=1)
    # Quarters: top left, top right, bottom left, bottom right; x then y.
    zero, full = tf.zeros_like(cut), tf.fill(tf.shape(cut), size)
    is_far = tf.constant([[0, 0], [1, 0], [0, 1], [1, 1]]) > 0
    start = tf.where(is_far, cut[:, None], zero[:, None])  # [batch, 4, 2]
    end = tf.where(is_far, full[:, None], cut[:, None])
    # How far the image moves: any distance that leaves no gap in the quarter.
    room = tf.cast(size - (end - start), tf.float32)
    move = tf.random.stateless_uniform((number, 4, 2), seeds[3])
    move = end - size + tf.cast(tf.round(move * room), tf.int32)

    images = tf.ensure_shape(_assemble(images, sources, cut, move), images.shape)

    window = tf.cast(tf.concat([start, end], axis=-1), tf.float32) / side
    offset = tf.cast(tf.concat([move, move], axis=-1), tf.float32) / side
    parts = tf.gather(boxes, sources)  # [batch, 4, boxes, 4]
    # An image that is not a mosaic keeps its boxes as they are.
    moved = clip_visible(parts + offset[:, :, None], window[:, :, None], size)
    is_first = tf.range(4) == 0
    unmoved = tf.where(is_first[None, :, None, None], parts, 0.0)
    parts = tf.where(is_mosaic[..., None, None], moved, unmoved)
    boxes = tf.reshape(parts, (number, -1, 4))
    labels = tf.reshape(tf.gather(labels, sources), (number, -1))
    # Boxes first, then one box of padding.
    is_box = tf.reduce_all(boxes[..., 2:] > boxes[..., :2], axis=-1)
    order = tf.argsort(tf.cast(is_box, tf.int32), direction="DESCENDING", stable=True)
    most = tf.reduce_max(tf.reduce_sum(tf.cast(is_box, tf.int32), axis=1)) + 1
    order = order[:, :most]
    return {
        **batch,
        "images": images,
        "boxes": tf.gather(boxes, order, batch_dims=1),
        "labels": tf.gather(labels, order, batch_dims=1),
    }


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


# Compiled, as the functions below: all of it becomes one loop, which takes a fifteenth
# of the time.
@tf.function(jit_compile=True, autograph=False)
def _assemble(images, sources, cut, move):
    """Copies the pixels of mosaics.

    Args:
        images: `[batch, size, size, 3]`.
        sources: `[batch, 4]`, the images of the quarters: top left, top right, bottom
            left, bottom right.
        cut: `[batch, 2]`, x and y at which the right and the bottom quarters start.
        move: `[batch, 4, 2]`, how far the image of a quarter moves in x and y.
    """
    size = tf.shape(images)[1]
    axis = tf.range(size)
    is_right = (axis >= cut[:, :1])[:, None]
    is_bottom = (axis >= cut[:, 1:])[:, :, None]
    # One number per pixel: its index in the sources is its index in the mosaic plus an
    # offset.
    offset = (sources * size - move[..., 1]) * size - move[..., 0]
    quarters = tf.unstack(offset[:, :, None, None], axis=1)
    offset = tf.where(
        is_bottom,
        tf.where(is_right, quarters[3], quarters[2]),
        tf.where(is_right, quarters[1], quarters[0]),
    )
    return tf.gather(tf.reshape(images, (-1, 3)), offset + axis[:, None] * size + axis)


@tf.function(jit_compile=True, autograph=False)
def _change_pixels(image, flips, window, uniform, strengths):
    """Mirrors an image, shifts its hue and multiplies saturation and value.

    Args:
        image: `[size, size, 3]` uint8 RGB.
        flips: whether to mirror it.
        window: `[4]` xyxy, pixels of the result; outside of it colours do not change.
        uniform: `[3]`, random numbers in [0, 1].
        strengths: see `augment`.

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
