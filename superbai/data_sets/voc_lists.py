"""Which images of a VOC data set are for what: the lists in `ImageSets/Main`."""

import re
from collections import defaultdict
from typing import NamedTuple

from superbai.data_sets.files import split_of_name, without_ending
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


def read_lists(label_files, files):
    """Reads the lists.

    A line is the path of an image below `JPEGImages`, mostly without extension; a list
    is about the XMLs in `Annotations` beside `ImageSets`.

    Args:
        label_files: list of `File`, the XMLs.
        files: a `DataSetFiles`.

    Returns:
        A `Listed`.

    Raises:
        InputError: an image is in the lists of two splits, or no image of a list has an
            XML.
    """
    xmls = _by_ending(label_files, "Annotations")
    images = {without_ending(image.base) for image in files.images}
    split_of, whole, missing = {}, {}, []
    for file, root, split in _find_lists(files):
        text = yolo_config.decode_text(
            file.read(yolo_config.MAX_LIST_BYTES), file.where
        )
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        found = [_find(line, xmls[root]) for line in lines]
        if lines and not any(found):
            raise InputError(
                f"{file.where}: expected images with an XML in Annotations, got none "
                f"for its {len(lines)} lines, e.g. '{lines[0]}'; are the XMLs missing?"
            )
        for line, xml in zip(lines, found, strict=True):
            if xml is None:
                if without_ending(_base(line)) not in images | {_base(line)} & images:
                    missing.append(f"{file.where}: {line}")
            elif split is None:
                whole[xml.number] = "train"
            elif split_of.setdefault(xml.number, split) != split:
                raise InputError(
                    f"{file.where}: '{line}' is also in the list for "
                    f"{split_of[xml.number]}; expected each image in one of the lists."
                )
    return Listed({**whole, **split_of}, tuple(dict.fromkeys(missing)))


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
                yield file, (id(file.archive), root), split


def _by_ending(label_files, folder):
    """Returns for each root a dict from the endings of a path to XMLs below a folder.

    `cam1/1` and `1` for `Annotations/cam1/1.xml`; the whole path has a slash before it.
    """
    found = defaultdict(lambda: defaultdict(list))
    for file in label_files:
        root, is_below, rest = f"/{file.path}".rpartition(f"/{folder}/")
        if is_below:
            parts = without_ending(rest).split("/")
            endings = found[id(file.archive), root]
            endings["/" + "/".join(parts)].append(file)
            for start in range(len(parts)):
                endings["/".join(parts[start:])].append(file)
    return found


def _find(line, endings):
    """Returns the XML of a line, None if there is none.

    The lists of VOC's classes have `1`, `0` or `-1` after each image.
    """
    for name in dict.fromkeys((line, re.sub(r"\s+-?[01]$", "", line))):
        path = normalise_path(name)
        path = without_ending(path) if is_image_name(path) else path
        parts = path.split("/")
        # All of the line's folders, or all of the XML's: `cam1/1` is not `cam2/1.xml`.
        for key in (path, *("/" + "/".join(parts[n:]) for n in range(len(parts)))):
            if len(endings[key]) == 1:
                return endings[key][0]
    return None


def _base(line):
    return normalise_path(line).rpartition("/")[2]
