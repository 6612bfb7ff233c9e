"""What the images of a split contain: their boxes and their bytes, without pixels."""

import hashlib
import itertools
from typing import NamedTuple

import numpy as np


class Contents(NamedTuple):
    """The images of a split and their boxes, as columns.

    Attributes:
        source_ids: list of strings, the images' names.
        hashes: `[images]` uint64, equal where the encoded images are equal.
        boxes_per_image: `[images]` int64.
        labels: `[boxes]` int64 class indices.
        sizes: `[boxes, 2]` float32, width and height as fractions of the longer side of
            their image. Multiplied by the size of the network's input they are the
            pixels that the network sees.
        gray_ranges: `[images of 16 bits, 2]` int64, the (black, white) values of those
            in TFRecord files, see `records.py`.
    """

    source_ids: list[str]
    hashes: np.ndarray
    boxes_per_image: np.ndarray
    labels: np.ndarray
    sizes: np.ndarray
    gray_ranges: np.ndarray

    @property
    def max_boxes(self):
        """The largest number of boxes in one image; 0 without images."""
        return int(self.boxes_per_image.max(initial=0))

    @property
    def num_labelled(self):
        """The number of images with a box."""
        return int((self.boxes_per_image > 0).sum())

    @property
    def sides(self):
        """`[boxes]`, the square root of each box's area, in the unit of `sizes`."""
        return np.sqrt(self.sizes.prod(axis=-1))

    def describe(self):
        """Returns a text that differs where the images, or their boxes, do.

        It does not depend on the order of the images.
        """
        order = np.lexsort((self.boxes_per_image, self.hashes))
        digest = hashlib.sha256(self.hashes[order].tobytes())
        digest.update(self.boxes_per_image[order].tobytes())
        digest.update(np.sort(self.labels).tobytes())
        digest.update(np.sort(self.sizes, axis=0).tobytes())
        return f"{len(self.hashes)} images, {digest.hexdigest()[:16]}"

    def count_boxes(self, class_names):
        """Returns a dict from class name to the number of its boxes."""
        counts = np.bincount(self.labels, minlength=len(class_names))
        return dict(zip(class_names, counts.tolist(), strict=True))


def join_contents(parts):
    """Returns the `Contents` of several lists of images as one."""
    parts = [_EMPTY, *parts]
    names = list(itertools.chain.from_iterable(part.source_ids for part in parts))
    columns = list(zip(*(part[1:] for part in parts), strict=True))
    return Contents(names, *(np.concatenate(column) for column in columns))


def list_contents(images):
    """Returns `Contents` from a list of `ImageContents`."""
    return Contents(
        [image.source_id for image in images],
        np.array([image.hash for image in images], "uint64"),
        np.array([len(image.labels) for image in images], "int64"),
        np.array([label for image in images for label in image.labels], "int64"),
        np.array([size for i in images for size in i.sizes], "float32").reshape(-1, 2),
        np.zeros((0, 2), "int64"),
    )


class ImageContents(NamedTuple):
    """One image of a `Contents`, see there."""

    source_id: str
    hash: int
    labels: list[int]
    sizes: list[tuple[float, float]]


def describe_record(record):
    """Returns the `ImageContents` of a record, see `records.serialize_example`."""
    longer = max(record.width, record.height)
    return ImageContents(
        record.source_id,
        _hash_bytes(record.encoded),
        record.labels,
        [
            ((xmax - xmin) / longer, (ymax - ymin) / longer)
            for xmin, ymin, xmax, ymax in record.boxes_px
        ],
    )


def _hash_bytes(data):
    """Returns the sum of the 64-bit words of compressed data, and of its length.

    Any checksum tells images apart that are not made to collide. This one takes a
    tenth of the time of a CRC, which would slow the conversion down by a twentieth.
    """
    words = np.frombuffer(data, "<u8", len(data) // 8)
    rest = int.from_bytes(data[len(words) * 8 :], "little")
    return (int(words.sum(dtype="uint64")) + rest + (len(data) << 48)) % 2**64


_EMPTY = list_contents([])
