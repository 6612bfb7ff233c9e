"""The labels of an annotated data set, as its readers return them."""

from collections import Counter
from typing import NamedTuple

import numpy as np

from superbai.data_sets.images import Labelled
from superbai.labelled_image import AROUND
from yolov3_tf2.files.pixel_boxes import SWAPPED, order_corners

# What a `Counter` of a reader counts that is not left out.
CHANGES = (AROUND, SWAPPED)

MODEL = "boxes of a model (source 'model' or with a score)"
UNLISTED = "images that the data set does not list"


class Labels(NamedTuple):
    """All labels of a data set.

    Attributes:
        kind: the name of their format.
        class_names: list of strings.
        labelled: list of `Labelled`.
        num_files: number of the files with labels.
        num_annotations: number of objects in them, also of those left out; one that
            several files have counts once.
        num_categories: number of classes, also of those left out.
        missing: tuple of the names of listed images that are not there.
        split_of: dict from the number of an image to the set of its splits, if the
            data set lists its images; None where folders decide.
        key: a function from the path of an image to what `Labelled.name` is compared
            with.
        is_fraction: whether the boxes are fractions of the upright image.
        empty_unlabelled: whether images without labels have no objects.
    """

    kind: str
    class_names: list[str]
    labelled: list[Labelled]
    num_files: int
    num_annotations: int
    num_categories: int
    missing: tuple[str, ...] = ()
    split_of: dict[int, set[str]] | None = None
    key: object = str
    is_fraction: bool = False
    empty_unlabelled: bool = False

    @property
    def num_images(self):
        """Number of images that they are about."""
        return len({each.place for each in self.labelled})


def keep_box(xyxy, size, report):
    """Orders the corners of a box; in the place of `annotated_image.fit_box`.

    Nothing is clipped: the size of the image itself decides, when it is read.
    """
    del size
    ordered, is_swapped = order_corners(*xyxy)
    if is_swapped:
        report[SWAPPED] += 1
    return ordered


def box_array(rows):
    """Returns [boxes, 6] float64, the boxes of `Labelled`.

    Millions of boxes as tuples of objects would have five times the size.
    """
    return np.array(list(rows), "float64").reshape(-1, 6)


def note_report(report, notes):
    """Adds the Counter of a reader to `Notes`."""
    changed = Counter({reason: report[reason] for reason in CHANGES if report[reason]})
    notes.changed += changed
    notes.left_out += report - changed
