"""The TFRecord schema between the steps: serialize, parse, check and count examples.

The feature names are those of the TensorFlow Object Detection API, so that other tools
can read the files. Boxes are fractions of the image. The image is stored upright, as
JPEG or PNG of 8 bits, without an EXIF orientation. `image/gray_range` is a feature of
this project: the (black, white) values of an image that had 16 bits per channel.
"""

import struct

import tensorflow as tf

from yolov3_tf2.errors import InputError, reason
from yolov3_tf2.names import normalise_name

_BBOX = "image/object/bbox/"
_GRAY_RANGE = "image/gray_range"
_FEATURES = {
    "image/encoded": tf.io.FixedLenFeature([], tf.string),
    "image/source_id": tf.io.FixedLenFeature([], tf.string),
    "image/height": tf.io.FixedLenFeature([], tf.int64),
    "image/width": tf.io.FixedLenFeature([], tf.int64),
    **{
        _BBOX + side: tf.io.VarLenFeature(tf.float32)
        for side in ("xmin", "ymin", "xmax", "ymax")
    },
    "image/object/class/text": tf.io.VarLenFeature(tf.string),
}


def serialize_example(record, class_names):
    """Returns the bytes of a `tf.train.Example`.

    Args:
        record: a record with the attributes `encoded` (bytes of a JPEG or PNG),
            `format`, `source_id`, `width`, `height`, `boxes_px` (xyxy, pixels),
            `labels` and `gray_range` (None if the image had 8 bits).
        class_names: list of strings, which the labels of the record index.
    """

    def ints(*values):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))

    def floats(values):
        return tf.train.Feature(float_list=tf.train.FloatList(value=values))

    def texts(*values):
        values = [v if isinstance(v, bytes) else v.encode("utf-8") for v in values]
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))

    width, height = record.width, record.height
    features = {
        "image/encoded": texts(record.encoded),
        "image/format": texts(record.format),
        "image/filename": texts(record.source_id),
        "image/source_id": texts(record.source_id),
        "image/height": ints(height),
        "image/width": ints(width),
        _BBOX + "xmin": floats([box[0] / width for box in record.boxes_px]),
        _BBOX + "ymin": floats([box[1] / height for box in record.boxes_px]),
        _BBOX + "xmax": floats([box[2] / width for box in record.boxes_px]),
        _BBOX + "ymax": floats([box[3] / height for box in record.boxes_px]),
        "image/object/class/text": texts(*[class_names[i] for i in record.labels]),
        # Ids from 1, as 0 is the background; this project reads the names.
        "image/object/class/label": ints(*(label + 1 for label in record.labels)),
    }
    if record.gray_range:
        features[_GRAY_RANGE] = ints(*record.gray_range)
    example = tf.train.Example(features=tf.train.Features(feature=features))
    return example.SerializeToString(deterministic=True)


def parse_example(serialized):
    """Parses one example; runs eagerly and inside tf.data.

    Returns:
        A dict: `encoded`, `source_id` strings; `width`, `height` int64 pixels;
        `boxes` `[boxes, 4]` float32 xyxy, fractions; `class_names` `[boxes]` strings.
    """
    example = tf.io.parse_single_example(serialized, _FEATURES)
    sides = [
        tf.sparse.to_dense(example[_BBOX + side])
        for side in ("xmin", "ymin", "xmax", "ymax")
    ]
    return {
        "encoded": example["image/encoded"],
        "source_id": example["image/source_id"],
        "width": example["image/width"],
        "height": example["image/height"],
        "boxes": tf.stack(sides, axis=-1),
        "class_names": tf.sparse.to_dense(example["image/object/class/text"], ""),
    }


def parse_contents(serialized):
    """Parses a batch of examples without their images.

    Args:
        serialized: `[examples]` strings.

    Returns:
        A dict: `source_id` `[examples]` strings; `hash` `[examples]` int64, equal where
        the encoded images are equal; `num_boxes` `[examples]` int64; and, of the boxes
        of all examples, `class_names` `[boxes]` strings and `sizes` `[boxes, 2]`
        float32, width and height as fractions of the longer side of their image; and
        `gray_ranges` `[examples of 16 bits, 2]` int64.
    """
    features = {
        name: tf.io.RaggedFeature(feature.dtype, row_splits_dtype=tf.int64)
        if isinstance(feature, tf.io.VarLenFeature)
        else feature
        for name, feature in _FEATURES.items()
    }
    features[_GRAY_RANGE] = tf.io.RaggedFeature(tf.int64)
    examples = tf.io.parse_example(serialized, features)
    names = examples["image/object/class/text"]
    xmin, ymin, xmax, ymax = (
        examples[_BBOX + side].values for side in ("xmin", "ymin", "xmax", "ymax")
    )
    sides = tf.stack([examples["image/width"], examples["image/height"]], axis=-1)
    shares = sides / tf.reduce_max(sides, axis=-1, keepdims=True)  # [examples, 2]
    sizes = tf.stack([xmax - xmin, ymax - ymin], axis=-1)
    return {
        "source_id": examples["image/source_id"],
        "hash": tf.strings.to_hash_bucket_fast(examples["image/encoded"], 2**63 - 1),
        "num_boxes": names.row_lengths(),
        "class_names": names.values,
        "sizes": sizes * tf.cast(tf.gather(shares, names.value_rowids()), tf.float32),
        "gray_ranges": tf.reshape(examples[_GRAY_RANGE].values, (-1, 2)),
    }


def read_examples(paths, numbers):
    """Reads single records of TFRecord files.

    Args:
        paths: list of the files.
        numbers: indices of records in all files, in any order.

    Returns:
        A list of the results of `parse_example`, in the order of `numbers`.
    """
    rows = enumerate(tf.data.TFRecordDataset([str(path) for path in paths]))
    requested = set(numbers)
    examples = {n: parse_example(row) for n, row in rows if n in requested}
    return [examples[number] for number in numbers]


def check_first_record(path, class_names):
    """Checks the schema of the first record of a file, and its class names.

    Raises:
        InputError: it does not have the schema, or has a class that is not among
            `class_names`.
    """
    names = []
    cause = "were the file and the class file written by convert_superbai.py?"
    try:
        for serialized in tf.data.TFRecordDataset(str(path)).take(1):
            names = parse_example(serialized)["class_names"].numpy()
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError) as error:
        raise InputError(
            f"{path}: its first record cannot be used: {reason(error)}; {cause}"
        ) from error
    found = {normalise_name(name.decode("utf-8", "replace")) for name in names}
    unknown = found - set(class_names)
    if unknown:
        raise InputError(
            f"{path}: its first record has a class that is not in the class file: "
            f"expected {', '.join(class_names[:10])}, "
            f"got {', '.join(sorted(unknown))}; {cause}"
        )


def count_records(path):
    """Counts the records of a TFRecord file by their length fields alone.

    Raises:
        InputError: the file does not end where its last record ends.
    """
    # A record: uint64 length, uint32 checksum of it, the bytes, uint32 checksum.
    size, end, number = path.stat().st_size, 0, 0
    with path.open("rb") as file:
        while end < size:
            file.seek(end)
            header = file.read(12)
            if len(header) == 12:
                end += 16 + struct.unpack("<Q", header[:8])[0]
            if len(header) < 12 or end > size:
                raise InputError(
                    f"{path}: expected a TFRecord file, got one that ends inside "
                    f"record {number} ({size:,} bytes); was it cut off while it was "
                    "copied, or is it another kind of file?"
                )
            number += 1
    return number
