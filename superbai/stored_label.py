"""The label of one image as the Suite stores it: its objects, tags and status."""

from typing import NamedTuple

from yolov3_tf2.errors import InputError
from yolov3_tf2.names import normalise_name

# The keys of a box, in the order of this project.
COORD_KEYS = ("x", "y", "width", "height")


class Label(NamedTuple):
    """The label of one image in the Suite: its objects, tags and status.

    Attributes:
        handle: the SDK's `DataHandle`.
        name: the image's dataset and key, for messages.
        objects: list of the objects as the Suite has stored them, dicts.
        tags: list of strings.
        status: `WORKING`, `SUBMITTED` or `SKIPPED`.
    """

    handle: object
    name: str
    objects: list
    tags: list
    status: str

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
    objects = [] if data.result is None else data.result.get("objects") or []
    is_readable = isinstance(objects, list) and all(
        isinstance(stored, dict) and isinstance(stored.get("id"), str | int)
        for stored in objects
    )
    if not is_readable:
        raise InputError(
            f"{where}: cannot read the objects of its label; expected a list of "
            "objects with ids."
        )
    # A copy: the SDK empties its list.
    return Label(handle, where, list(objects), handle.get_tags(), data.status)


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
    xywh = tuple(coord.get(key) for key in COORD_KEYS)
    if not all(isinstance(number, int | float) for number in xywh):
        return None
    return normalise_name(class_name), xywh


def read_class(stored):
    """Returns the class name and annotation type of an object.

    The keys of older projects are in camel case.
    """
    class_name = stored.get("class_name", stored.get("className"))
    return class_name, stored.get("annotation_type", stored.get("annotationType"))
