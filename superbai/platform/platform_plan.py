"""What an upload changes at an image of Superb AI's new platform.

The platform keeps the id that a sender gives a box. So the id of each uploaded box
encodes its image, class and position to 0.05 pixels, and a later run recognises its own
boxes: they are still of a model, and lie where their id says. Boxes that people have
drawn, moved or given a class, a property or a lock are never touched.
"""

import hashlib
import json
import math
import uuid
from typing import NamedTuple

from superbai.upload.box_id import is_same_place
from yolov3_tf2.files.json_values import is_number

# The first characters of the ids of all uploaded boxes.
_ID_PREFIX = "05be7ba3"
# A coordinate counts in steps of 0.05 pixels. An id has the last bits of each, 12.8
# pixels: those before follow from where the box is, and the hash confirms them.
_STEPS_PER_PIXEL, _STEPS = 20, 1 << 8
# More than the error of numbers stored in 32 bits, and less than a tenth of a step.
_SLACK = 0.004
# Of one image, with those of people.
MAX_ANNOTATIONS = 5000
# Boxes of one class in the same place, to 0.05 pixels, that have ids of their own.
MAX_EQUAL = 4


class Change(NamedTuple):
    """What changes at an image.

    Attributes:
        rows: list of the annotations to create, dicts.
        old_ids: list of the ids of annotations to delete.
        num_kept: number of those that stay.
        num_left_out: number of boxes that lie in the place of `MAX_EQUAL` others.
    """

    rows: list
    old_ids: list
    num_kept: int
    num_left_out: int = 0


def plan_change(asset_id, boxes, stored, replace):
    """Returns the `Change` of an image.

    Args:
        asset_id: the id of the image.
        boxes: list of (class id, (x, y, width, height) in pixels).
        stored: list of its annotations as the platform has them, dicts.
        replace: `ours`, boxes of earlier uploads that nobody has edited are replaced;
            `none`, an image that has an annotation is not changed.
    """
    if replace == "none" and stored:
        return Change([], [], len(stored))
    rows, num_left_out = {}, 0
    for class_id, xywh in boxes:
        ids = [box_id(asset_id, class_id, xywh, n) for n in range(MAX_EQUAL)]
        free = next((each for each in ids if each not in rows), None)
        if free is None:
            num_left_out += 1
        else:
            rows[free] = _make_row(free, asset_id, class_id, xywh)
    ours = {each.get("id") for each in stored if is_ours(each)}
    old_ids = sorted(ours - rows.keys())
    # A box that somebody has corrected has its id too, and is not sent again.
    present = {each.get("id") for each in stored}
    # Nor is one that lies in its very place under another id.
    places = [
        (each.get("class_id"), place)
        for each in stored
        if each.get("id") not in ours and (place := _place(each))
    ]
    new_rows = [
        row
        for row_id, row in rows.items()
        if row_id not in present and not _is_there(row, places)
    ]
    return Change(new_rows, old_ids, len(stored) - len(old_ids), num_left_out)


def _is_there(row, places):
    """Tells whether one of some (class id, xywh) is what a row may be stored as."""
    xywh = [row["geometry"][name] for name in "xywh"]
    return any(
        class_id == row["class_id"] and is_same_place(place, xywh)
        for class_id, place in places
    )


def is_ours(stored):
    """Tells whether an annotation is an uploaded box that nobody has edited.

    Args:
        stored: the annotation as the platform has it, a dict.
    """
    box_id, place = str(stored.get("id")).lower(), _place(stored)
    if place is None or not box_id.startswith(_ID_PREFIX):
        return False
    try:
        fine = uuid.UUID(box_id).int & (1 << 32) - 1
    except ValueError:
        return False
    # What was sent: the numbers with the bits of the id that are nearest.
    steps = []
    for pixels, last in zip(place, fine.to_bytes(4), strict=True):
        middle = round(pixels * _STEPS_PER_PIXEL)
        steps.append(middle + (last - middle + _STEPS // 2) % _STEPS - _STEPS // 2)
    names = stored.get("asset_id"), stored.get("class_id")
    is_its_id = box_id in (_make_id(*names, steps, n) for n in range(MAX_EQUAL))
    return is_its_id and is_same_place(
        place, [number / _STEPS_PER_PIXEL for number in steps]
    )


def _place(stored):
    """Returns the (x, y, width, height) of a box of a model that nobody has edited.

    None if an annotation is something else.
    """
    geometry = stored.get("geometry")
    additions = ("locked", "data", "parent_id", "instance_id")
    if (
        stored.get("source") != "model"
        or stored.get("type") != "bbox"
        or not isinstance(geometry, dict)
        or any(stored.get(name) for name in additions)
    ):
        return None
    xywh = tuple(geometry.get(name) for name in "xywh")
    return xywh if all(map(is_number, xywh)) else None


def box_id(asset_id, class_id, xywh, number=0):
    """Returns the id of an uploaded box: a UUID made of image, class and position.

    Args:
        asset_id, class_id: of its image and its class.
        xywh: (x, y, width, height) in pixels, which count to 0.05.
        number: which of up to `MAX_EQUAL` boxes with all these it is.
    """
    steps = [math.floor(pixels * _STEPS_PER_PIXEL + _SLACK) for pixels in xywh]
    return _make_id(asset_id, class_id, steps, number)


def _make_id(asset_id, class_id, steps, number):
    # All of it is hashed: an id must be unique among the images of a workspace.
    names = [str(asset_id).lower(), str(class_id).lower()]
    text = json.dumps([*names, *steps, number])
    digest = hashlib.sha256(text.encode("utf-8")).hexdigest()
    fine = bytes(number % _STEPS for number in steps).hex()
    prefixed = uuid.UUID(_ID_PREFIX + digest[:16] + fine)
    return str(uuid.UUID(bytes=prefixed.bytes, version=5))


def _make_row(row_id, asset_id, class_id, xywh):
    """Returns the annotation that a box becomes, a dict."""
    geometry = dict(zip("xywh", map(float, xywh), strict=True))
    return {
        "id": row_id,
        "asset_id": asset_id,
        "class_id": class_id,
        "type": "bbox",
        "geometry": {"type": "bbox", **geometry},
    }
