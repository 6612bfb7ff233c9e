"""What a YOLO data set says of itself: its classes, and which images are for what."""

import math
import re
from typing import NamedTuple

from absl import logging

from superbai.data_sets.files import File, split_of_name
from yolov3_tf2.errors import InputError, collecting, raise_collected
from yolov3_tf2.files import yolo_config
from yolov3_tf2.files.yolo_annotations import is_yolo

# Files of class names, besides those with the endings below. Roboflow writes
# `_darknet.labels`, CVAT and Label Studio the others.
_NAME_LISTS = frozenset(("classes.txt", "labels.txt", "labelmap.txt"))
_NAME_ENDINGS = frozenset((".names", ".labels"))
# A YAML with one of these is about a data set, even if it cannot be read.
_SETTINGS = re.compile(r"^\s*(names|nc|train|val)\s*:", re.MULTILINE)


class Description(NamedTuple):
    """The description of a YOLO data set.

    Attributes:
        class_names: list of strings.
        num_keypoint_values: how many numbers of keypoints follow those of each box.
        sources: list of (file, split, value): the texts by which a file names the
            images of a split, such as `../train/images`; with the path that the file
            gives for the whole data set before it.
    """

    class_names: list[str]
    num_keypoint_values: int
    sources: list[tuple[File, str, str]]


def is_name_list(file):
    """Returns whether a file is a list of class names by its name."""
    if file.ending in _NAME_ENDINGS:
        return True
    return file.base.lower() in _NAME_LISTS and not is_yolo(file.read_start(4096))


def find_yamls(files):
    """Returns the YAMLs of a data set that hold a map, as pairs of file and map.

    Those that cannot be read are not among them; their messages are the second result,
    and those of files with a setting of data sets the third.
    """
    found, messages, serious = [], [], []
    for file in files.others:
        if file.ending in (".yaml", ".yml"):
            content, value, reasons = b"", None, []
            with collecting(reasons):
                content = file.read(yolo_config.MAX_YAML_BYTES)
                value = yolo_config.load_yaml(content, file.where)
            if isinstance(value, dict):
                found.append((file, value))
            messages += reasons
            if reasons and _SETTINGS.search(yolo_config.decode_start(content)):
                serious += reasons
    return found, messages, serious


def find_data_files(files):
    """Returns darknet's `.data` files, as pairs of file and settings."""
    return [
        (file, yolo_config.read_data(_read(file), file.where))
        for file in files.others
        if file.ending == ".data"
    ]


def has_names(files):
    """Returns whether anything in a data set may be a list of YOLO's class names."""
    yamls, messages, _ = find_yamls(files)
    has_yaml = bool(messages) or any("names" in value for _, value in yamls)
    return has_yaml or any(map(is_name_list, files.others))


def describe(files, num_labels):
    """Returns the `Description` of a YOLO data set.

    Args:
        files: a `DataSetFiles`.
        num_labels: how many label files there are, for an error.

    Raises:
        InputError: nothing has the class names, or two files have different ones.
    """
    yamls, messages, serious = find_yamls(files)
    raise_collected(serious, f"{files.name}: of its YAML files")
    yamls = [(file, value) for file, value in yamls if "names" in value]
    data_files = find_data_files(files)
    named = [
        (file, yolo_config.read_names(value["names"], file.where))
        for file, value in yamls
    ]
    lists = _find_name_lists(files, data_files)
    if not named:
        named = [
            (file, yolo_config.read_name_list(_read(file), file.where))
            for file in lists
        ]
    if not named:
        named_files = [each["names"] for _, each in data_files if "names" in each]
        also = f" ({named_files[0]} is missing)" if named_files else ""
        raise InputError(
            f"{files.name}: {num_labels} YOLO label files, but no class names: "
            "expected 'names' in a data.yaml, a classes.txt or obj.names"
            f"{also}; give it as one more file of 'labels'."
        )
    (first, class_names), *others = named
    for other, other_names in others:
        if other_names != class_names:
            raise InputError(
                f"{first.where} and {other.where} have different class names: expected "
                "one data set; remove the file that does not belong to it."
            )
    if yamls:
        _compare_lists(first, class_names, files)
    settings = yamls or data_files
    shape = yamls[0][1].get("kpt_shape") if yamls else None
    is_shape = isinstance(shape, list) and all(str(n).isdecimal() for n in shape)
    return Description(
        class_names,
        math.prod(map(int, shape)) if is_shape else 0,
        [source for file, value in settings for source in _sources(file, value)],
    )


def _compare_lists(first, class_names, files):
    """Warns where a list has other class names than the YAML, which counts."""
    for file in filter(is_name_list, files.others):
        others = None
        with collecting([]):
            others = yolo_config.read_name_list(_read(file), file.where)
        if others is not None and others != class_names:
            logging.warning(
                "%s has other class names than %s, or another order; those of the "
                "latter are used: %s",
                file.where,
                first.where,
                ", ".join(class_names[:10]) + ", ..." * (len(class_names) > 10),
            )


def _find_name_lists(files, data_files):
    """Returns the lists of class names: those of `.data` files, else all by name."""
    for file, settings in data_files:
        base = settings.get("names", "").replace("\\", "/").rpartition("/")[2]
        found = [f for f in files.others if base and f.base == base]
        beside = [f for f in found if f.folder == file.folder]
        if beside or len(found) == 1:
            return beside or found
    return list(filter(is_name_list, files.others))


def _sources(file, settings):
    """Yields the file, the split and the value of each split that settings name."""
    root = settings.get("path")
    root = f"{root}/" if isinstance(root, str) and root else ""
    for key, value in settings.items():
        split = split_of_name(key) if key.isalpha() else None
        values = value if isinstance(value, list) else [value]
        for each in values if split else ():
            if isinstance(each, str) and each.strip():
                yield file, split, root + each.strip()


def _read(file):
    return file.read(yolo_config.MAX_YAML_BYTES)
