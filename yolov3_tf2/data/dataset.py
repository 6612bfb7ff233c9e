"""tf.data: TFRecord files to batches of pictures, boxes and targets."""

import os

import numpy as np
import tensorflow as tf

from yolov3_tf2.boxes import letterbox
from yolov3_tf2.boxes.assignment import assign_boxes
from yolov3_tf2.data import records
from yolov3_tf2.data.augment import augment, mosaic
from yolov3_tf2.data.jpeg import decode_scaled
from yolov3_tf2.errors import InputError, reason

_PARALLEL = os.cpu_count()


# Of pictures that are decoded whole, each of up to `images.MAX_PIXELS`.
_PARALLEL_WHOLE = min(_PARALLEL, 8)


_PREFETCH = 2


# Of records that are parsed for their class names, which have whole pictures in them:
# no more on a machine of many cores, and no slower than batches of 64.
_COUNT_BATCH = 8


_COUNT_PARALLEL = 4


# The functions of the datasets below need no `if` or loop over tensors translated, and
# translating their source takes seconds.
_as_written = tf.autograph.experimental.do_not_convert


@_as_written
def build_dataset(files, class_names, variant, size, batch_size, fill_last_batch=False):
    """Builds the batches of one pass over TFRecord files, in their order.

    Args:
        files: a `record_files.RecordFiles`. Where it is a share of several, each share
            has as many batches, and the last ones are filled.
        class_names: list of strings; a box's label is the index of its class in it.
        variant: the `variants.Variant` that the targets are for.
        size: side of the network's input, pixels.
        batch_size: pictures a batch; the last batch may be smaller.
        fill_last_batch: repeats pictures, with weight 0, until the last batch is as
            large as the others: every device that shares a batch then has some.

    Returns:
        A `tf.data.Dataset` of dicts: `images` `[batch, size, size, 3]`; `boxes`
        `[batch, boxes, 4]` xyxy, fractions of the input, and `labels`
        `[batch, boxes]`, both padded with boxes without area; `targets` and `lost`,
        see `assign_boxes`; `sizes` `[batch, 2]`, width and height of the pictures
        before letterboxing, pixels; `numbers` `[batch]`, a picture's place in the
        files, from 0; `weights` `[batch]`, 1 for a picture, 0 for a repeated one.
    """
    read = _reader(class_names)

    def load(number, serialized, weight):
        example = read(serialized)
        # Whole, as in detection: what is measured is what detection will find.
        image, boxes = _letterbox(example, size, is_whole=True)
        return _element(number, weight, example, image, boxes)

    num_repeated = files.num_repeated(batch_size, fill_last_batch)
    return (
        _weighted(files.in_order(), 1.0)
        .concatenate(_weighted(files.in_order().repeat().take(num_repeated), 0.0))
        .map(load, num_parallel_calls=_PARALLEL_WHOLE)
        .padded_batch(batch_size)
        .map(_finish(variant, size), _PARALLEL)
        .prefetch(_PREFETCH)
        .with_options(_options())
    )


@_as_written
def build_training_dataset(
    files,
    class_names,
    variant,
    sizes,
    batch_size,
    strengths,
    seed,
    epoch,
    mosaic_epochs,
    fill_last_batch=False,
):
    """Builds the shuffled and augmented batches of an epoch.

    Order, sizes and changes of the pictures are a function of `seed` and the epoch.

    Args:
        files, class_names, variant, batch_size, fill_last_batch: see
            `build_dataset`.
        sizes: list of sides of the network's input, pixels; each batch has one.
        strengths: see `augment.augment`.
        seed: an integer.
        epoch: an int64 `tf.Variable`, read at the start of each pass.
        mosaic_epochs: the last epoch with mosaics: boxes that their cuts have clipped
            teach to look for objects, and not where their edges are.

    Returns:
        See `build_dataset`. With several `sizes`, the shapes change with the batch.
    """
    read = _reader(class_names)
    changes = any(strengths[kind] for kind in strengths if kind != "mosaic")
    num_repeated = files.num_repeated(batch_size, fill_last_batch)

    def shuffle(_):
        # Of this function's graph alone: with a seed of 0 for the whole program,
        # `shuffle` would refuse a tensor.
        tf.random.set_seed(1)
        shuffled = files.mixed(_seed(seed, epoch, -1)).shuffle(
            files.shuffle_buffer(),
            seed=epoch * 1_000_003 + seed,
            reshuffle_each_iteration=False,
        )
        repeated = files.in_order().repeat().take(num_repeated)
        records_of_epoch = _weighted(shuffled, 1.0).concatenate(
            _weighted(repeated, 0.0)
        )
        # The place in the epoch tells the batch, and so its size.
        return records_of_epoch.enumerate().map(
            lambda place, record: (epoch.read_value(), place, *record)
        )

    def size_of_batch(epoch, place):
        if len(sizes) == 1:
            return sizes[0]
        index = tf.random.stateless_uniform(
            (), _seed(seed, epoch, -1 - place // batch_size), 0, len(sizes), tf.int32
        )
        return tf.constant(sizes)[index]

    def load(epoch, place, number, serialized, weight):
        example = read(serialized)
        size = size_of_batch(epoch, place)
        if changes:
            image, boxes = augment(
                lambda inner: decode_scaled(example, inner),
                (example["width"], example["height"]),
                example["boxes"],
                size,
                strengths,
                _seed(seed, epoch, number),
            )
        else:
            image, boxes = _letterbox(example, size, is_whole=False)
        return {"epoch": epoch, **_element(number, weight, example, image, boxes)}

    def finish(batch):
        batch_epoch = batch.pop("epoch")[0]
        size = tf.shape(batch["images"])[1] if len(sizes) > 1 else sizes[0]
        if strengths["mosaic"]:
            mosaic_seed = _seed(seed, batch_epoch, batch["numbers"][0])[::-1]
            goes_on = tf.cast(batch_epoch <= mosaic_epochs, tf.float32)
            batch = mosaic(batch, strengths["mosaic"] * goes_on, size, mosaic_seed)
        return _finish(variant, size)(batch)

    return (
        tf.data.Dataset.from_tensors(0)
        .flat_map(shuffle)
        .map(load, num_parallel_calls=_PARALLEL)
        .padded_batch(batch_size)
        .map(finish, num_parallel_calls=_PARALLEL)
        .prefetch(_PREFETCH)
        .with_options(_options())
    )


@_as_written
def count_boxes(files, class_names):
    """Counts the boxes of each class in records, without decoding a picture.

    A class that is not among the names is not counted; the datasets above refuse it.

    Args:
        files: a `record_files.RecordFiles`; where it is a share, of this alone.
        class_names: list of strings.

    Returns:
        `[classes]` int64 array.

    Raises:
        InputError: a record is damaged.
    """
    table = _label_table(class_names)
    dataset = (
        files.in_order()
        .batch(_COUNT_BATCH)
        .map(
            lambda _, rows: table.lookup(records.parse_class_names(rows)),
            _COUNT_PARALLEL,
        )
        .prefetch(_PREFETCH)
        .with_options(_options())
    )
    numbers = np.zeros(len(class_names), "int64")
    for labels in iterate(dataset):
        labels = labels.numpy()
        numbers += np.bincount(labels[labels >= 0], minlength=len(class_names))
    return numbers


def _options():
    options = tf.data.Options()
    # TensorFlow 2.21's tuning thread sleeps ever longer, up to a minute, and misses
    # half of the calls to stop: the end of an epoch then waits until it wakes.
    options.autotune.enabled = False
    return options


def _weighted(pairs, weight):
    return pairs.map(lambda number, row: (number, row, weight))


def _label_table(class_names):
    """A table from a class name to its index, -1 for a name that is not known."""
    return tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(
            tf.constant(class_names), tf.range(len(class_names))
        ),
        default_value=-1,
    )


def _reader(class_names):
    """A function from a record to its example, with `labels` `[boxes]`."""
    table = _label_table(class_names)

    def read(serialized):
        example = records.parse_example(serialized)
        labels = table.lookup(example["class_names"])
        unknown = tf.boolean_mask(example["class_names"], labels < 0)
        check = tf.debugging.Assert(
            tf.size(unknown) == 0,
            ["classes not in the class file:", unknown, example["source_id"]],
        )
        with tf.control_dependencies([check]):
            sides = {s: tf.cast(example[s], tf.int32) for s in ("width", "height")}
        return {**example, **sides, "labels": labels}

    return read


def _element(number, weight, example, image, boxes):
    # One box of padding each, so that a batch without any box has boxes too.
    return {
        "images": image,
        "boxes": tf.pad(boxes, ((0, 1), (0, 0))),
        "labels": tf.pad(example["labels"], ((0, 1),)),
        "sizes": tf.stack([example["width"], example["height"]]),
        "numbers": number,
        "weights": weight,
    }


def _finish(variant, size):
    """A function that adds targets to a batch."""

    def finish(batch):
        targets, lost = assign_boxes(batch["boxes"], batch["labels"], variant, size)
        images = letterbox.to_float(batch["images"])
        return {**batch, "images": images, "targets": targets, "lost": lost}

    return finish


def _seed(seed, epoch, number):
    """The two integers that `tf.random.stateless_*` want."""
    return tf.stack([seed * 100_003 + epoch, tf.cast(number, tf.int64)])


def _letterbox(example, size, is_whole):
    """Image and boxes of an example on the network's input.

    Args:
        is_whole: whether a large JPEG is decoded to all of its pixels, see `_decode`.
    """
    sides = (example["width"], example["height"])
    inner, corner = letterbox.fit_image(*sides, size)
    image = decode_scaled(example, sides if is_whole else inner)
    image = letterbox.place_image(image, inner, corner, size)
    return image, letterbox.boxes_to_letterbox(example["boxes"], *sides, size)


def iterate(dataset):
    """Iterates over a dataset of `build_dataset` or `build_training_dataset`.

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
                f"a record cannot be used: {reason(error)}; were the TFRecord files "
                "and the class file written by the same run of convert_superbai.py?"
            ) from error
        yield batch
