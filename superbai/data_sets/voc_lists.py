"""Which images of a VOC data set are for what: the lists in `ImageSets/Main`."""

import re
from collections import defaultdict
from typing import NamedTuple

from superbai.data_sets.files import split_of_name, without_ending
from superbai.data_sets.folder_words import endings_of
from superbai.splits import join_splits
from yolov3_tf2.errors import InputError
from yolov3_tf2.files import yolo_config
from yolov3_tf2.files.image_kinds import is_image_name
from yolov3_tf2.names import normalise_path


class Listed(NamedTuple):
    """What the lists say.

    Attributes:
        split_of: dict from the number of an XML to its split; empty without lists.
        missing: tuple of what to call the listed images that are not there.
    """

    split_of: dict[int, str]
    missing: tuple[str, ...]


def read_lists(label_files, files, notes):
    """Reads the lists.

    A line is the path of an image below `JPEGImages`, mostly without extension; a list
    is about the XMLs in `Annotations` beside `ImageSets`.

    Args:
        label_files: list of `File`, the XMLs.
        files: a `DataSetFiles`.
        notes: `Notes` to add to.

    Returns:
        A `Listed`.

    Raises:
        InputError: the lists of two splits share some of their images, or no image of a
            list has an XML.
    """
    xmls, images = _by_ending(label_files), None
    splits_of, whole, missing, first = defaultdict(set), {}, {}, None
    for file, root, split in _find_lists(files):
        text = yolo_config.decode_text(
            file.read(yolo_config.MAX_LIST_BYTES), file.where
        )
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        endings = _xmls_of(file, root, xmls)
        found = [_find(line, endings) for line in lines]
        if lines and not any(found):
            raise InputError(
                f"{file.where}: expected images with an XML in Annotations, got none "
                f"for its {len(lines)} lines, e.g. '{lines[0]}'; add the XMLs, or "
                "remove the list."
            )
        for line, xml in zip(lines, found, strict=True):
            if xml is None:
                images = _image_endings(files) if images is None else images
                if images.isdisjoint(_paths(line)):
                    missing.setdefault((root, line), f"{file.where}: {line}")
            elif split is None:
                whole[xml.number] = "train"
            else:
                splits_of[xml.number].add(split)
                first = first or file.where
    paths = {file.number: without_ending(file.base) for file in label_files}
    joined = join_splits(splits_of, first, paths.get, notes)
    split_of = {number: min(splits) for number, splits in joined.items()}
    return Listed({**whole, **split_of}, tuple(missing.values()))


def _find_lists(files):
    """Yields the file, the folder before ImageSets and the split of each list.

    `trainval` has no split: it has those of `train` and `val` together.
    """
    for file in files.labels:
        root, is_list, base = f"/{file.path}".rpartition("/ImageSets/Main/")
        stem = without_ending(base)
        if is_list and "/" not in base and file.ending == ".txt":
            split = split_of_name(stem)
            if split or stem.lower() == "trainval":  # Others are those of one class.
                yield file, root, split


def _by_ending(label_files):
    """Returns a dict from the archive and root of XMLs to a dict from endings to XMLs.

    Those of `Annotations/cam1/1.xml` are `cam1/1` and `1`, and `/cam1/1` as the whole.
    """
    found = defaultdict(lambda: defaultdict(list))
    for file in label_files:
        root, is_below, rest = f"/{file.path}".rpartition("/Annotations/")
        path = without_ending(rest if is_below else file.path)
        endings = found[id(file.archive), root]
        for ending in (f"/{path}", *endings_of(path)):
            endings[ending].append(file)
    return found


def _xmls_of(file, root, xmls):
    """Returns the XMLs beside a list; those of another archive if only one has them."""
    own = xmls.get((id(file.archive), root))
    others = [each for (_, other), each in xmls.items() if other == root]
    return own or (others[0] if len(others) == 1 else {})


def _image_endings(files):
    """Returns the endings of the paths of all images, without extension, a set."""
    paths = (without_ending(image.path) for image in files.images)
    return {ending for path in paths for ending in endings_of(path)}


def _paths(line):
    """Returns the paths, without extension, that a line may stand for.

    The lists of VOC's classes have `1`, `0` or `-1` after each image.
    """
    paths = (normalise_path(line), normalise_path(re.sub(r"\s+-?[01]$", "", line)))
    return [without_ending(path) if is_image_name(path) else path for path in paths]


def _find(line, endings):
    """Returns the XML of a line, None if there is none."""
    for path in _paths(line):
        # All of the line's folders, or all of the XML's: `cam1/1` is not `cam2/1.xml`.
        for key in (path, *(f"/{ending}" for ending in endings_of(path))):
            found = endings.get(key, ())
            if len(found) == 1:
                return found[0]
    return None
