"""The JSON of a label in a Suite export: its objects, in all spellings, as boxes.

Pure functions from parsed JSON to plain values. `where` names the zip and the entry in
the errors, which are all `InputError`.
"""

import math
from collections import Counter
from typing import NamedTuple

from yolov3_tf2.errors import InputError
from yolov3_tf2.files.json_values import (
    as_dict,
    as_dicts,
    as_list,
    as_number,
    is_number,
)
from yolov3_tf2.files.pixel_boxes import order_corners
from yolov3_tf2.names import normalise_name


class Box(NamedTuple):
    """A box of a label.

    Attributes:
        xyxy: left, top, right, bottom in pixels, not clipped.
        label: the index of its class.
        is_swapped: whether its width or height was negative.
        is_around: whether it is drawn around another shape.
    """

    xyxy: tuple[float, float, float, float]
    label: int
    is_swapped: bool = False
    is_around: bool = False


class Label(NamedTuple):
    """The objects of an image.

    Attributes:
        boxes: list of `Box`.
        left_out: Counter of the other objects, by type.
        repeated: set of (annotation type, class name, class id) of the boxes whose
            class is among `export_json.Classes.repeated`; the id is None where only the
            name is known.
    """

    boxes: list[Box]
    left_out: Counter
    repeated: set


def read_objects(label, classes, kinds, where):
    """Reads the objects of a label in any spelling.

    Args:
        label: the parsed JSON; null, {} and a label without objects belong to an image
            that was submitted without any object.
        classes: an `export_json.Classes`.
        kinds: the annotation types that become boxes, a tuple of strings.
        where: what to call the label in an error.

    Returns:
        A `Label`.

    Raises:
        InputError: the label is not in the Suite's format, or a class is unknown.
    """
    boxes, left_out, repeated = [], Counter(), set()
    for number, thing in enumerate(_objects(label, where), start=1):
        here = f"{where} object {number}"
        kind, coord = _kind_and_coord(thing, here)
        if kind not in kinds:
            left_out[f"objects of type {kind}"] += 1
            continue
        index, class_id = _class_of(thing, classes.index, here)
        if (kind, classes.names[index]) in classes.repeated:
            repeated.add((kind, classes.names[index], class_id))
        if kind == "box":
            xyxy, is_swapped = _box(as_dict(coord, here, optional=True), here)
            boxes.append(Box(xyxy, index, is_swapped))
            continue
        xyxy = BOX_AROUND[kind](coord, here)
        if xyxy is None:
            left_out[f"objects of type {kind} without points"] += 1
        else:
            boxes.append(Box(xyxy, index, is_around=True))
    categories = _result(label, where).get("categories")
    if isinstance(categories, dict):
        categories = categories.get("properties")
    if categories and isinstance(categories, list):
        left_out["image categories"] += len(categories)
    return Label(boxes, left_out, repeated)


def list_classes(label, where):
    """Yields the name, the id and the annotation type of the class of each object."""
    for thing in _objects(label, where):
        name, class_id = _class_name_and_id(thing)
        yield name, class_id, _kind_and_coord(thing, where)[0]


def has_objects(label, where):
    """Returns whether a label has any object, of any type."""
    return bool(_objects(label or None, where))


def _objects(label, where):
    objects = _result(label, where).get("objects")
    return as_dicts(objects, where, "object", optional=True)


def _result(label, where):
    """Returns a label without the outer level of the legacy format."""
    label = as_dict(label, where, optional=True)
    return as_dict(label.get("result", label), where, optional=True)


def _kind_and_coord(thing, where):
    """Returns the annotation type of an object, and its coordinates."""
    shape = as_dict(thing.get("shape"), where, optional=True)
    if "x" in shape:
        shape = {"box": shape}  # The legacy format had both forms.
    kind = thing.get("annotation_type") or thing.get("annotationType")
    if not kind:
        boxes = [k for k in shape if k in ("box", *BOX_AROUND)]
        kind = next(iter(boxes or shape), "unknown")
    coord = shape.get(kind) if isinstance(kind, str) else None
    if coord is None:
        coord = as_dict(thing.get("annotation"), where, optional=True).get("coord")
    return str(kind), coord


def _class_name_and_id(thing):
    name = thing.get("class_name") or thing.get("className") or thing.get("class")
    return normalise_name(str(name or "")), thing.get("class_id", thing.get("classId"))


def _class_of(thing, class_index, where):
    """Returns the class index of an object, and the id of its class if that is known.

    The id counts, or else the name.
    """
    name, class_id = _class_name_and_id(thing)
    index = None
    if class_id is not None:
        index = class_index.get(("id", str(class_id)))
    is_by_name = index is None
    if is_by_name:
        index = class_index.get(("name", name))
    if index is None:
        listed = ", ".join(value for kind, value in class_index if kind == "name")
        raise InputError(
            f"{where}: class '{name}' (id {class_id}) is not in project.json (classes: "
            f"{listed}); was it renamed or deleted after the export?"
        )
    return index, None if is_by_name else str(class_id)


def _box(coord, where):
    """Returns the corners of a coord of x, y (left, top), width and height.

    And whether they were swapped, as the width or the height was negative: the box was
    drawn from another corner.
    """
    x, y, width, height = _numbers(coord, ("x", "y", "width", "height"), where)
    return order_corners(x, y, x + width, y + height)


def _around_polygon(coord, where):
    """Returns the bounding box of all parts of a polygon; None without any points.

    The points are in one list, or since version 0.6 in a list of parts, each a list of
    an outline and its holes.
    """
    if isinstance(coord, dict):
        coord = coord.get("points")
    points, parts = [], [as_list(coord, where, optional=True)]
    while parts:
        for part in parts.pop():
            if isinstance(part, list):
                parts.append(part)
            else:
                part = as_dict(part, where, optional=True)
                points.append(_numbers(part, ("x", "y"), where))
    if not points:
        return None
    xs, ys = zip(*points, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def _around_rotated(coord, where):
    """Returns the bounding box of a box that is rotated by `angle` degrees."""
    names = ("cx", "cy", "width", "height", "angle")
    coord = as_dict(coord, where, optional=True)
    x, y, width, height, angle = _numbers(coord, names, where)
    sine, cosine = math.sin(math.radians(angle)), math.cos(math.radians(angle))
    half_width = (abs(width * cosine) + abs(height * sine)) / 2
    half_height = (abs(width * sine) + abs(height * cosine)) / 2
    return x - half_width, y - half_height, x + half_width, y + half_height


# Functions that draw a box around an annotation type.
BOX_AROUND = {"polygon": _around_polygon, "rbox": _around_rotated}


def _numbers(coord, names, where):
    """Returns members of a coord as finite floats."""
    values = [coord.get(name) for name in names]
    if not all(map(is_number, values)):
        for name, value in zip(names, values, strict=True):
            as_number(value, f"{where}: {name}")  # Names the one that is none.
    return list(map(float, values))
