"""Which objects of a label in the Suite stay when boxes are uploaded to it."""

from superbai.upload import box_id
from superbai.upload.stored_label import read_box

# Boxes of one class whose sides are nearer to each other than this part of the box's
# own are taken for one thing that was boxed twice.
_MAX_SHIFT = 0.05
# Boxes of one class whose numbers differ by less are the same: pixels, and a bit more
# than what rounding to tenths can do.
_SAME_PX = 0.06


def merge_objects(item, stored_objects, replace):
    """Decides which objects of a label stay, and which boxes are added.

    Args:
        item: an `upload_plan.Item`.
        stored_objects: list of the label's objects as the Suite has stored them.
        replace: `ours`, boxes of earlier uploads that nobody has edited go; `all`,
            every object goes; `none`, all stay, and only an empty label gets boxes.

    Returns:
        A list of the objects that stay, and a dict like `Item.boxes` of those to add.
    """
    if replace == "none" and stored_objects:
        return stored_objects, {}
    kept_objects, new_boxes = [], dict(item.boxes)
    names = item.dataset, item.key
    ids = [box_id.stored_id(stored) for stored in stored_objects]
    # A box that an earlier version has uploaded stays as it is, too.
    exact_ids = {}
    if any(map(box_id.is_exact, ids)):
        exact_ids = {box_id.make_exact_id(*names, *b): i for i, b in new_boxes.items()}
    for stored_id, stored in zip(ids, stored_objects, strict=True):
        sent_id = exact_ids.get(stored_id, stored_id)
        is_unedited = box_id.is_ours(stored, *names)
        if is_unedited and sent_id in new_boxes:
            # Stays in its place, so that a label that is right is not written again.
            kept_objects.append(stored)
            del new_boxes[sent_id]
        elif replace == "ours" and not is_unedited:
            kept_objects.append(stored)
            # A box that somebody has corrected is not sent again, nor one that is
            # there under another id.
            new_boxes.pop(sent_id, None)
            _drop_equal(new_boxes, stored)
    return kept_objects, new_boxes


def _drop_equal(new_boxes, stored):
    """Removes the first box that lies where a stored object of its class does."""
    box = read_box(stored)
    for sent_id, (class_name, xywh) in new_boxes.items() if box else ():
        shifts = (abs(a - b) for a, b in zip(xywh, box[1], strict=True))
        if class_name == box[0] and max(shifts) < _SAME_PX:
            del new_boxes[sent_id]
            return


def count_stacked(item, objects):
    """Returns how many boxes lie on another of their class, one of them people's.

    People do not draw a box twice. Where the Suite has given boxes other ids, those of
    earlier uploads count as people's, and each upload adds to them. Boxes of this
    upload count, too: one may lie on a box that somebody has corrected.

    Args:
        item: an `upload_plan.Item`.
        objects: list of a label's objects as the Suite has stored them.
    """
    by_class = {}
    for stored in objects:
        box = read_box(stored)
        if box:
            is_ours = box_id.is_ours(stored, item.dataset, item.key)
            by_class.setdefault(box[0], []).append((box[1], is_ours))
    # Of two boxes of uploads, both are of this one, and the detector's business.
    return sum(
        any(
            _is_near(box[0], other[0])
            for other in boxes
            if other is not box and not (box[1] and other[1])
        )
        for boxes in by_class.values()
        for box in boxes
    )


def _is_near(xywh, other):
    sides = (xywh[2], xywh[3]) * 2
    return all(
        abs(a - b) <= _MAX_SHIFT * side
        for a, b, side in zip(xywh, other, sides, strict=True)
    )


def has_stored(objects, kept_objects, new_boxes):
    """Tells whether a label has the objects that were sent, in any order.

    Args:
        objects: list of the label's objects.
        kept_objects, new_boxes: see `Project.set_objects`.
    """
    kept_ids = [box_id.stored_id(stored) for stored in kept_objects]
    if sorted(map(box_id.stored_id, objects)) == sorted([*kept_ids, *new_boxes]):
        return True
    # Or under other ids: then each new box must be found at its place.
    free = [read_box(stored) for stored in objects]
    for class_name, xywh in new_boxes.values():
        places = (
            number
            for number, box in enumerate(free)
            if box and box[0] == class_name and box_id.is_same_place(box[1], xywh)
        )
        number = next(places, None)
        if number is None:
            return False
        del free[number]
    return len(free) == len(kept_objects)
