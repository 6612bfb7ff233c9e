"""Exports of the Suite to records: the spellings, the matching, what is refused."""

import gc
import json
import re
import tracemalloc
import unicodedata
import zipfile
from pathlib import PurePosixPath

import pytest
import suite_export
import tensorflow as tf
from PIL import Image
from suite_export import (
    box,
    build,
    labelled,
    open_export,
    polygon,
    read_all,
    read_items,
    rotated,
    shape,
)

from superbai import label_archive, splits
from superbai.export import Export
from yolov3_tf2.errors import InputError

BLUE, RED = (10, 10, 250), (250, 10, 10)
SWAPPED = "boxes with negative width or height: corners swapped"
spellings = pytest.mark.parametrize("spelling", suite_export.SPELLINGS)


def real_file(shared, name):
    """A file of the real data; skips where it is not there."""
    path = shared / "data" / name
    if not path.is_file():
        pytest.skip(f"the real data is not here: no file {path}")
    return path


def refused(folder, images, labels, *expected, **options):
    """Checks that an export is refused, with `expected` texts in this order."""
    pattern = ".*".join(map(re.escape, expected))
    with pytest.raises(InputError, match=f"(?s){pattern}"):
        read_all(folder, images, labels, **options)


# What is read.


@spellings
def test_a_record_by_hand(tmp_path, spelling):
    encoded = suite_export.encoded_image()
    items = [
        labelled("a.jpg", box(10, 20, 30, 8.5), box(0, 0, 64, 48, "person"), size=None),
        labelled("b.jpg", box(1, 2, 3, 4, "person"), polygon(), size=(64, 48)),
    ]
    images, labels = build(items, spelling)
    with open_export(tmp_path, images, labels) as export:
        assert export.class_names == ["car", "person"]
        assert [item.source_id for item in export.items] == ["ds/a.jpg", "ds/b.jpg"]
        first, second = map(export.read, export.items)
    assert first == (
        "ds/a.jpg",
        encoded,
        "jpeg",
        64,
        48,
        [(10, 20, 40, 28.5), (0, 0, 64, 48)],
        [0, 1],
        None,
    )
    assert second.boxes_px == [(1, 2, 4, 6)]
    assert second.labels == [1]
    assert export.notes.left_out == {"objects of type polygon": 1}


def test_an_open_export_takes_little_memory(tmp_path):
    number = 3000
    items = [labelled(f"{n}.jpg", box(1, 2, 3, 4)) for n in range(number)]
    open_export(tmp_path, *build(items)).close()
    tracemalloc.start()
    try:
        export = Export([tmp_path / "images.zip"], tmp_path / "labels.zip")
        gc.collect()
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    with export:
        assert len(export.items) == number
    # Bytes an image, which has three files. zipfile holds most of them: 100,000 images
    # take 270 MB and 360 MB for a moment, little beside TensorFlow's own memory.
    assert held / number < 2600
    assert peak / number < 3600


def test_items_are_in_the_order_of_the_images_zip(tmp_path):
    images, labels = build([labelled(key) for key in ("b.jpg", "c.jpg", "a.jpg")])
    with open_export(tmp_path, images, dict(reversed(labels.items()))) as export:
        assert [item.key for item in export.items] == ["b.jpg", "c.jpg", "a.jpg"]


def test_several_zips_of_images_are_read_as_one(tmp_path):
    first, second = [labelled("b.jpg")], [labelled("a.jpg", dataset="other")]
    images = [
        suite_export.write_zip(tmp_path / f"{number}.zip", build(items)[0])
        for number, items in enumerate((first, second))
    ]
    _, labels = build(first + second)
    path = suite_export.write_zip(tmp_path / "labels.zip", labels)
    with Export(images, path) as export:
        found = [export.read(item).source_id for item in export.items]
    assert found == ["ds/b.jpg", "other/a.jpg"]


@pytest.mark.parametrize(
    ("key", "entry", "source_id"),
    [
        ("a.jpg", "ds/a.jpg", "ds/a.jpg"),
        ("a.jpg", "ds/a.jpg.jpg", "ds/a.jpg"),
        ("a.jpg", "My project/a.jpg.jpg", "ds/a.jpg"),
        ("a.jpg", "a.jpg", "ds/a.jpg"),
        ("frame1", "ds/frame1.jpg", "ds/frame1"),
        ("frame1", "ds/frame1", "ds/frame1"),
        ("a.JPG", "ds/a.JPG", "ds/a.JPG"),
        ("a.JPG", "ds/a.JPG.jpg", "ds/a.JPG"),
        ("a.jpg", "ds/a.jpg.JPG", "ds/a.jpg"),
        ("a.jpg.b.jpg", "ds/a.jpg.b.jpg", "ds/a.jpg.b.jpg"),
        ("a.jpg.b.jpg", "ds/a.jpg.b.jpg.jpg", "ds/a.jpg.b.jpg"),
        ("b.png", "ds/b.png.jpg", "ds/b.png"),
        ("sub/dir/a.jpg", "ds/sub/dir/a.jpg.jpg", "ds/sub/dir/a.jpg"),
        ("sub/dir/a.jpg", "My project/sub/dir/a.jpg.jpg", "ds/sub/dir/a.jpg"),
        ("/a.jpg", "ds/a.jpg.jpg", "ds/a.jpg"),
        ("/sub/a.jpg", "ds/sub/a.jpg", "ds/sub/a.jpg"),
        ("sub\\a.jpg", "ds/sub/a.jpg", "ds/sub/a.jpg"),
    ],
)
def test_keys_find_their_images(tmp_path, key, entry, source_id):
    folder = entry.partition("/")[0] if entry.startswith("My project") else "ds"
    other = f"{folder}/other.jpg.jpg"
    items = [
        labelled("other.jpg", entry=other, encoded=suite_export.encoded_image(BLUE)),
        labelled(
            key, box(1, 2, 3, 4), entry=entry, encoded=suite_export.encoded_image(RED)
        ),
    ]
    records, left_out = read_all(tmp_path, *build(items))
    assert set(records) == {"ds/other.jpg", source_id}
    assert records[source_id].encoded == suite_export.encoded_image(RED)
    assert records[source_id].boxes_px == [(1, 2, 4, 6)]
    assert not left_out


@pytest.mark.parametrize("key_form", ["NFC", "NFD"])
@pytest.mark.parametrize("entry_form", ["NFC", "NFD"])
def test_korean_names_in_either_form(tmp_path, key_form, entry_form):
    name, dataset = "고양이/사진.jpg", "데이터"
    key, key_dataset = (unicodedata.normalize(key_form, n) for n in (name, dataset))
    entry = unicodedata.normalize(entry_form, f"{dataset}/{name}.jpg")
    items = [labelled(key, box(1, 2, 3, 4), dataset=key_dataset, entry=entry)]
    records, _ = read_all(tmp_path, *build(items))
    assert list(records) == [unicodedata.normalize("NFC", f"{dataset}/{name}")]


@pytest.mark.parametrize("top", ["", "My project/"])
def test_the_same_key_in_two_datasets(tmp_path, top):
    items = [
        labelled(
            "a.jpg",
            box(x, 0, 10, 10),
            dataset=dataset,
            entry=f"{top}{dataset}/a.jpg.jpg",
            encoded=suite_export.encoded_image(colour),
        )
        for dataset, x, colour in (("day", 10, BLUE), ("night", 20, RED))
    ]
    records, _ = read_all(tmp_path, *build(items))
    assert records["day/a.jpg"].encoded == suite_export.encoded_image(BLUE)
    assert records["day/a.jpg"].boxes_px == [(10, 0, 20, 10)]
    assert records["night/a.jpg"].encoded == suite_export.encoded_image(RED)
    assert records["night/a.jpg"].boxes_px == [(20, 0, 30, 10)]


@pytest.mark.parametrize("folder", ["ds", "My project"])
def test_keys_that_end_alike(tmp_path, folder):
    keys = {"a.jpg": BLUE, "sub/a.jpg": RED}
    items = [
        labelled(
            key, entry=f"{folder}/{key}.jpg", encoded=suite_export.encoded_image(colour)
        )
        for key, colour in keys.items()
    ]
    records, _ = read_all(tmp_path, *build(items))
    for key, colour in keys.items():
        assert records[f"ds/{key}"].encoded == suite_export.encoded_image(colour)


@spellings
def test_a_wrapping_folder_and_what_macos_adds(tmp_path, spelling):
    wrapped = []
    for entries in build([labelled("a.jpg", box(1, 2, 3, 4))], spelling):
        more = {f"export/{name}": content for name, content in entries.items()}
        for name in entries:
            path = PurePosixPath("__MACOSX/export", name)
            more[str(path.with_name(f"._{path.name}"))] = b"\0\5\x16\7"
        wrapped.append({"export/.DS_Store": b"", ".DS_Store": b"", **more})
    records, left_out = read_all(tmp_path, *wrapped)
    assert list(records) == ["ds/a.jpg"]
    assert records["ds/a.jpg"].boxes_px == [(1, 2, 4, 6)]
    assert not left_out


def test_json_with_a_byte_order_mark(tmp_path):
    images, labels = build([labelled("사진.jpg", box(1, 2, 3, 4))])
    for name, content in labels.items():
        if name.endswith(".json"):
            labels[name] = json.dumps(content).encode("utf-8-sig")
    records, _ = read_all(tmp_path, images, labels)
    assert records["ds/사진.jpg"].boxes_px == [(1, 2, 4, 6)]


def test_a_meta_without_dataset_and_key_is_named_by_its_path(tmp_path):
    images, labels = build([labelled("sub/a.jpg", box(1, 2, 3, 4))])
    meta = labels[suite_export.meta_name("sub/a.jpg")]
    del meta["data_key"], meta["dataset"]
    records, _ = read_all(tmp_path, images, labels)
    assert list(records) == ["ds/sub/a.jpg"]


@pytest.mark.parametrize(
    "label",
    [
        None,
        {},
        {"categories": {}},
        {"objects": None},
        {"objects": []},
        {"result": None},
        {"result": {}},
        {"result": {"objects": []}},
    ],
    ids=json.dumps,
)
@spellings
def test_a_label_without_objects_is_a_negative(tmp_path, label, spelling):
    images, labels = build([labelled("a.jpg")], spelling)
    labels["labels/0.json"] = label
    records, left_out = read_all(tmp_path, images, labels)
    assert records["ds/a.jpg"].boxes_px == records["ds/a.jpg"].labels == []
    assert not left_out


# What is left out, and counted.


def test_only_submitted_images_are_converted(tmp_path):
    statuses = ["SUBMITTED", "WORKING", "SKIPPED", "WORKING", "submitted", None]
    items = [
        labelled(f"{number}.jpg", box(1, 2, 3, 4), status=status)
        for number, status in enumerate(statuses)
    ]
    records, left_out = read_all(tmp_path, *build(items))
    assert set(records) == {"ds/0.jpg", "ds/4.jpg", "ds/5.jpg"}
    assert left_out["images with status WORKING"] == 2
    assert left_out["images with status SKIPPED"] == 1


def test_unsubmitted_images_can_be_converted(tmp_path):
    items = [
        labelled("a.jpg", box(1, 2, 3, 4)),
        labelled("b.jpg"),
        labelled("c.jpg", box(1, 2, 3, 4), status="WORKING"),
        labelled("d.jpg", status="WORKING"),
        labelled("e.jpg", box(1, 2, 3, 4), status="SKIPPED"),
        labelled("f.jpg", box(1, 2, 3, 4), status=None),
    ]
    images, labels = build(items)
    with open_export(tmp_path, images, labels, include_unsubmitted=True) as export:
        # Not d: nobody has looked at it yet, so it may well show objects.
        assert set(read_items(export)) == {f"ds/{name}.jpg" for name in "abcf"}
    assert export.notes.left_out == {
        "images with status SKIPPED": 1,
        "images not submitted and without any object": 1,
    }
    assert export.notes.assumed == {"images without a status: treated as submitted": 1}


def test_an_image_is_left_out_for_one_reason(tmp_path):
    images, labels = build([labelled("a.jpg"), labelled("b.jpg", status="WORKING")])
    images["ds/c.jpg.jpg"] = suite_export.encoded_image()
    _, left_out = read_all(tmp_path, images, labels)
    assert left_out.total() == 2


def test_unsubmitted_images_need_no_file_and_no_label(tmp_path):
    images, labels = build([labelled("a.jpg"), labelled("b.jpg", status="WORKING")])
    del images["ds/b.jpg.jpg"], labels["labels/1.json"]
    records, left_out = read_all(tmp_path, images, labels)
    assert list(records) == ["ds/a.jpg"]
    assert left_out == {"images with status WORKING": 1}


def test_images_without_a_label_are_counted(tmp_path):
    images, labels = build([labelled("a.jpg")])
    images |= {"ds/b.jpg": suite_export.encoded_image(), "ds/readme.txt": b""}
    records, left_out = read_all(tmp_path, images, labels)
    assert list(records) == ["ds/a.jpg"]
    assert left_out == {"images without a label": 1, "files other than images": 1}


@spellings
def test_other_shapes_are_left_out(tmp_path, spelling):
    kinds = ["polyline", "keypoint", "cuboid2d", "keypoint"]
    things = [polygon(), box(1, 2, 3, 4), rotated(9, 9, 4, 4, 30), *map(shape, kinds)]
    images, labels = build([labelled("a.jpg", *things)], spelling)
    values = {"properties": [{"property_name": "weather"}, {"property_name": "light"}]}
    label = labels["labels/0.json"]
    label.get("result", label)["categories"] = values
    records, left_out = read_all(tmp_path, images, labels)
    assert records["ds/a.jpg"].boxes_px == [(1, 2, 4, 6)]
    assert left_out == {
        "objects of type polygon": 1,
        "objects of type rbox": 1,
        "objects of type polyline": 1,
        "objects of type keypoint": 2,
        "objects of type cuboid2d": 1,
        "image categories": 2,
    }


ALL_CLASSES = [*suite_export.CLASSES, ("car", "rbox"), ("person", "polygon")]


@spellings
def test_boxes_are_drawn_around_other_shapes(tmp_path, spelling):
    things = [
        polygon((5, 6), (20, 8), (9, 30)),
        rotated(30, 20, 20, 10, 90),
        polygon((50, 40), (70, 40), (70, 47), name="person"),
        rotated(30, 20, 20, 10, 30, name="car"),
        box(1, 2, 3, 4, "person"),
        shape("polyline"),
    ]
    images, labels = build([labelled("a.jpg", *things)], spelling, ALL_CLASSES)
    with open_export(tmp_path, images, labels, polygons_as_boxes=True) as export:
        assert export.class_names == ["car", "person", "road"]
        (record,) = read_items(export).values()
    assert record.labels == [2, 0, 1, 0, 1]
    # Half the bounding box of 20 by 10, rotated by 30 degrees.
    half_width = (20 * 3**0.5 / 2 + 10 / 2) / 2
    half_height = (20 / 2 + 10 * 3**0.5 / 2) / 2
    for ours, expected in zip(
        record.boxes_px,
        [
            (5, 6, 20, 30),
            (25, 10, 35, 30),
            (50, 40, 64, 47),
            (30 - half_width, 20 - half_height, 30 + half_width, 20 + half_height),
            (1, 2, 4, 6),
        ],
        strict=True,
    ):
        assert ours == pytest.approx(expected)
    assert export.notes.left_out == {"objects of type polyline": 1}
    assert export.notes.changed == {
        "boxes drawn around polygons and rotated boxes": 4,
        "boxes clipped to their image": 1,
    }
    assert export.notes.assumed == {
        f"class name '{name}' of several annotation types: treated as one class": 1
        for name in ("car", "person")
    }
    assert export.notes.far_outside == 1


def test_a_polygon_of_several_parts_with_a_hole(tmp_path):
    outline, hole, other = (
        [{"x": x, "y": y} for x, y in points]
        for points in (
            [(5, 5), (20, 5), (20, 20)],
            [(1, 1), (9, 9), (9, 8)],
            [(30, 25), (40, 25), (40, 30)],
        )
    )
    images, labels = build([labelled("a.jpg", polygon(), polygon())])
    first, second = labels["labels/0.json"]["objects"]
    first["annotation"]["coord"]["points"] = [[outline, hole], [other]]
    second["annotation"]["coord"]["points"] = []
    records, left_out = read_all(tmp_path, images, labels, polygons_as_boxes=True)
    assert records["ds/a.jpg"].boxes_px == [(1, 1, 40, 30)]
    assert left_out == {"objects of type polygon without points": 1}


@pytest.mark.parametrize(
    ("point", "expected"),
    [
        ({"x": 5}, "object 1: y: expected a finite number, got null"),
        ({"x": 5, "y": float("nan")}, "object 1: y: expected a finite number, got nan"),
        ({"x": 5, "y": "6"}, "object 1: y: expected a finite number, got '6'"),
        (5, "object 1: expected an object, got 5"),
    ],
)
def test_invalid_points_are_refused(tmp_path, point, expected):
    images, labels = build([labelled("a.jpg", polygon())])
    annotation = labels["labels/0.json"]["objects"][0]["annotation"]
    annotation["coord"]["points"][0][0].append(point)
    with (
        open_export(tmp_path, images, labels, polygons_as_boxes=True) as export,
        pytest.raises(InputError, match=rf"labels\.zip: labels/0\.json {expected}"),
    ):
        read_items(export)


# Boxes. The image has 64 by 48 pixels.


@pytest.mark.parametrize(
    ("drawn", "expected"),
    [
        (box(30, 20, -10, -15), (20, 5, 30, 20)),
        (box(30, 20, -10, 15), (20, 20, 30, 35)),
        (box(-10, -5, 30, 20), (0, 0, 20, 15)),
        (box(60, 40, 100, 100), (60, 40, 64, 48)),
        (box(-5, -5, 100, 100), (0, 0, 64, 48)),
        (box(63, 47, 1, 1), (63, 47, 64, 48)),
        (box(0.25, 0.5, 1.5, 1.25), (0.25, 0.5, 1.75, 1.75)),
        (box(5, 6, 1e308, 1e308), (5, 6, 64, 48)),
    ],
)
@spellings
def test_corners_are_swapped_and_boxes_clipped(tmp_path, drawn, expected, spelling):
    images, labels = build([labelled("a.jpg", drawn)], spelling)
    with open_export(tmp_path, images, labels) as export:
        assert read_items(export)["ds/a.jpg"].boxes_px == [expected]
    assert not export.notes.left_out
    x, y, width, height = drawn["coord"].values()
    left, top = min(x, x + width), min(y, y + height)
    is_clipped = (left, top, left + abs(width), top + abs(height)) != expected
    changed = {
        "boxes with negative width or height: corners swapped": int(
            width < 0 or height < 0
        ),
        "boxes clipped to their image": int(is_clipped),
    }
    assert export.notes.changed == {name: n for name, n in changed.items() if n}


@pytest.mark.parametrize(
    "drawn",
    [
        box(10, 10, 0, 0),
        box(10, 10, 20, 0.5),
        box(10, 10, -0.5, 20),
        box(63.5, 10, 20, 20),
        box(64, 10, 20, 20),
        box(-30, 10, 20, 20),
        box(10, 100, 20, 20),
    ],
)
def test_boxes_under_one_pixel_are_left_out(tmp_path, drawn):
    things = [box(1, 2, 3, 4), drawn, box(5, 6, 7, 8, "person")]
    records, left_out = read_all(tmp_path, *build([labelled("a.jpg", *things)]))
    assert records["ds/a.jpg"].boxes_px == [(1, 2, 4, 6), (5, 6, 12, 14)]
    assert records["ds/a.jpg"].labels == [0, 1]
    assert left_out == {"boxes under one pixel or outside their image": 1}


@pytest.mark.parametrize("side", ["x", "y", "width", "height"])
@pytest.mark.parametrize(
    "value",
    [None, float("nan"), float("inf"), -float("inf"), "12", True, [], 10**400],
    ids=["null", "nan", "inf", "-inf", "text", "true", "list", "too large"],
)
def test_invalid_coordinates_are_refused(tmp_path, side, value):
    drawn = box(1, 2, 3, 4)
    drawn["coord"][side] = value
    images, labels = build([labelled("a.jpg", box(1, 2, 3, 4), drawn)])
    refused(tmp_path, images, labels, "labels.zip: labels/0.json object 2: ", side)


@pytest.mark.parametrize("side", ["x", "y", "width", "height"])
@spellings
def test_missing_coordinates_are_refused(tmp_path, side, spelling):
    drawn = box(1, 2, 3, 4)
    del drawn["coord"][side]
    images, labels = build([labelled("a.jpg", drawn)], spelling)
    expected = f"object 1: {side}: expected a finite number, got null"
    refused(tmp_path, images, labels, "labels.zip: labels/0.json", expected)


# Classes.


def test_classes_keep_the_order_of_the_project(tmp_path):
    classes = [("zebra", "box"), ("road", "polygon"), ("고양이", "box"), ("ant", "box")]
    things = [box(1, 2, 3, 4, name) for name in ("ant", "zebra", "고양이")]
    for spelling in suite_export.SPELLINGS:
        images, labels = build([labelled("a.jpg", *things)], spelling, classes)
        with open_export(tmp_path, images, labels) as export:
            assert export.class_names == ["zebra", "고양이", "ant"]
            assert export.read(export.items[0]).labels == [2, 0, 1]


@pytest.mark.parametrize("spelling", suite_export.SPELLINGS[1:])
def test_a_class_is_found_by_its_id_and_then_by_its_name(tmp_path, spelling):
    key = {"0.3.1": "classId", "0.6.5": "class_id"}[spelling]
    things = [box(1, 2, 3, 4, "old name"), box(1, 2, 3, 4, "person")]
    images, labels = build([labelled("a.jpg", *things)], spelling)
    renamed, without_id = labels["labels/0.json"]["objects"]
    renamed[key] = "id-0"
    del without_id[key]
    records, _ = read_all(tmp_path, images, labels)
    assert records["ds/a.jpg"].labels == [0, 1]


@spellings
def test_classes_without_ids_are_found_by_their_names(tmp_path, spelling):
    things = [box(1, 2, 3, 4, "car"), box(1, 2, 3, 4, "person")]
    images, labels = build([labelled("a.jpg", *things)], spelling)
    project = labels["project.json"]
    for thing in (
        *project.get("objects", []),
        *project.get("object_detection", {}).get("object_classes", []),
        *labels["labels/0.json"].get("objects", []),
    ):
        for key in ("id", "class_id", "classId"):
            thing.pop(key, None)
    records, _ = read_all(tmp_path, images, labels)
    assert records["ds/a.jpg"].labels == [0, 1]


@spellings
def test_one_name_for_a_box_and_a_polygon_class(tmp_path, spelling):
    classes = [("person", "polygon"), ("car", "box"), ("person", "box")]
    things = [polygon(name="person"), box(1, 2, 3, 4, "person")]
    images, labels = build([labelled("a.jpg", *things)], spelling, classes)
    with open_export(tmp_path, images, labels) as export:
        assert export.class_names == ["car", "person"]
        record = export.read(export.items[0])
    assert record.labels == [1]
    assert export.notes.left_out == {"objects of type polygon": 1}


@spellings
def test_spaces_around_a_class_name_are_ignored(tmp_path, spelling):
    images, labels = build(
        [labelled("a.jpg", box(1, 2, 3, 4, " car "))], spelling, [(" car ", "box")]
    )
    with open_export(tmp_path, images, labels) as export:
        assert export.class_names == ["car"]
        assert export.read(export.items[0]).labels == [0]


@spellings
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_class_names_in_either_unicode_form_are_equal(tmp_path, spelling, form):
    in_project = unicodedata.normalize(form, "고양이")
    in_label = unicodedata.normalize({"NFC": "NFD", "NFD": "NFC"}[form], "고양이")
    assert in_project != in_label
    images, labels = build(
        [labelled("a.jpg", box(1, 2, 3, 4, in_label))], spelling, [(in_project, "box")]
    )
    with open_export(tmp_path, images, labels) as export:
        assert export.class_names == [unicodedata.normalize("NFC", "고양이")]
        assert export.read(export.items[0]).labels == [0]
    names = [in_project, in_label]
    images, labels = build(
        [labelled("a.jpg", *(box(1, 2, 3, 4, n) for n in names))],
        spelling,
        [(n, "box") for n in names],
    )
    refused(tmp_path, images, labels, "two box classes are both named '고양이'")


def test_a_legacy_export_with_a_class_name_in_both_unicode_forms(shared):
    folder = shared / "cases" / "nfd_class_legacy"
    if not folder.is_dir():
        pytest.skip(f"the case is not here: no folder {folder}")
    with Export([folder / "images.zip"], folder / "labels.zip") as export:
        assert export.class_names == [unicodedata.normalize("NFC", "강아지"), "cat"]
        labels = [export.read(item).labels for item in export.items]
    assert sorted(labels) == [[0], [1], [1], [1], [1]]


# Class files hold one name a line.
@pytest.mark.parametrize(
    "name", ["", "  ", None, "two\nlines", "two\rlines", "two\u2028lines"], ids=ascii
)
def test_a_class_name_must_be_one_line(tmp_path, name):
    images, labels = build([labelled("a.jpg")], classes=[(name, "box")])
    refused(tmp_path, images, labels, "labels.zip: project.json: class name: expected")


@spellings
def test_an_unknown_class_is_refused(tmp_path, spelling):
    things = [box(1, 2, 3, 4), box(1, 2, 3, 4, "truck")]
    refused(
        tmp_path,
        *build([labelled("a.jpg", *things)], spelling),
        "labels.zip: labels/0.json object 2: class 'truck'",
        "classes: car, person",
    )


@spellings
def test_a_project_without_box_classes_is_refused(tmp_path, spelling):
    classes = [("road", "polygon"), ("sky", "polygon"), ("hand", "keypoint")]
    images, labels = build([labelled("a.jpg")], spelling, classes)
    expected = "labels.zip: project.json has no bounding-box class (found: polygon 2"
    refused(tmp_path, images, labels, expected)


@spellings
def test_two_box_classes_with_the_same_name_are_refused(tmp_path, spelling):
    classes = [("car", "box"), ("person", "box"), ("car", "polygon"), ("car", "box")]
    things = [box(1, 2, 3, 4), box(5, 6, 7, 8)]
    images, labels = build([labelled("a.jpg", *things)], spelling, classes)
    if spelling != "legacy":  # Its labels have names alone.
        records, _ = read_all(tmp_path, images, labels)
        assert records["ds/a.jpg"].labels == [0, 0]
        key = "classId" if spelling == "0.3.1" else "class_id"
        labels["labels/0.json"]["objects"][1][key] = "id-3"
    refused(
        tmp_path, images, labels, "labels.zip: project.json: two box classes", "'car'"
    )


@spellings
def test_two_box_classes_with_the_same_name_that_no_label_uses(tmp_path, spelling):
    classes = [("car", "box"), ("person", "box"), ("car", "box")]
    items = [labelled("a.jpg", box(1, 2, 3, 4, "person"))]
    with open_export(tmp_path, *build(items, spelling, classes)) as export:
        assert export.class_names == ["car", "person"]
        assert read_items(export)["ds/a.jpg"].labels == [1]


# Tags.


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ([], set()),
        ([{"name": "test"}], {"test"}),
        (["train"], {"train"}),
        ([{"name": " Test "}, "NIGHT"], {"test", "night"}),
        (["contest", {"name": "latest"}], {"contest", "latest"}),
        (None, set()),
    ],
)
def test_tags_are_strings_or_objects(tmp_path, tags, expected):
    images, labels = build([labelled("a.jpg")])
    labels[suite_export.meta_name("a.jpg")]["tags"] = tags
    with open_export(tmp_path, images, labels) as export:
        assert export.items[0].tags == expected


def test_tags_of_both_splits_are_refused(tmp_path):
    items = [labelled("a.jpg", tags=["test", {"name": "train"}]), labelled("b.jpg")]
    with (
        open_export(tmp_path, *build(items)) as export,
        pytest.raises(InputError, match="ds/a.jpg has the tags test, train"),
    ):
        splits.split_items(export.items, 0.5, export.name)


# Archives and projects that cannot be used.


@pytest.mark.parametrize("name", ["images.zip", "labels.zip"])
def test_a_file_that_is_not_a_zip_is_refused(tmp_path, name):
    images, labels = build([labelled("a.jpg")])
    suite_export.write_zip(tmp_path / "images.zip", images)
    suite_export.write_zip(tmp_path / "labels.zip", labels)
    (tmp_path / name).write_bytes(b"<!DOCTYPE html><html>expired</html>")
    pattern = f"{re.escape(name)} is not a zip archive .*<!DOCTYPE"
    with pytest.raises(InputError, match=pattern):
        Export([tmp_path / "images.zip"], tmp_path / "labels.zip")


def test_swapped_zips_are_refused(tmp_path):
    images, labels = build([labelled("a.jpg")])
    expected = "labels.zip holds images and no project.json: are the inputs"
    refused(tmp_path, labels, images, expected, "swapped?")


def test_zips_without_what_they_should_hold_are_refused(tmp_path):
    images, labels = build([labelled("a.jpg")])
    text = {"readme.txt": b""}
    refused(tmp_path, images, text, "labels.zip holds other files and no project.json")
    refused(tmp_path, text, labels, "1 of 1 labelled images are not in", "ds/a.jpg")
    refused(tmp_path, {}, labels, "images.zip holds no files", "swapped?")
    refused(tmp_path, labels, labels, "images.zip holds a label export", "swapped?")


def test_an_export_without_metas_is_refused(tmp_path):
    images, labels = build([labelled("a.jpg")])
    labels = {"project.json": labels["project.json"]}
    refused(tmp_path, images, labels, "labels.zip: expected a meta/<dataset>")


def test_an_export_without_images_is_refused(tmp_path):
    _, labels = build([labelled("a.jpg")])
    path = suite_export.write_zip(tmp_path / "labels.zip", labels)
    with pytest.raises(
        InputError, match=r"labels\.zip holds labels alone: give its im"
    ):
        Export([], path)


@pytest.mark.parametrize("inner", ["a.zip", "images/cam 1.ZIP", "b.tar.gz", "c.tgz"])
def test_an_archive_in_an_archive_is_named(tmp_path, inner):
    images, labels = build([labelled("a.jpg"), labelled("b.jpg")])
    nested = {inner: b"PK"}
    kind = "zip" if inner.lower().endswith("zip") else "tar"
    advice = f"the {kind} {inner}; unpack it first, or give it directly"
    refused(tmp_path, nested, labels, f"images.zip holds no images, but {advice}")
    refused(tmp_path, images, nested, f"labels.zip holds {advice}")
    images.pop("ds/b.jpg.jpg")
    refused(tmp_path, images | nested, labels, "1 of 2 labelled images", advice)
    # Images need no extension.
    _, labels = build([labelled("b")])
    images = {"ds/b": suite_export.encoded_image(), **nested}
    assert read_all(tmp_path, images, labels)[0]


@pytest.mark.parametrize(
    ("project", "kind"),
    [
        ({"type": "video-siesta", "object_tracking": {}}, "video-siesta"),
        ({"type": "pointclouds-siesta"}, "pointclouds-siesta"),
        ({"type": "audio"}, "audio"),
    ],
)
def test_other_projects_are_refused(tmp_path, project, kind):
    images, labels = build([labelled("a.jpg")])
    labels["project.json"] = project
    refused(tmp_path, images, labels, f"labels.zip: project.json is a '{kind}' project")


@pytest.mark.parametrize("version", ["0.10.1", "1.0.0", "new"])
def test_a_newer_version_is_reported(tmp_path, version):
    images, labels = build([labelled("a.jpg", box(1, 2, 3, 4))])
    labels["project.json"]["version"] = version
    with open_export(tmp_path, images, labels) as export:
        assert read_items(export)["ds/a.jpg"].boxes_px == [(1, 2, 4, 6)]
    reason = (
        f"project.json has version '{version}': read as the newest known version, 0.9"
    )
    assert export.notes.assumed == {reason: 1}


@pytest.mark.parametrize("version", ["0.2.6", "0.9.0", "0.3.1-py"])
def test_a_known_version_is_not_reported(tmp_path, version):
    images, labels = build([labelled("a.jpg")])
    labels["project.json"]["version"] = version
    with open_export(tmp_path, images, labels) as export:
        assert not export.notes.assumed


@pytest.mark.parametrize("value", [None, {}, []])
def test_an_empty_object_tracking_is_no_video(tmp_path, value):
    images, labels = build([labelled("a.jpg")])
    labels["project.json"]["object_tracking"] = value
    assert read_all(tmp_path, images, labels)[0]


def test_several_exports_in_one_zip_are_refused(tmp_path):
    images, labels = build([labelled("a.jpg")])
    both = {f"{n}/{name}": content for n in "AB" for name, content in labels.items()}
    refused(tmp_path, images, both, "labels.zip holds several exports, A/project.json")
    # But one may have a project.json further down.
    images["ds/project.json.jpg"] = suite_export.encoded_image()
    labels["meta/ds/project.json"] = labels[suite_export.meta_name("a.jpg")] | {
        "data_key": "project.json"
    }
    records, _ = read_all(tmp_path, images, labels)
    assert set(records) == {"ds/a.jpg", "ds/project.json"}


def test_images_of_an_spb_download_are_read(tmp_path):
    images, labels = build([labelled("a.jpg")])
    images |= {"project.json": b"{}", "ds/a.jpg.json": b"{}"}
    records, left_out = read_all(tmp_path, images, labels)
    assert list(records) == ["ds/a.jpg"]
    assert left_out == {"files other than images": 2}


@pytest.mark.parametrize(
    "path", ["./labels/0.json", "/labels/0.json", "labels\\0.json"]
)
def test_label_paths_in_other_forms(tmp_path, path):
    images, labels = build([labelled("a.jpg", box(1, 2, 3, 4))])
    labels[suite_export.meta_name("a.jpg")]["label_path"] = [path]
    assert read_all(tmp_path, images, labels)[0]["ds/a.jpg"].labels == [0]


def test_a_meta_in_no_folder(tmp_path):
    images, labels = build([labelled("a.jpg")])
    meta = labels.pop(suite_export.meta_name("a.jpg"))
    del meta["dataset"]
    labels["meta/a.jpg.json"] = meta
    assert list(read_all(tmp_path, images, labels)[0]) == ["a.jpg"]
    del meta["data_key"]
    assert list(read_all(tmp_path, images, labels)[0]) == ["a.jpg"]


def test_a_legacy_shape_with_other_keys(tmp_path):
    images, labels = build([labelled("a.jpg", box(1, 2, 3, 4))], "legacy")
    thing = labels["labels/0.json"]["result"]["objects"][0]
    thing["shape"] = {"style": "thin", **thing["shape"]}
    assert read_all(tmp_path, images, labels)[0]["ds/a.jpg"].labels == [0]


@pytest.mark.parametrize(
    "label", [None, {}, {"objects": []}, {"result": None}, {"result": {"objects": []}}]
)
def test_an_undecided_consensus_is_left_out(tmp_path, label):
    images, labels = build([labelled("a.jpg"), labelled("b.jpg")])
    meta = labels[suite_export.meta_name("a.jpg")]
    meta["related_labels"] = {"consensus_labeling": ["one", "two"]}
    labels["labels/0.json"] = label
    records, left_out = read_all(tmp_path, images, labels)
    assert list(records) == ["ds/b.jpg"]
    assert left_out == {"images whose consensus label is undecided": 1}


def test_a_dropped_box_is_counted_once(tmp_path):
    things = [box(100, 20, -30, 10), box(30, 20, -10, 10), polygon((70, 0), (90, 9))]
    images, labels = build([labelled("a.jpg", *things)])
    with open_export(tmp_path, images, labels, polygons_as_boxes=True) as export:
        assert read_items(export)["ds/a.jpg"].boxes_px == [(20, 20, 30, 30)]
    assert export.notes.left_out == {"boxes under one pixel or outside their image": 2}
    assert export.notes.changed == {
        "boxes with negative width or height: corners swapped": 1
    }
    # A box outside is one of another image, or of another size.
    assert export.notes.far_outside == 2


def test_unsubmitted_images_without_objects_are_left_out(tmp_path):
    items = [
        labelled("a.jpg", box(1, 2, 3, 4)),
        labelled("b.jpg", box(100, 2, 3, 4), status="WORKING"),
        labelled("c.jpg", polygon(), status="WORKING"),
        labelled("d.jpg", status="WORKING"),
    ]
    images, labels = build(items)
    del labels["labels/3.json"]
    options = {"include_unsubmitted": True}
    records, left_out = read_all(tmp_path, images, labels, **options)
    assert list(records) == ["ds/a.jpg"]
    assert left_out == {
        "objects of type polygon": 1,
        "images not submitted and without any object": 3,
    }


# Folders and loose files.


def write_folder(folder, entries):
    for name, content in entries.items():
        if not name.endswith("/"):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            is_bytes = isinstance(content, bytes)
            path.write_bytes(content if is_bytes else json.dumps(content).encode())
    return folder


def test_folders_are_read_like_zips(tmp_path):
    items = [
        labelled("a.jpg", box(1, 2, 3, 4)),
        labelled("sub/a.jpg", box(5, 6, 7, 8), dataset="ds2"),
    ]
    images, labels = build(items)
    expected, _ = read_all(tmp_path, images, labels)
    images_folder = write_folder(tmp_path / "images", images)
    labels_folder = write_folder(tmp_path / "labels", labels)
    loose = [images_folder / name for name in [*images, "notes.txt"]]
    loose[-1].write_text("beside the images")
    for given in ([images_folder], loose, [tmp_path / "images.zip"]):
        with Export(given, labels_folder) as export:
            assert read_items(export) == expected
    with pytest.raises(InputError, match="images holds a label export.*swapped"):
        other = {"project.json": b"{}", "meta/ds/a.jpg.json": b"{}"}
        write_folder(images_folder, other)
        Export([images_folder], labels_folder)


# Images and labels that do not fit together.


@pytest.mark.parametrize(
    "key", ["../../etc/passwd.jpg", "sub/../../a.jpg", "..\\a.jpg"]
)
def test_a_key_that_leaves_the_archive_is_refused(tmp_path, key):
    images, labels = build([labelled("a.jpg")])
    name = suite_export.meta_name("a.jpg")
    labels[name]["data_key"] = key
    refused(tmp_path, images, labels, f"{name}: data_key", "leaves the archive")


def test_the_archive_of_a_key_that_leaves_it_is_named(tmp_path):
    images, labels = build([labelled("a.jpg")])
    labels[suite_export.meta_name("a.jpg")]["data_key"] = "../a.jpg"
    refused(tmp_path, images, labels, "labels.zip", "leaves the archive")


@pytest.mark.parametrize("text", ["a\n.jpg", "a\0.jpg", "\x7f", "a\u2028.jpg"])
@pytest.mark.parametrize("name", ["data_key", "dataset"])
def test_names_with_control_characters_are_refused(tmp_path, name, text):
    images, labels = build([labelled("a.jpg")])
    labels[suite_export.meta_name("a.jpg")][name] = text
    refused(
        tmp_path,
        images,
        labels,
        "meta/ds/a.jpg.json",
        name,
        "expected one line of text",
    )


def test_a_dataset_that_leaves_the_archive_is_refused(tmp_path):
    images, labels = build([labelled("a.jpg")])
    labels[suite_export.meta_name("a.jpg")]["dataset"] = "../ds"
    refused(tmp_path, images, labels, "labels.zip", "dataset '../ds' leaves")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"[" * 100_000 + b"]" * 100_000, "recursion"),
        (b'{"data_key": "\\ud800.jpg"}', "surrogates not allowed"),
        (b'{"data_key": ' + b"1" * 5000 + b"}", "4300 digits"),
    ],
    ids=["nested", "half a pair", "a long number"],
)
def test_json_beyond_the_limits_of_the_parser_is_refused(tmp_path, content, reason):
    images, labels = build([labelled("a.jpg")])
    name = suite_export.meta_name("a.jpg")
    labels[name] = content
    refused(tmp_path, images, labels, f"labels.zip: {name}: malformed JSON", reason)


def test_whole_surrogate_pairs_are_read(tmp_path):
    images, labels = build([labelled("a.jpg", entry="ds/\U0001f9a6.jpg")])
    name = suite_export.meta_name("a.jpg")
    labels[name]["data_key"] = "\U0001f9a6.jpg"
    labels[name] = json.dumps(labels[name]).encode()
    assert b"\\ud83e" in labels[name]
    records, _ = read_all(tmp_path, images, labels)
    assert list(records) == ["ds/\U0001f9a6.jpg"]


def test_a_large_json_is_refused(tmp_path):
    images, labels = build([labelled("a.jpg")])
    labels["labels/0.json"] = b" " * (label_archive.MAX_JSON_BYTES + 1)
    expected = (
        f"labels.zip: 'labels/0.json' has {label_archive.MAX_JSON_BYTES + 1:,} bytes"
    )
    refused(tmp_path, images, labels, expected)


@pytest.mark.parametrize("key", ["a.jpg", "/a.jpg"])
def test_an_image_that_is_described_twice_is_refused(tmp_path, key):
    images, labels = build([labelled("a.jpg")])
    first, second = suite_export.meta_name("a.jpg"), "meta/ds2/a.jpg.json"
    labels[second] = labels[first] | {"data_key": key}
    expected = "labels.zip: 'a.jpg' of dataset 'ds' is described twice"
    refused(tmp_path, images, labels, expected, first, second)


def test_an_ambiguous_image_is_refused(tmp_path):
    images, labels = build([labelled("a.jpg", entry="p/a.jpg.jpg")])
    images["q/a.jpg.jpg"] = suite_export.encoded_image(RED)
    expected = "'a.jpg' of dataset 'ds' matches 2 different images"
    refused(
        tmp_path, images, labels, expected, "images.zip: p/a.jpg.jpg", "q/a.jpg.jpg"
    )


def test_one_image_for_two_labels_is_refused(tmp_path):
    items = [
        labelled("a.jpg", dataset=dataset, entry="My project/a.jpg.jpg")
        for dataset in ("day", "night")
    ]
    expected = "images.zip: My project/a.jpg.jpg is the image of both"
    refused(tmp_path, *build(items), expected, "day/a.jpg", "night/a.jpg")


def test_missing_images_are_refused(tmp_path):
    images, labels = build([labelled(f"{number}.jpg") for number in range(15)])
    for number in range(12):
        del images[f"ds/{number}.jpg.jpg"]
    expected = "12 of 15 labelled images are not in ", "images.zip", "ds/0.jpg"
    refused(tmp_path, images, labels, *expected)


def test_missing_images_can_be_left_out(tmp_path):
    images, labels = build([labelled("a.jpg", box(1, 2, 3, 4)), labelled("b.jpg")])
    del images["ds/b.jpg.jpg"]
    records, left_out = read_all(tmp_path, images, labels, skip_missing=True)
    assert list(records) == ["ds/a.jpg"]
    assert left_out == {"labelled images that are missing": 1}


def test_an_image_is_found_by_file_name_only_if_it_is_unique(tmp_path):
    items = [
        labelled("sub/a.jpg", entry="elsewhere/a.jpg.jpg"),
        labelled("b.jpg"),
    ]
    expected = (
        "images.zip: elsewhere/a.jpg.jpg has the file name of ds/sub/a.jpg; if it is "
        "that image, use --find_images_by=file_name"
    )
    refused(tmp_path, *build(items), "1 of 2 labelled images are not in", expected)
    by_name = {"find_images_by": "file_name"}
    with open_export(tmp_path, *build(items), **by_name) as export:
        assert [item.entry for item in export.items] == [
            "elsewhere/a.jpg.jpg",
            "ds/b.jpg.jpg",
        ]
    assert export.notes.assumed == {
        "images found by file name only, in another folder": 1
    }
    # Not where another label has the name, nor where another image has it.
    for other in (
        labelled("other/a.jpg", entry="x.jpg"),
        labelled("x.jpg", entry="x/a.jpg.jpg"),
    ):
        expected = "labelled images are not in", "ds/sub/a.jpg"
        refused(tmp_path, *build([*items, other]), *expected, **by_name)


def test_a_missing_label_is_refused(tmp_path):
    images, labels = build([labelled("a.jpg")])
    del labels["labels/0.json"]
    name = suite_export.meta_name("a.jpg")
    expected = f"labels.zip: {name} names labels/0.json, which is not in the"
    refused(tmp_path, images, labels, expected)


@pytest.mark.parametrize("label_path", [None, []])
def test_a_meta_without_a_label_is_refused(tmp_path, label_path):
    images, labels = build([labelled("a.jpg")])
    name = suite_export.meta_name("a.jpg")
    labels[name]["label_path"] = label_path
    refused(tmp_path, images, labels, f"labels.zip: {name} names no label")


def test_a_size_that_differs_from_the_labelled_size_is_refused(tmp_path):
    items = [labelled("a.jpg", size=(128, 96))]
    expected = "images.zip: ds/a.jpg.jpg is 64x48, but was labelled as 128x96"
    refused(tmp_path, *build(items), expected)


@pytest.mark.parametrize(
    "encoded",
    [
        b"",
        b"not an image",
        suite_export.encoded_image()[:-50],
        suite_export.encoded_image(kind="PNG")[:-30],
        suite_export.encoded_image(kind="BMP")[:-50],
    ],
    ids=["empty", "text", "cut off JPEG", "cut off PNG", "cut off BMP"],
)
def test_an_unreadable_image_is_refused(tmp_path, encoded):
    images, labels = build([labelled("a.jpg")])
    images["ds/a.jpg.jpg"] = encoded
    expected = "images.zip: ds/a.jpg.jpg: expected an image", "incomplete"
    refused(tmp_path, images, labels, *expected)


# JSON that is malformed, or not of the expected form.


@pytest.mark.parametrize(
    "name", ["project.json", suite_export.meta_name("a.jpg"), "labels/0.json"]
)
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "malformed JSON"),
        (b'{"objects": [', "malformed JSON"),
        (b"\xff\xfe{}", "expected JSON in UTF-8, got byte 0xff"),
    ],
)
def test_malformed_json_is_refused(tmp_path, name, content, message):
    images, labels = build([labelled("a.jpg")])
    labels[name] = content
    refused(tmp_path, images, labels, f"labels.zip: {name}: {message}")


@pytest.mark.parametrize(
    "project",
    [
        None,
        [],
        "text",
        {"type": "image-siesta", "object_detection": None},
        {"type": "image-siesta", "object_detection": {"object_classes": ["car"]}},
        {"type": "image-siesta", "object_detection": {"object_classes": 5}},
        {"objects": ["car"]},
        {"objects": [{"class_name": "car", "info": "box"}]},
    ],
    ids=json.dumps,
)
def test_an_invalid_project_json_is_refused(tmp_path, project):
    images, labels = build([labelled("a.jpg")])
    labels["project.json"] = project
    refused(tmp_path, images, labels, "labels.zip")


@pytest.mark.parametrize("meta", [None, [], "text", 5], ids=json.dumps)
def test_an_invalid_meta_is_refused(tmp_path, meta):
    images, labels = build([labelled("a.jpg")])
    name = suite_export.meta_name("a.jpg")
    labels[name] = meta
    refused(tmp_path, images, labels, "labels.zip", name)


@pytest.mark.parametrize(
    "change",
    [
        {"label_path": 5},
        {"label_path": [None]},
        {"tags": 5},
        {"image_info": [64, 48]},
        {"image_info": {"width": "wide", "height": 48}},
        {"image_info": {"width": float("nan"), "height": 48}},
    ],
    ids=json.dumps,
)
def test_a_meta_with_values_of_wrong_types_is_refused(tmp_path, change):
    images, labels = build([labelled("a.jpg")])
    name = suite_export.meta_name("a.jpg")
    labels[name] |= change
    refused(tmp_path, images, labels, "labels.zip", name)


@pytest.mark.parametrize(
    "label",
    [
        [1],
        "text",
        5,
        {"result": [1]},
        {"objects": {"a": 1}},
        {"objects": 5},
        {"objects": [1]},
        {"objects": [None]},
        {"objects": [{"class": "car", "shape": ["box"]}]},
        {"objects": [{"class": "car", "shape": {"box": [1, 2, 3, 4]}}]},
        {"objects": [{"class": ["car"], "shape": {"box": {}}}]},
        {"objects": [{"class_id": "id-0", "annotation_type": "box", "annotation": 5}]},
        {
            "objects": [
                {
                    "class_id": "id-0",
                    "annotation_type": "box",
                    "annotation": {"coord": [1, 2, 3, 4]},
                }
            ]
        },
    ],
    ids=json.dumps,
)
def test_an_invalid_label_is_refused(tmp_path, label):
    images, labels = build([labelled("a.jpg")])
    labels["labels/0.json"] = label
    refused(tmp_path, images, labels, "labels.zip", "labels/0.json")


# EXIF: boxes and pixels have the same orientation.


@pytest.mark.parametrize(
    ("size", "drawn", "expected_size"),
    [
        ((48, 64), box(32, 0, 16, 16), (48, 64)),
        (None, box(32, 0, 16, 16), (48, 64)),
        ((64, 48), box(0, 0, 16, 16), (64, 48)),
    ],
    ids=["upright", "unknown", "as stored"],
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_boxes_of_a_rotated_image(tmp_path, kind, size, drawn, expected_size):
    image = Image.new("RGB", (64, 48), BLUE)
    image.paste(RED, (0, 0, 16, 16))
    exif = Image.Exif()
    exif[0x0112] = 6  # The stored left upper corner is shown at the right.
    encoded = suite_export.encode(image, kind, exif=exif)
    items = [labelled("a.jpg", drawn, encoded=encoded, size=size)]
    records, _ = read_all(tmp_path, *build(items))
    record = records["ds/a.jpg"]
    assert (record.width, record.height) == expected_size
    pixels = tf.io.decode_image(record.encoded, channels=3).numpy()
    assert pixels.shape[:2] == expected_size[::-1]
    ((left, top, right, bottom),) = [map(int, b) for b in record.boxes_px]
    inside = pixels[top:bottom, left:right]
    assert inside.shape[:2] == (16, 16)
    # Red in the box, blue in the three other corners.
    assert inside[4:12, 4:12, 0].min() > 200
    corners = pixels[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert sorted(corner[0] > 128 for corner in corners) == [False] * 3 + [True]


# Real exports.


def read_real(images, labels):
    """Returns the numbers of items by split, and the records."""
    with Export([images], labels) as export:
        by_split, _ = splits.split_items(export.items, 0.2, export.name)
        records = [export.read(item) for item in export.items]
    assert not export.notes.left_out
    return [len(by_split["train"]), len(by_split["test"])], records


def test_coco_mini(shared):
    images = real_file(shared, "coco-mini/images.zip")
    read = [
        read_real(images, real_file(shared, f"coco-mini/labels-{spelling}.zip"))
        for spelling in suite_export.SPELLINGS
    ]
    numbers, records = read[0]
    assert numbers == [80, 79]
    assert sum(len(record.boxes_px) for record in records) == 547
    assert read[1] == read[0]
    assert read[2] == read[0]


def test_raccoon(shared):
    numbers, records = read_real(
        real_file(shared, "raccoon/images.zip"),
        real_file(shared, "raccoon/labels-0.6.5.zip"),
    )
    assert numbers == [160, 40]
    assert sum(len(record.boxes_px) for record in records) == 217


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("image-sample.zip", r"no bounding-box class \(found: polygon \d+\)"),
        ("video-sample.zip", "project.json is a 'video-siesta' project"),
    ],
)
def test_samples_of_the_suite(shared, tmp_path, name, message):
    labels = real_file(shared, f"suite-samples/{name}")
    images, _ = build([labelled("a.jpg")])
    path = suite_export.write_zip(tmp_path / "images.zip", images)
    assert zipfile.is_zipfile(labels)
    with pytest.raises(InputError, match=f"{re.escape(name)}.*{message}"):
        Export([path], labels)


def test_the_polygons_of_the_suites_sample(shared, tmp_path):
    labels = real_file(shared, "suite-samples/image-sample.zip")
    images, outlines = {}, {}
    with zipfile.ZipFile(labels) as archive:
        for name in archive.namelist():
            if not name.startswith("meta/") or name.endswith("/"):
                continue
            meta = json.loads(archive.read(name))
            size = tuple(meta["image_info"][side] for side in ("width", "height"))
            key = f"{meta['dataset']}/{meta['data_key']}"
            images[f"{key}.jpg"] = suite_export.encoded_image(size=size)
            label = json.loads(archive.read(meta["label_path"][0]))
            outlines[key] = [
                [(p["x"], p["y"]) for p in thing["annotation"]["coord"]["points"]]
                for thing in label["objects"]
            ]
    path = suite_export.write_zip(tmp_path / "images.zip", images)
    with Export([path], labels, polygons_as_boxes=True) as export:
        records = read_items(export)
    assert sum(len(record.boxes_px) for record in records.values()) > 0
    assert not export.notes.left_out
    assert records.keys() == outlines.keys()
    for key, record in records.items():
        assert record.boxes_px == [
            (min(xs), min(ys), max(xs), max(ys))
            for xs, ys in (zip(*outline, strict=True) for outline in outlines[key])
        ]
