"""tf.data: TFRecord files to batches of letterboxed pictures, boxes and targets."""

import re

import tensorflow as tf

from yolov3_tf2 import grid, records
from yolov3_tf2.errors import InputError
from yolov3_tf2.letterbox import boxes_to_letterbox, letterbox

# Encoded pictures, some 100 kB each, and not decoded ones of 2 MB; fewer of large ones.
_SHUFFLE_PICTURES = 2048
_SHUFFLE_BYTES = 512 * 2**20


def build_dataset(
    paths,
    class_names,
    variant,
    size,
    batch_size,
    shuffle_seed=None,
    fill_last_batch=False,
):
    """Builds the batches of one pass over TFRecord files.

    Args:
        paths: list of TFRecord files.
        class_names: list of strings; a box's label is the index of its class in it.
        variant: the `grid.Variant` that the targets are for.
        size: side of the network's input, pixels.
        batch_size: pictures a batch; the last batch may be smaller.
        shuffle_seed: makes every pass go through the pictures in another order, the
            same ones for the same seed. None keeps their order.
        fill_last_batch: repeats pictures, with weight 0, until the last batch is as
            large as the others: every device that shares a batch then has some.

    Returns:
        A `tf.data.Dataset` of dicts: `images` `[batch, size, size, 3]`; `boxes`
        `[batch, boxes, 4]` xyxy, fractions of the input, and `labels`
        `[batch, boxes]`, both padded with boxes without area; `targets` and `lost`,
        see `grid.encode`; `sizes` `[batch, 2]`, width and height of the pictures
        before letterboxing, pixels; `weights` `[batch]`, 1 for a picture, 0 for a
        repeated one.
    """
    table = tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(
            tf.constant(class_names), tf.range(len(class_names))
        ),
        default_value=-1,
    )

    def load(serialized):
        example = records.parse(serialized)
        labels = table.lookup(example["class_names"])
        unknown = tf.boolean_mask(example["class_names"], labels < 0)
        check = tf.debugging.Assert(
            tf.size(unknown) == 0,
            ["classes not in the class file:", unknown, example["source_id"]],
        )
        with tf.control_dependencies([check]):
            image = _decode(example["encoded"])
        boxes = boxes_to_letterbox(
            example["boxes"], example["width"], example["height"], size
        )
        # One box of padding each, so that a batch without any box has boxes too.
        return {
            "images": letterbox(image, size),
            "boxes": tf.pad(boxes, ((0, 1), (0, 0))),
            "labels": tf.pad(labels, ((0, 1),)),
            "sizes": tf.stack([example["width"], example["height"]]),
        }

    def add_targets(batch):
        targets, lost = grid.encode(batch["boxes"], batch["labels"], variant, size)
        return {**batch, "targets": targets, "lost": lost}

    def fill(batch):
        number = tf.shape(batch["images"])[0]
        index = tf.range(batch_size if fill_last_batch else number)
        weights = tf.cast(index < number, tf.float32)
        if fill_last_batch:
            batch = {k: tf.gather(v, index % number) for k, v in batch.items()}
        return {**batch, "weights": weights}

    dataset = tf.data.TFRecordDataset([str(path) for path in paths])
    if shuffle_seed is not None:
        dataset = dataset.shuffle(_shuffle_buffer(paths), seed=shuffle_seed)
    return (
        dataset.map(load, num_parallel_calls=tf.data.AUTOTUNE)
        .padded_batch(batch_size)
        .map(fill, num_parallel_calls=tf.data.AUTOTUNE)
        .map(add_targets, num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(tf.data.AUTOTUNE)
    )


def _decode(encoded):
    """Decodes a JPEG or PNG to `[height, width, 3]` uint8, exactly as Pillow does."""
    image = tf.cond(
        tf.io.is_jpeg(encoded),
        lambda: tf.io.decode_jpeg(encoded, 3, dct_method="INTEGER_ACCURATE"),
        lambda: tf.io.decode_image(encoded, 3, expand_animations=False),
    )
    image.set_shape((None, None, 3))
    return image


def _shuffle_buffer(paths):
    """The number of records to shuffle among, so many that memory holds them."""
    number = sum(records.count(path) for path in paths)
    mean_bytes = sum(path.stat().st_size for path in paths) / max(number, 1)
    return max(1, min(_SHUFFLE_PICTURES, int(_SHUFFLE_BYTES / max(mean_bytes, 1))))


def iterate(dataset):
    """Iterates over a (distributed) dataset of `build_dataset`.

    Raises:
        InputError: a record is damaged, its picture cannot be decoded, or one of its
            classes is not in the class file.
    """
    iterator = iter(dataset)
    while True:
        try:
            batch = next(iterator)
        except StopIteration:
            return
        except (tf.errors.InvalidArgumentError, tf.errors.DataLossError) as error:
            raise InputError(
                f"a record cannot be used: {_reason(error)}; were the TFRecord files "
                "and the class file written by the same run of convert_superbai.py?"
            ) from error
        yield batch


def _reason(error):
    """The part of a TensorFlow error that says what is wrong, without its graph."""
    text = re.sub(r"\{\{[^}]*\}\}|\[Op:.*|\[\[.*|assertion failed:", "", error.message)
    return " ".join(text.split())[:500]
