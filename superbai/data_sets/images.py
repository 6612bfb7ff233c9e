"""Finds the image of each label of an annotated data set.

A label says where its image is: by a path in the file of labels, or by its own place.

1. The image lies there: beside the label, or in the folder that the format has for it;
   in the archive of the label, or in one without labels.
2. It lies there below other folders, which an archive may have around everything.
3. Otherwise it is the file with the same name, and as many of the same folders before
   it as there are.

The third only if there is no folder where it should be. Except for the first in its own
archive, no label takes an image from a folder or archive that other labels name, or
that is of another split; see `FolderWords`. If different files fit, or one file fits
different labels, nothing is guessed.
"""

from collections import defaultdict
from pathlib import PurePath
from typing import NamedTuple

import numpy as np

from superbai.data_sets.files import File
from superbai.data_sets.folder_words import FolderWords, endings_of
from superbai.data_sets.only_image import OnlyImage, raw_stem
from yolov3_tf2.errors import InputError


class Labelled(NamedTuple):
    """The labels of an image, whose file is not known yet.

    Attributes:
        file: the `File` with the labels.
        source: what of the data set the labels are about; with the folder and `name`,
            it tells one image from another.
        name: the name or path of the image, as the labels have it.
        paths: list of the paths at which it lies by the rules of the format.
        split: the split that the labels name for it; None without one.
        size: (width, height) when it was labelled; None if unknown.
        boxes: [boxes, 6] float64: xyxy, the label, and whether it is drawn around
            another shape.
        reason: why the labels cannot be used; empty if they can.
        is_models: whether all of its boxes were those of a model, and so left out.
        raw_name: the name of the image in the Unicode form that the labels have; empty
            if it is that of the file of labels.
    """

    file: File
    source: str
    name: str
    paths: list[str]
    split: str | None
    size: tuple[int, int] | None
    boxes: np.ndarray
    reason: str = ""
    is_models: bool = False
    raw_name: str = ""

    @property
    def where(self):
        """What to call the labels of this image in a message."""
        return f"{self.file.where} ({self.name})"

    @property
    def short_where(self):
        """The same without the folders that the archive is in."""
        archive = PurePath(self.file.archive.name).name
        return f"{archive}: {self.file.name} ({self.name})"

    @property
    def place(self):
        """What tells it from other labels: those of equal places have one image.

        The same file in two archives is about two images, or is its correction.
        """
        raw = raw_stem(self.raw_name or self.file.name)
        return (self.file.folder, self.source, self.name, raw)


class Found(NamedTuple):
    """The images of labels.

    Attributes:
        images: dict from the index of a `Labelled` to its `File`.
        by_name: how many are in other folders than their labels name.
    """

    images: dict[int, File]
    by_name: int


def find_images(labelled, files, key):
    """Finds the image of each `Labelled`; the module describes the rules.

    Args:
        labelled: list of `Labelled`.
        files: a `DataSetFiles`.
        key: a function from the path of an image to what is compared.

    Returns:
        A `Found`.

    Raises:
        InputError: different images fit a label, or one image fits several labels.
    """
    by_path = defaultdict(list)
    for file in files.images:
        by_path[key(file.path)].append(file)
    words, images, num_by_name = FolderWords(labelled, files), {}, 0
    only = OnlyImage(words)
    for index, each in enumerate(labelled):
        file = _at_its_place(each, by_path, words, only)
        if file is not None:
            images[index] = file
            num_by_name += words.is_doubtful(each, file)
    folders = {_folder(path) for path in by_path}
    for find in (_below_folders, _by_name):
        rest = [index for index in range(len(labelled)) if index not in images]
        bases = {_base(labelled[index].name) for index in rest}
        endings = _by_ending(by_path, bases, images, words) if rest else {}
        for index in rest:
            each = labelled[index]
            file = find(each, endings, words, only)
            is_certain = file is None or words.is_certain(each, file)
            # If the folder where it should be is there, it is missing in it.
            is_gone = any(_folder(path) in folders for path in each.paths)
            if file is not None and (is_certain or not is_gone):
                images[index] = file
                num_by_name += not is_certain
    _check_claims(labelled, images)
    return Found(images, num_by_name)


def _by_ending(by_path, bases, images, words):
    """Returns the images of no label by each ending of their paths.

    A dict from `a/1.png` and `1.png` to a dict from `FolderWords.group` to a list. So
    the many images of one name are not looked at for each label.
    """
    taken = {file.number for file in images.values()}
    endings = defaultdict(lambda: defaultdict(list))
    for path, found in by_path.items():
        if _base(path) not in bases:
            continue
        for file in found:
            if file.number not in taken:
                group = words.group(file)
                for ending in endings_of(path):
                    endings[ending][group].append(file)
    return endings


def _at_its_place(labelled, by_path, words, only):
    """Returns the image at one of the paths of a `Labelled`; None if there is none."""
    archive = labelled.file.archive
    places = [found for path in labelled.paths if (found := by_path.get(path))]
    for found in places:
        own = [file for file in found if file.archive is archive]
        if own:
            return only(labelled, [own])
    for found in places:
        allowed = [file for file in found if words.allows(labelled, words.group(file))]
        if allowed:
            return only(labelled, [allowed])
    return None


def _below_folders(labelled, endings, words, only):
    """Returns the image at its place below folders around everything."""
    for place in labelled.paths:
        # A name without folders would fit any folder.
        found = _allowed(labelled, place, endings, words) if "/" in place else None
        if found:
            return only(labelled, found)
    return None


def _by_name(labelled, endings, words, only):
    """Returns the image whose path ends most like a name."""
    for ending in endings_of(labelled.name):
        found = _allowed(labelled, ending, endings, words)
        if found:
            return only(labelled, found)
    return None


def _allowed(labelled, ending, endings, words):
    """Returns lists of the images with an ending that a label may have."""
    groups = endings.get(ending, {})
    return [files for group, files in groups.items() if words.allows(labelled, group)]


def _check_claims(labelled, images):
    """Raises an `InputError` where labels of different images have found the same."""
    first_of = {}
    for index, file in images.items():
        each = labelled[index]
        if each.is_models:
            continue  # It is not used, whosever it is.
        first = first_of.setdefault(file.number, each)
        if first is not each and not _is_one_image(first, each):
            raise InputError(
                f"{file.where} fits both {first.where} and {each.where}: expected one "
                "image for each; is an image missing, or are there two labels for one?"
            )


def _is_one_image(first, second):
    """Returns whether two labels are about the same image."""
    if first.place != second.place:
        return False
    # Files for different tasks may be in archives of their own, two files of one name
    # are those of two cameras, or of before and after a correction.
    is_apart = first.file.archive is not second.file.archive
    return not is_apart or first.file.base != second.file.base


def _folder(path):
    return path.rpartition("/")[0]


def _base(path):
    return path.rpartition("/")[2]
