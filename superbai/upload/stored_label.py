"""The label of one image as the Suite stores it: its objects, tags and status."""

import math
from typing import NamedTuple

from yolov3_tf2.errors import InputError
from yolov3_tf2.names import normalise_name

# The keys of a box, in the order of this project.
COORD_KEYS = ("x", "y", "width", "height")


class ChangedError(InputError):
    """Somebody has changed a label since it was read."""


class Label(NamedTuple):
    """The label of one image in the Suite: its objects, tags and status.

    Attributes:
        handle: the SDK's `DataHandle`.
        name: the image's dataset and key, for messages.
        objects: list of the objects as the Suite has stored them, dicts.
        tags: list of strings.
        status: `WORKING`, `SUBMITTED` or `SKIPPED`.
        result: what the label's file has of it, objects and categories; None if it was
            never saved.
        num_counted: number of objects by the Suite's own count.
    """

    handle: object
    name: str
    objects: list
    tags: list
    status: str
    result: dict | None = None
    num_counted: int = 0

    @property
    def is_decided(self):
        """Whether somebody has submitted or skipped it."""
        return self.status != "WORKING"


def read_label(handle, where):
    """Returns the `Label` of one of the SDK's handles.

    Args:
        handle: the SDK's `DataHandle`.
        where: the label's name in messages.

    Raises:
        InputError: its objects cannot be read.
    """
    data = handle.data
    # Copies: the SDK empties the list of objects.
    result = None if data.result is None else dict(data.result)
    objects = [] if result is None else result.get("objects") or []
    is_readable = isinstance(objects, list) and all(
        isinstance(stored, dict) and isinstance(stored.get("id"), str | int)
        for stored in objects
    )
    if not is_readable:
        raise InputError(
            f"{where}: cannot read the objects of its label; expected a list of "
            "objects with ids."
        )
    count = sum(getattr(one, "count", None) or 0 for one in data.stats or [])
    if result is not None:
        check_has_objects(result, count, where)
        result["objects"] = list(objects)
    tags, status = handle.get_tags(), data.status
    return Label(handle, where, list(objects), tags, status, result, count)


def check_has_objects(result, num_counted, where):
    """Checks that the file of a label is not empty by mistake.

    Args:
        result: what the file has of the label, a dict or None.
        num_counted: number of its objects by the Suite's own count.
        where: the label's name in messages.

    Raises:
        InputError: the file has no objects, not even an empty list, but the Suite
            counts some.
    """
    if num_counted and (result or {}).get("objects") is None:
        raise InputError(
            f"{where}: the Suite counts {num_counted} objects in its label, but its "
            "file has none, so nothing was changed; open the label in the Suite, check "
            "and save it, and run again."
        )


def read_box(stored):
    """Returns the class name and (x, y, width, height) in pixels of an object.

    None if the object is not a box.
    """
    class_name, annotation_type = read_class(stored)
    annotation = stored.get("annotation")
    coord = annotation.get("coord") if isinstance(annotation, dict) else None
    is_box = annotation_type == "box" and isinstance(class_name, str)
    if not is_box or not isinstance(coord, dict):
        return None
    xywh = tuple(_read_number(coord.get(key)) for key in COORD_KEYS)
    if None in xywh:
        return None
    return normalise_name(class_name), xywh


def _read_number(value):
    """Returns a number, which may be written as a text; None if it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def read_class(stored):
    """Returns the class name and annotation type of an object.

    The keys of older projects are in camel case.
    """
    class_name = stored.get("class_name", stored.get("className"))
    return class_name, stored.get("annotation_type", stored.get("annotationType"))
