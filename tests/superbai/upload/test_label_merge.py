"""Which boxes in the Suite are an upload's, which are people's, and which stay."""

import math
import random
import struct
import unicodedata
import uuid

import pytest

from superbai.upload import box_id, label_merge
from superbai.upload.upload_plan import Item

ITEM = Item("ds", "a.jpg", None, {}, set())


def stored_box(class_name, xywh, make_id=box_id.make_id, **changes):
    """Returns a box of `ITEM` as the Suite stores it after an upload."""
    return {
        "id": make_id("ds", "a.jpg", class_name, xywh),
        "class_name": class_name,
        "annotation_type": "box",
        "annotation": {"coord": coord(*xywh)},
        "properties": [],
        **changes,
    }


def coord(*xywh):
    return dict(zip(("x", "y", "width", "height"), xywh, strict=True))


def moved(stored, *xywh):
    return {**stored, "annotation": {"coord": coord(*xywh)}}


def is_ours(stored):
    return box_id.is_ours(stored, "ds", "a.jpg")


def in_32_bits(number):
    return struct.unpack("f", struct.pack("f", number))[0]


# What a Suite may do to a number when it stores it.
REWRITES = {
    "nothing": lambda x: x,
    "one decimal": lambda x: round(x, 1),
    "two decimals": lambda x: round(x, 2),
    "whole pixels": round,
    "whole pixels, half up": lambda x: math.floor(x + 0.5),
    "whole pixels, cut": math.floor,
    "32 bits": in_32_bits,
    "one decimal as text": lambda x: f"{x:.1f}",
    "one decimal, whole ones as integers": lambda x: (
        int(x) if round(x, 1) == int(x) else round(x, 1)
    ),
}


def random_boxes(number):
    chance = random.Random(3)
    for _ in range(number):
        xywh = [chance.uniform(0, chance.choice([40, 2000, 20000])) for _ in range(4)]
        if chance.random() < 0.3:  # As people and other programs write them.
            grid = chance.choice([1, 2, 10])
            xywh = [round(x * grid) / grid for x in xywh]
        yield xywh


@pytest.mark.parametrize("rewrite", REWRITES.values(), ids=REWRITES.keys())
def test_a_box_is_recognised_whatever_the_suite_makes_of_its_numbers(rewrite):
    boxes = [(stored_box("car", b), b) for b in random_boxes(1000)]
    known = [is_ours(moved(stored, *map(rewrite, xywh))) for stored, xywh in boxes]
    assert sum(known) == 1000 or (rewrite is math.floor and sum(known) >= 998)
    # Moving one side by two pixels is an edit, whatever the Suite rounds to.
    chance = random.Random(4)
    for stored, xywh in boxes:
        numbers = [float(rewrite(number)) for number in xywh]
        numbers[chance.randrange(4)] += chance.choice([-2, 2])
        assert not is_ours(moved(stored, *numbers)), (xywh, numbers)


@pytest.mark.parametrize("step", [0.1, 0.5, 1])
def test_a_small_edit_is_an_edit_where_nothing_is_rounded(step):
    num_edits = edited = 0
    for xywh in random_boxes(500):
        stored = stored_box("car", xywh)
        # Of a box in tenths, a tenth may have been rounded away with an edge.
        is_in_tenths = all(round(x, 1) == x for x in xywh)
        for side in range(2 if is_in_tenths and step == 0.1 else 4):
            changed = list(xywh)
            changed[side] += step
            num_edits += 1
            edited += not is_ours(moved(stored, *changed))
    # Of a whole box, half a pixel may have been rounded away.
    assert edited >= num_edits - 20 > 1600


@pytest.mark.parametrize("digits", [0, 1])
def test_a_box_is_recognised_where_its_edges_were_rounded(digits):
    for xywh in random_boxes(1000):
        stored = stored_box("car", xywh)
        x, y, right, bottom = (
            round(each, digits)
            for each in (*xywh[:2], xywh[0] + xywh[2], xywh[1] + xywh[3])
        )
        sides = [x, y, round(right - x, digits), round(bottom - y, digits)]
        assert is_ours(moved(stored, *sides)), xywh
        for side in range(4):
            edited = list(sides)
            edited[side] += 2
            assert not is_ours(moved(stored, *edited))


def test_the_numbers_of_a_box_beyond_what_an_id_holds():
    xywh = (60000.5, 1, 70000, 2)
    stored = stored_box("car", xywh)
    assert is_ours(stored) and is_ours(moved(stored, 60001, 1, 70000, 2))
    assert not is_ours(moved(stored, 60001, 4, 70000, 2))


def test_ids_are_uuids_of_image_class_and_position():
    box = ("ds", "a.jpg", "car", (1, 2, 3, 4))
    first = box_id.make_id(*box)
    assert str(uuid.UUID(first)) == first and uuid.UUID(first).version == 5
    assert uuid.UUID(first).variant == uuid.RFC_4122
    assert first == box_id.make_id("ds", "a.jpg", "car", (1.0, 2.0, 3.0, 4.0))
    others = [
        ("d", "a.jpg", "car", (1, 2, 3, 4)),
        ("ds", "b.jpg", "car", (1, 2, 3, 4)),
        ("ds", "a.jpg", "bus", (1, 2, 3, 4)),
        ("ds", "a.jpg", "car", (1, 2, 3, 4.1)),
        (*box, 1),
    ]
    assert len({first, *(box_id.make_id(*other) for other in others)}) == 6
    apart = unicodedata.normalize("NFD", "사진")
    names = [box_id.make_id(n, "a", n, (1, 2, 3, 4)) for n in (apart, "사진")]
    assert names[0] == names[1]
    assert box_id.make_id("\ud800", "a", "b", (0, 0, 1, 1)).startswith("05be7c")


def test_ids_stay_valid():
    """Boxes in projects have ids of these forms; another would duplicate them."""
    box = ("street", "left/1.jpg", "사람", (1, 2.5, 30, 4))
    assert box_id.make_exact_id(*box) == "05be7ba1-8264-5191-aedc-a01dd7b19e77"
    assert box_id.make_id(*box) == "05be7ca6-5a00-5005-8000-320025800050"


@pytest.mark.parametrize("make_id", [box_id.make_id, box_id.make_exact_id])
def test_a_box_that_somebody_has_edited_is_not_ours(make_id):
    box = stored_box("car", (1, 2, 3, 4), make_id)
    assert is_ours(box) and not box_id.is_ours(box, "ds", "b.jpg")
    assert is_ours({**box, "id": box["id"].upper()})
    for change in (
        {"annotation": {"coord": coord(1, 2, 3, 5)}},
        {"annotation": {"coord": coord(1, 2, 3, "wide")}},
        {"annotation": {"coord": coord(1, 2, 3, True)}},
        {"annotation": {"coord": coord(1, 2, 3, math.nan)}},
        {"class_name": "bus"},
        {"properties": [{"type": "radio"}]},
        {"annotation_type": "polygon"},
        {"annotation": {}},
        {"annotation": None},
        {"id": str(uuid.uuid4())},
        {"id": "05be7c"},
        {"id": 7},
    ):
        assert not is_ours({**box, **change}), change


@pytest.mark.parametrize(
    ("replace", "kept", "added"),
    [
        ("ours", ["theirs", "same", "corrected", "other id"], ["new"]),
        ("all", ["same"], ["corrected", "other id", "new"]),
        ("none", ["theirs", "same", "corrected", "outdated", "other id"], []),
    ],
)
@pytest.mark.parametrize("make_id", [box_id.make_id, box_id.make_exact_id])
def test_which_objects_stay_and_which_boxes_are_added(make_id, replace, kept, added):
    boxes = {
        "same": ("car", (1, 2, 3, 4)),
        "corrected": ("car", (5, 5, 9, 9)),
        "outdated": ("car", (8, 8, 2, 2)),
        "other id": ("car", (20, 8, 2, 2.04)),
        "new": ("person", (1, 2, 3, 4)),
    }
    ids = {name: box_id.make_id("ds", "a.jpg", *box) for name, box in boxes.items()}
    names = ("same", "corrected", "other id", "new")
    item = ITEM._replace(boxes={ids[name]: boxes[name] for name in names})
    stored = {
        "theirs": stored_box("car", (1, 1, 1, 1), id=str(uuid.uuid4())),
        "same": stored_box(*boxes["same"], make_id),
        "corrected": moved(stored_box(*boxes["corrected"], make_id), 5, 5, 9, 11.5),
        "outdated": stored_box(*boxes["outdated"], make_id),
        "other id": moved(stored_box("car", (0, 0, 1, 1)), 20, 8, 2, 2),
    }
    stored["other id"]["id"] = str(uuid.uuid4())
    kept_objects, new_boxes = label_merge.merge_objects(
        item, list(stored.values()), replace
    )
    assert kept_objects == [stored[name] for name in kept]
    assert new_boxes == {ids[name]: boxes[name] for name in added}
    # An empty label gets all boxes, whatever is to be replaced.
    assert label_merge.merge_objects(item, [], replace) == ([], item.boxes)


def test_people_boxes_that_lie_on_each_other_are_counted():
    theirs = [
        {**stored_box("car", xywh), "id": str(uuid.uuid4())}
        for xywh in ((10, 10, 40, 40), (11, 9, 40, 41), (10, 10, 40, 60))
    ]
    ours = stored_box("car", (10, 10, 40, 40))
    other = {**stored_box("bus", (10, 10, 40, 40)), "id": "x"}
    assert label_merge.count_stacked(ITEM, [*theirs, other]) == 2
    # A new box on one that somebody has drawn or corrected counts, too.
    assert label_merge.count_stacked(ITEM, [*theirs, ours, other]) == 3
    assert label_merge.count_stacked(ITEM, [theirs[2], ours, other]) == 0
    # Two of a detector do not.
    again = stored_box("car", (11, 10, 40, 40))
    assert label_merge.count_stacked(ITEM, [again, ours]) == 0
