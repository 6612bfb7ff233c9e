"""Images in record files that cannot be decoded: their names, and datasets without."""

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
        self._numbers_of = {}  # From `RecordFiles` to a variable.

    def watch(self, files):
        """Adds `record_files.RecordFiles` to those that are searched.

        Returns:
            A `tf.Variable` with the numbers of their unreadable images.
        """
        if files not in self._numbers_of:
            with tf.device("/cpu:0"):  # Where tf.data runs.
                self._numbers_of[files] = tf.Variable(
                    tf.zeros([0], tf.int64), trainable=False, shape=[None]
                )
        return self._numbers_of[files]

    def build_replacement(self, files):
        """Builds a function that replaces the images that were found.

        Args:
            files: the `record_files.RecordFiles`, which are watched.

        Returns:
            A function from the number of a record, its parsed example and its weight to
            an example and a weight. Those of an unreadable image become a small grey
            image without boxes, and 0. So neither the shapes nor the order of batches
            change, and nothing is learned or measured on it.
        """
        numbers = self.watch(files)
        grey = tf.fill((_STAND_IN_SIDE, _STAND_IN_SIDE, 3), tf.cast(GREY, tf.uint8))
        stand_in = tf.io.encode_png(grey).numpy()

        def replace(number, example, weight):
            is_readable = tf.reduce_all(numbers.read_value() != number)
            kept = tf.where(is_readable, tf.shape(example["labels"])[0], 0)
            return {
                **example,
                # Not `tf.where`, which copies the bytes.
                "encoded": tf.cond(
                    is_readable, lambda: example["encoded"], lambda: stand_in
                ),
                **{
                    side: tf.where(is_readable, example[side], _STAND_IN_SIDE)
                    for side in ("width", "height")
                },
                "boxes": example["boxes"][:kept],
                "labels": example["labels"][:kept],
            }, weight * tf.cast(is_readable, tf.float32)

        return replace

    def search(self):
        """Searches all files for images that cannot be decoded.

        Returns:
            Whether there are any that were not known yet.

        Raises:
            InputError: there are more than are accepted; or a record is damaged, has
                another schema, or has a class that is not among the class names.
        """
        logging.info("a record cannot be used: searching for others")
        known, messages = len(self.names), []
        self.names = []
        for files, numbers in self._numbers_of.items():
            found = find_unreadable(files, self._class_names)
            numbers.assign(tf.constant(list(found), tf.int64))
            self.names += [name for name, _ in found.values()]
            messages += [f"{name} ({message})" for name, message in found.values()]
        self.check_number(messages)
        if len(self.names) > known:
            for message in messages:
                logging.warning("left out, cannot be decoded: %s", message)
        return len(self.names) > known

    def check_number(self, images):
        """Returns the number of unreadable images, of all workers.

        Args:
            images: list of strings that name them.

        Raises:
            InputError: there are more than are accepted.
        """
        if len(images) > self._max_number:
            raise InputError(
                f"{len(images)} images cannot be decoded: {list_first(images)}; were "
                "the TFRecord files damaged, or written by another program? Convert "
                "the images again, or leave these out with "
                f"--max_unreadable={len(images)}."
            )
        return len(images)


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
    # Compiled, a failed assertion has a message of one line.
    parse = tf.function(build_parser(class_names), autograph=False)

    @tf.function(autograph=False)
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
            found[number] = _explain(files, number, parse, decode)
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
