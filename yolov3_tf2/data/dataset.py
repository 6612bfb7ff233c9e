"""tf.data: TFRecord files to batches of images, boxes and targets."""

import os

import tensorflow as tf

from yolov3_tf2.boxes import letterbox
from yolov3_tf2.boxes.assignment import assign_boxes
from yolov3_tf2.data.augment import augment_image
from yolov3_tf2.data.examples import build_parser, letterbox_example
from yolov3_tf2.data.jpeg import decode_image
from yolov3_tf2.data.mosaic import make_mosaics
from yolov3_tf2.data.unreadable import UnreadableImages, build_replacement
from yolov3_tf2.errors import InputError, reason

_PARALLEL = os.cpu_count()
# For images that are decoded whole, each of up to `images.MAX_PIXELS`.
_PARALLEL_WHOLE = min(_PARALLEL, 8)
_PREFETCH = 2

# No function of the datasets below has an `if` or a loop over tensors for AutoGraph to
# convert, and trying to takes seconds.
_without_autograph = tf.autograph.experimental.do_not_convert


class Batches:
    """A dataset of records without their unreadable images, see `iterate`.

    Attributes:
        build: function from the numbers of unreadable images, a list, to a
            `tf.data.Dataset`, which is the same in each pass.
        files: its `record_files.RecordFiles`.
        unreadable: the `UnreadableImages` of the run.
    """

    def __init__(self, build, files, unreadable):
        self.build, self.files, self.unreadable = build, files, unreadable
        self._numbers = self._dataset = None
        unreadable.numbers_of(files)  # Searched with the others, read or not.

    @property
    def dataset(self):
        """The `tf.data.Dataset` without the unreadable images that were found."""
        numbers = self.unreadable.numbers_of(self.files)
        if numbers != self._numbers:
            self._numbers, self._dataset = numbers, self.build(numbers)
        return self._dataset

    @property
    def element_spec(self):
        """As of a `tf.data.Dataset`."""
        return self.dataset.element_spec


@_without_autograph
def build_dataset(
    files,
    class_names,
    variant,
    size,
    batch_size,
    fill_last_batch=False,
    unreadable=None,
):
    """Builds the batches of one pass over TFRecord files, in their order.

    Args:
        files: a `record_files.RecordFiles`. If it is one of several shares, every share
            has the same number of batches, and the last batches are filled.
        class_names: list of strings; the label of a box is the index of its class.
        variant: the `variants.Variant` that the targets are for.
        size: side of the network's input, pixels.
        batch_size: images per batch; the last batch may be smaller.
        fill_last_batch: whether to repeat images, with weight 0, until the last batch
            is full. Then every device that takes a part of the batch has images.
        unreadable: the `UnreadableImages` of the run; if None, none is accepted.

    Returns:
        `Batches` of dicts: `images` `[batch, size, size, 3]`; `boxes`
        `[batch, boxes, 4]` xyxy, fractions of the input, and `labels`
        `[batch, boxes]`, both padded with boxes without area; `targets` and
        `unassigned`, see `assign_boxes`; `sizes` `[batch, 2]`, width and height of the
        images before letterboxing, pixels; `numbers` `[batch]`, the index of each image
        in the files; `weights` `[batch]`, 1 for an image, 0 for a repeated or an
        unreadable one.
    """
    parse = build_parser(class_names)
    unreadable = unreadable or UnreadableImages(class_names)

    @_without_autograph
    def build(unreadable_numbers):
        replace_unreadable = build_replacement(unreadable_numbers)

        def load(number, serialized, weight):
            example, weight = replace_unreadable(number, parse(serialized), weight)
            # As in detection, so that what is measured is what detection will find.
            image, boxes = letterbox_example(example, size, may_reduce=False)
            return _element(number, weight, example, image, boxes)

        return (
            _append_repeated(files.in_order(), files, batch_size, fill_last_batch)
            .map(load, num_parallel_calls=_PARALLEL_WHOLE)
            .padded_batch(batch_size)
            .map(lambda batch: _add_targets(batch, variant, size), _PARALLEL)
            .prefetch(_PREFETCH)
            .with_options(build_options())
        )

    return Batches(build, files, unreadable)


@_without_autograph
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
    unreadable=None,
):
    """Builds the shuffled and augmented batches of an epoch.

    Order, sizes and augmentation are a function of `seed` and the epoch.

    Args:
        files, class_names, variant, batch_size, fill_last_batch, unreadable: see
            `build_dataset`.
        sizes: list of sides of the network's input, pixels; each batch has one.
        strengths: a dict with the keys of `augment.STRENGTHS`.
        seed: an integer.
        epoch: an int64 `tf.Variable`, read at the start of each pass.
        mosaic_epochs: the last epoch with mosaics. Boxes that a mosaic has clipped
            teach the network to find objects, but not where their edges are.

    Returns:
        See `build_dataset`. With several `sizes`, the shapes change with the batch.
    """
    parse = build_parser(class_names)
    unreadable = unreadable or UnreadableImages(class_names)
    changes_images = any(strengths[kind] for kind in strengths if kind != "mosaic")

    def size_of_batch(epoch, index):
        if len(sizes) == 1:
            return sizes[0]
        choice = tf.random.stateless_uniform(
            (), _seed(seed, epoch, -1 - index // batch_size), 0, len(sizes), tf.int32
        )
        return tf.constant(sizes)[choice]

    def load(epoch, index, number, example, weight):
        size = size_of_batch(epoch, index)
        if changes_images:
            image, boxes = augment_image(
                lambda target: decode_image(example, target),
                (example["width"], example["height"]),
                example["boxes"],
                size,
                strengths,
                _seed(seed, epoch, number),
            )
        else:
            image, boxes = letterbox_example(example, size, may_reduce=True)
        return {"epoch": epoch, **_element(number, weight, example, image, boxes)}

    def finish(batch):
        batch_epoch = batch.pop("epoch")[0]
        size = tf.shape(batch["images"])[1] if len(sizes) > 1 else sizes[0]
        if strengths["mosaic"]:
            mosaic_seed = _seed(seed, batch_epoch, batch["numbers"][0])[::-1]
            has_mosaics = tf.cast(batch_epoch <= mosaic_epochs, tf.float32)
            probability = strengths["mosaic"] * has_mosaics
            batch = make_mosaics(batch, probability, size, mosaic_seed)
        return _add_targets(batch, variant, size)

    @_without_autograph
    def build(unreadable_numbers):
        replace_unreadable = build_replacement(unreadable_numbers)

        def load_readable(epoch, index, number, serialized, weight):
            example = parse(serialized)
            replaced = replace_unreadable(number, example, weight)
            return load(epoch, index, number, *replaced)

        return (
            _shuffled_records(files, batch_size, fill_last_batch, seed, epoch)
            .map(load_readable, num_parallel_calls=_PARALLEL)
            .padded_batch(batch_size)
            .map(finish, num_parallel_calls=_PARALLEL)
            .prefetch(_PREFETCH)
            .with_options(build_options())
        )

    return Batches(build, files, unreadable)


def iterate(batches):
    """Iterates over `Batches`, and leaves out images that cannot be decoded.

    After the first image that fails, all files are searched for others. Then the
    dataset is built again without them and read up to the batch that failed: the same
    batches once more, and from there on with the images replaced.

    Raises:
        InputError: there are more unreadable images than are accepted; or a record is
            damaged, has another schema, or has a class that is not in the class file.
    """
    done, iterator = 0, iter(batches.dataset)
    while True:
        try:
            batch = next(iterator)
        except StopIteration:
            return
        except (tf.errors.InvalidArgumentError, tf.errors.DataLossError) as error:
            if not batches.unreadable.search():
                raise InputError(
                    f"a record cannot be used: {reason(error)}."
                ) from error
            iterator = iter(batches.dataset.skip(done))
            continue
        done += 1
        yield batch


def build_options():
    """Returns the `tf.data.Options` of all datasets."""
    options = tf.data.Options()
    # The tuning thread of TensorFlow 2.21 sleeps for up to a minute and misses half of
    # the calls to stop: the end of an epoch would wait until it wakes up.
    options.autotune.enabled = False
    return options


def _append_repeated(rows, files, batch_size, fill_last_batch):
    """Adds weights to (number, serialized) rows, and appends repeated rows.

    Returns:
        A dataset of (number, serialized, weight).
    """
    num_repeated = files.num_repeated(batch_size, fill_last_batch)
    repeated = files.in_order().repeat().take(num_repeated)
    return rows.map(lambda *row: (*row, 1.0)).concatenate(
        repeated.map(lambda *row: (*row, 0.0))
    )


def _shuffled_records(files, batch_size, fill_last_batch, seed, epoch):
    """Returns a dataset of (epoch, index in the epoch, number, serialized, weight)."""

    def shuffle(_):
        # In the graph of this function only: with a global seed of 0, `shuffle` refuses
        # a tensor as its seed.
        tf.random.set_seed(1)
        shuffled = files.interleaved(_seed(seed, epoch, -1)).shuffle(
            files.shuffle_buffer(),
            seed=epoch * 1_000_003 + seed,
            reshuffle_each_iteration=False,
        )
        rows = _append_repeated(shuffled, files, batch_size, fill_last_batch)
        return rows.enumerate().map(lambda i, row: (epoch.read_value(), i, *row))

    # `flat_map` runs the function at the start of each pass, and so reads the epoch
    # then. Outside of it, `shuffle` would take its seed when the dataset is built.
    # Building a dataset for each epoch takes 0.7 s: all its functions are traced again.
    return tf.data.Dataset.from_tensors(0).flat_map(shuffle)


def _element(number, weight, example, image, boxes):
    # One box of padding each, so that a batch without boxes has a box dimension too.
    return {
        "images": image,
        "boxes": tf.pad(boxes, ((0, 1), (0, 0))),
        "labels": tf.pad(example["labels"], ((0, 1),)),
        "sizes": tf.stack([example["width"], example["height"]]),
        "numbers": number,
        "weights": weight,
    }


def _add_targets(batch, variant, size):
    """Returns the batch with targets, and its images as float32."""
    targets, unassigned = assign_boxes(batch["boxes"], batch["labels"], variant, size)
    images = letterbox.to_float(batch["images"])
    return {**batch, "images": images, "targets": targets, "unassigned": unassigned}


def _seed(seed, epoch, number):
    """Returns the two integers that `tf.random.stateless_*` take as a seed."""
    return tf.stack([seed * 100_003 + epoch, tf.cast(number, tf.int64)])
