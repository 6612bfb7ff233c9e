"""What an upload changes at an image of Superb AI's new platform.

The platform keeps the id that a sender gives a box. So the id of each uploaded box
encodes its image, class and position, and a later run recognises its own boxes: they
are still of a model, and lie where their id says. Boxes that people have drawn, moved
or given a class, a property or a lock are never touched.
"""

import hashlib
import itertools
import json
import math
import uuid
from typing import NamedTuple

from yolov3_tf2.files.json_values import is_number

# The first characters of the ids of all uploaded boxes.
_ID_PREFIX = "05be7ba2"
# Coordinates count as equal up to this difference in pixels: the platform may round.
TOLERANCE_PX = 0.5
# Of one image, with those of people.
MAX_ANNOTATIONS = 5000
# Boxes of one class in the same place, to a pixel, that have ids of their own.
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
    new_rows = [row for row_id, row in rows.items() if row_id not in present]
    return Change(new_rows, old_ids, len(stored) - len(old_ids), num_left_out)


def is_ours(stored):
    """Tells whether an annotation is an uploaded box that nobody has edited.

    Args:
        stored: the annotation as the platform has it, a dict.
    """
    geometry = stored.get("geometry")
    if (
        not str(stored.get("id")).startswith(_ID_PREFIX)
        or stored.get("source") != "model"
        or stored.get("type") != "bbox"
        or not isinstance(geometry, dict)
    ):
        return False
    additions = ("locked", "data", "parent_id", "instance_id")
    xywh = [geometry.get(name) for name in "xywh"]
    if any(stored.get(name) for name in additions) or not all(map(is_number, xywh)):
        return False
    # What was sent lies within the tolerance, so in one of the nearest cells.
    cells = [
        {_cell(number - TOLERANCE_PX), _cell(number), _cell(number + TOLERANCE_PX)}
        for number in xywh
    ]
    names = stored.get("asset_id"), stored.get("class_id")
    return any(
        stored["id"] == _hashed_id(*names, each, number)
        for each in itertools.product(*cells)
        for number in range(MAX_EQUAL)
    )


def box_id(asset_id, class_id, xywh, number=0):
    """Returns the id of an uploaded box: a UUID made of image, class and position.

    Args:
        asset_id, class_id: of its image and its class.
        xywh: (x, y, width, height) in pixels, which count as whole numbers.
        number: which of up to `MAX_EQUAL` boxes with all these it is.
    """
    return _hashed_id(asset_id, class_id, tuple(map(_cell, xywh)), number)


def _cell(number):
    """Returns the whole pixel in which a coordinate lies."""
    return math.floor(number)


def _hashed_id(asset_id, class_id, cells, number):
    # All of it is hashed: an id must be unique among the images of a workspace.
    names = [str(asset_id).lower(), str(class_id).lower()]
    text = json.dumps([*names, *cells, number])
    digest = hashlib.sha256(text.encode("utf-8")).hexdigest()
    prefixed = uuid.UUID(_ID_PREFIX + digest[:24])
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
