"""Finds images in record files that cannot be decoded, and replaces them."""

import os

import tensorflow as tf
from absl import logging

from yolov3_tf2.boxes.letterbox import GREY
from yolov3_tf2.data.examples import build_parser
from yolov3_tf2.data.jpeg import decode_image
from yolov3_tf2.errors import InputError, list_first, reason

_PARALLEL = min(os.cpu_count(), 8)
_STAND_IN_SIDE = 8  # Pixels.
_SMALLEST = (1, 1)  # To decode a JPEG at its smallest scale: as strict and faster.


class UnreadableImages:
    """The images of all record files of a run that cannot be decoded.

    tf.data cannot go on after an image that fails: its whole batch is lost. So the
    images are searched for when the first one fails, in all files, and datasets are
    read again without them, see `dataset.iterate`. Where all images can be decoded, as
    almost always, this costs nothing; otherwise as much as decoding all images once.

    Attributes:
        names: list of the `source_id` of the images found so far.
    """

    def __init__(self, class_names, max_number=0):
        """Takes the class names, and the number of unreadable images to accept."""
        self.names = []
        self._class_names, self._max_number = class_names, max_number
        self._numbers_of = {}  # By `RecordFiles`.

    def numbers_of(self, files):
        """Returns the numbers of the images of files that were found, a list.

        Args:
            files: a `record_files.RecordFiles`, which is searched from now on.
        """
        return self._numbers_of.setdefault(files, [])

    def search(self):
        """Searches all files for images that cannot be decoded.

        Returns:
            Whether there are any that were not known yet.

        Raises:
            InputError: there are more than are accepted; or a record is damaged, has
                another schema, or has a class that is not among the class names.
        """
        logging.info("a record cannot be used: searching all records for such")
        known, messages = len(self.names), []
        self.names = []
        for files in self._numbers_of:
            found = find_unreadable(files, self._class_names)
            self._numbers_of[files] = list(found)
            self.names += [name for name, _ in found.values()]
            messages += [f"{name} ({message})" for name, message in found.values()]
        self.check_number(messages)
        if len(self.names) > known:
            for message in messages:
                logging.warning("left out, cannot be decoded: %s", message)
        return len(self.names) > known

    def check_number(self, images):
        """Raises an `InputError` if there are more unreadable images than accepted.

        Args:
            images: list of strings that name them, of all workers.
        """
        if len(images) > self._max_number:
            raise InputError(
                f"{len(images)} images cannot be decoded: {list_first(images)}; are "
                "these images damaged, or were the TFRecord files written by another "
                "program? Replace them and convert again, or leave them out with "
                f"--max_unreadable={len(images)}."
            )


def build_replacement(numbers):
    """Builds a function that replaces unreadable images, for a dataset.

    Args:
        numbers: the numbers of their records, a list.

    Returns:
        A function from the number of a record, its parsed example and its weight to an
        example and a weight. Those of an unreadable image become a small grey image
        without boxes, and 0. So neither the shapes nor the order of batches change, and
        nothing is learned or measured on it.
    """
    if not numbers:  # As almost always: the dataset then has no operation for it.
        return lambda number, example, weight: (example, weight)
    grey = tf.fill((_STAND_IN_SIDE, _STAND_IN_SIDE, 3), tf.cast(GREY, tf.uint8))
    stand_in = tf.io.encode_png(grey).numpy()

    def replace(number, example, weight):
        is_readable = tf.reduce_all(tf.constant(numbers, tf.int64) != number)
        kept = tf.where(is_readable, tf.shape(example["labels"])[0], 0)
        replaced = {
            "encoded": tf.where(is_readable, example["encoded"], stand_in),
            "width": tf.where(is_readable, example["width"], _STAND_IN_SIDE),
            "height": tf.where(is_readable, example["height"], _STAND_IN_SIDE),
            "boxes": example["boxes"][:kept],
            "labels": example["labels"][:kept],
        }
        return example | replaced, weight * tf.cast(is_readable, tf.float32)

    return replace


@tf.autograph.experimental.do_not_convert
def find_unreadable(files, class_names):
    """Finds the images that cannot be decoded.

    Args:
        files: a `record_files.RecordFiles`; of a share, only its records are read.
        class_names: list of strings.

    Returns:
        A dict from the number of a record to its `source_id` and the reason, with the
        name of its file.

    Raises:
        InputError: a record is damaged, has another schema, or has a class that is not
            among the class names.
    """
    parse = build_parser(class_names)

    def decode(example):
        return decode_image(example, _SMALLEST)

    options = tf.data.Options()
    options.autotune.enabled = False
    results = iter(
        files.in_order()
        # An image that nobody uses would not be decoded.
        .map(lambda _, row: tf.size(decode(parse(row))), num_parallel_calls=_PARALLEL)
        .with_options(options)
    )
    found = {}
    for number in files.own_numbers:
        try:
            next(results)
        except tf.errors.DataLossError as error:
            raise _damaged(files, number, error) from error
        except tf.errors.InvalidArgumentError:
            # Compiled, a failed assertion has a message of one line. The dataset must
            # not call compiled functions: where there are several workers, it fails.
            compiled = (tf.function(each, autograph=False) for each in (parse, decode))
            found[number] = _explain(files, number, *compiled)
    return found


def _explain(files, number, parse, decode):
    """Returns the `source_id` of a record whose image cannot be decoded, and why."""
    path, index = files.locate(number)
    try:
        example = parse(files.read(number))
    except tf.errors.InvalidArgumentError as error:
        raise InputError(
            f"{path}: record {index} cannot be used: {reason(error)}; were the "
            "TFRecord files and the class file written by the same run of "
            "convert_superbai.py?"
        ) from error
    try:
        decode(example)
        message = "not always"
    except tf.errors.InvalidArgumentError as error:
        message = reason(error)
    return example["source_id"].numpy().decode("utf-8", "replace"), f"{path}: {message}"


def _damaged(files, number, error):
    path, index = files.locate(number)
    return InputError(
        f"{path}: record {index} is damaged: {reason(error)}; was the file changed "
        "while it was copied? Copy it or convert the images again."
    )
