"""From the bytes of a record to an image, boxes and labels for the network."""

import tensorflow as tf

from yolov3_tf2.boxes import letterbox
from yolov3_tf2.data import records
from yolov3_tf2.data.jpeg import decode_image
from yolov3_tf2.names import unicode_forms


def build_label_table(class_names):
    """Returns a table from class name, in NFC or NFD, to label; -1 for an unknown name.

    Records of other programs can have names as macOS writes them, in NFD.
    """
    labels = {
        form: label
        for label, name in enumerate(class_names)
        for form in unicode_forms(name)
    }
    return tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(list(labels), list(labels.values())),
        default_value=-1,
    )


def build_parser(class_names):
    """Builds a function that parses a record and looks up its labels.

    Args:
        class_names: list of strings; the label of a box is the index of its class.

    Returns:
        A function from a serialized record to the dict of `records.parse_example`,
        with `labels` `[boxes]`, and `width` and `height` as int32. Running it on a
        record of an unknown class raises an `InvalidArgumentError`.
    """
    table = build_label_table(class_names)

    def parse(serialized):
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

    return parse


def letterbox_example(example, size, *, may_reduce):
    """Returns image and boxes of an example on the network's input.

    Args:
        example: the result of a parser, see `build_parser`.
        size: side of the input, pixels.
        may_reduce: whether a large JPEG may be decoded at a smaller scale, see
            `jpeg.decode_image`.

    Returns:
        `[size, size, 3]` uint8 RGB, and `[boxes, 4]` xyxy, fractions of the input.
    """
    sides = (example["width"], example["height"])
    inner, corner = letterbox.fit_image(*sides, size)
    image = decode_image(example, inner if may_reduce else sides)
    image = letterbox.place_image(image, inner, corner, size)
    return image, letterbox.boxes_to_letterbox(example["boxes"], *sides, size)
