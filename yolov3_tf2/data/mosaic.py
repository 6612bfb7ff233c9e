"""Mosaics of four images, as augmentation of training batches in tf.data."""

import tensorflow as tf

from yolov3_tf2.data.augment import clip_visible


def make_mosaics(batch, probability, size, seed):
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


# Compiled: all of it becomes one loop, which takes a fifteenth of the time.
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
