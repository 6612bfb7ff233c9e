"""What of a data set's labels is taken for truth, and which images they belong to."""

import annotated_data
import numpy as np
import pytest
import suite_export
from annotated_data import (
    NORTH,
    SOUTH,
    as_json,
    coco_json,
    open_data,
    read_data,
    voc_xml,
)
from PIL import Image
from project import SHARED
from suite_export import ODD_EXIF, box, encoded_image, labelled, write_zip

from superbai import formats, splits
from yolov3_tf2.errors import InputError

BBOX = (0, 1, 12.5, 30, 100, 40.25)
XYXY = (12.5, 30, 112.5, 70.25)
LISTED = [("north.jpg", 640, 480), ("south.jpg", 320, 240)]
IMAGES = {"north.jpg": NORTH, "south.jpg": SOUTH}


def with_coco(*annotations, categories=None, images=LISTED, **changes):
    """A COCO data set whose annotations have more or less than usual."""
    file = coco_json(images, [BBOX] * len(annotations), **changes)
    for annotation, change in zip(file["annotations"], annotations, strict=True):
        annotation.update(change)
        for key in [key for key, value in change.items() if value is ...]:
            del annotation[key]
    file["categories"] = categories or file["categories"]
    return {"a.json": as_json(file), **IMAGES}


def left_out(data):
    return dict(data.notes.left_out)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"source": "model"}, "boxes of a model (source 'model' or with a score)"),
        ({"score": 0.5}, "boxes of a model (source 'model' or with a score)"),
        ({"iscrowd": 1}, "crowd regions"),
        (
            {"bbox": [], "segmentation": [[1, 2, 3, 4, 5, 6]]},
            "segmentations without a bbox",
        ),
        ({"image_id": 99}, "annotations of images that are not listed"),
    ],
)
def test_what_is_not_truth_in_coco(tmp_path, change, reason):
    records, data = read_data(tmp_path, with_coco({}, change, {"source": "manual"}))
    assert records["north.jpg"].boxes_px == [XYXY, XYXY]
    assert left_out(data) == {reason: 1}


def test_boxes_around_polygons(tmp_path):
    outline = [[10, 20, 30, 25, 20, 60], [40, 30, 41, 30, 41, 33]]
    mask = {"size": [480, 640], "counts": "abc"}
    entries = with_coco(
        {"bbox": ..., "segmentation": outline}, {"bbox": ..., "segmentation": mask}
    )
    records, data = read_data(tmp_path, entries, polygons_as_boxes=True)
    assert records["north.jpg"].boxes_px == [(10, 20, 41, 60)]
    assert left_out(data) == {"segmentations without a bbox": 1}
    assert data.notes.changed == {"boxes drawn around polygons and rotated boxes": 1}
    yolo = {"classes.txt": b"a\nb", "n.jpg": NORTH, "n.txt": b"1 .1 .1 .3 .1 .2 .5"}
    records, data = read_data(tmp_path, yolo, polygons_as_boxes=True)
    assert records["n.jpg"].boxes_px == [pytest.approx((64, 48, 192, 240))]
    assert data.notes.changed == {"boxes drawn around polygons and rotated boxes": 1}
    with pytest.raises(InputError, match="got 1 polygons; --polygons=box draws boxes"):
        read_data(tmp_path, yolo)
    yolo |= {"s.jpg": SOUTH, "s.txt": b"1 .5 .5 .1 .1"}
    records, data = read_data(tmp_path, yolo)
    assert records["n.jpg"].boxes_px == [] and left_out(data) == {"polygons": 1}


def test_images_that_only_a_model_has_labelled(tmp_path):
    """They are not images without objects."""
    boxes = [BBOX, BBOX, (1, 0, 1, 2, 3, 4)]
    file = coco_json(LISTED, boxes)
    file["annotations"][0]["source"] = file["annotations"][1]["source"] = "model"
    coco = {"a.json": as_json(file), **IMAGES}
    yolo = {"classes.txt": b"a", **IMAGES, "north.txt": b"0 .5 .5 .1 .1 .9"}
    yolo["south.txt"] = b"0 .5 .5 .1 .1"
    for entries, number in ((coco, 2), (yolo, 1)):
        records, data = read_data(tmp_path, entries)
        assert list(records) == ["south.jpg"]
        assert left_out(data) == {
            "boxes of a model (source 'model' or with a score)": number,
            "images that only a model has labelled": 1,
        }
        assert data.notes.examples["images that only a model has labelled"] == [
            "north.jpg"
        ]


def test_classes_are_in_the_order_of_their_ids(tmp_path):
    categories = [{"id": 90, "name": "gauge"}, {"id": 2, "name": " valve "}]
    entries = with_coco({"category_id": 90}, categories=categories)
    records, data = read_data(tmp_path, entries)
    assert data.class_names == ["valve", "gauge"]
    assert records["north.jpg"].labels == [1]


def test_the_unused_parent_of_roboflow(tmp_path):
    categories = [
        {"id": 0, "name": "things", "supercategory": "none"},
        {"id": 1, "name": "valve", "supercategory": "things"},
        {"id": 2, "name": "gauge", "supercategory": "things"},
    ]
    records, data = read_data(
        tmp_path, with_coco({"category_id": 2}, categories=categories)
    )
    assert data.class_names == ["valve", "gauge"]
    assert left_out(data) == {"unused categories above the classes": 1}
    assert data.notes.examples["unused categories above the classes"] == ["things"]
    # It is used, so it is a class.
    _, data = read_data(tmp_path, with_coco({"category_id": 0}, categories=categories))
    assert data.class_names == ["things", "valve", "gauge"]


def test_ids_that_contradict_each_other_in_two_files(tmp_path):
    first = coco_json([LISTED[0]], [BBOX], ids=[1, 2])
    second = coco_json([LISTED[1]], [(0, 0, 8, 8, 16, 16)], ["gauge", "pump"], [1, 2])
    entries = {"a.json": as_json(first), "b.json": as_json(second), **IMAGES}
    records, data = read_data(tmp_path, entries)
    assert data.class_names == ["valve", "gauge", "pump"]
    assert [records[name].labels for name in IMAGES] == [[1], [1]]
    assert sum(data.notes.assumed.values()) == 1


def test_image_entries_listed_twice(tmp_path):
    file = coco_json(
        [LISTED[0], LISTED[0]], [BBOX, (1, 1, *BBOX[2:]), (1, 0, 1, 2, 3, 4)]
    )
    file["images"].append(file["images"][0])
    records, data = read_data(tmp_path, {"a.json": as_json(file), **IMAGES})
    assert records["north.jpg"].boxes_px == [XYXY, (1, 2, 4, 6)]
    assert left_out(data) == {
        "image entries listed twice": 1,
        "images without a label": 1,
    }
    assert data.notes.changed == {
        "boxes that several label files have for an image: used once": 1
    }
    file["images"][-1] = {**file["images"][0], "file_name": "south.jpg"}
    with pytest.raises(InputError, match="expected a unique id, got 7"):
        read_data(tmp_path, {"a.json": as_json(file), **IMAGES})


def test_annotations_that_cannot_be_used_are_images_that_cannot(tmp_path):
    entries = with_coco({}, {"bbox": [1, 2, None, 4]})
    with open_data(tmp_path, entries) as data:
        ((name, reason),) = data.notes.unreadable
        assert [item.source_id for item in data.items] == ["south.jpg"]
        assert data.num_labelled == 2
    assert name == "north.jpg" and "annotation 2: bbox: expected left, top" in reason


def test_the_labelled_size_decides_on_the_orientation(tmp_path):
    """The image is 64x48 as stored, and 48x64 upright."""
    encoded = suite_export.encode(Image.new("RGB", (64, 48)), "JPEG", exif=ODD_EXIF)
    box = (0, 1, 2, 4, 8, 16)
    for size, guesses in (((64, 48), 0), ((48, 64), 0), ((0, 0), 1)):
        file = coco_json([("a.jpg", *size)], [box])
        records, data = read_data(tmp_path, {"a.json": as_json(file), "a.jpg": encoded})
        record = records["a.jpg"]
        assert (record.width, record.height) == (size if any(size) else (48, 64))
        assert record.boxes_px == [(2, 4, 10, 20)]
        assert sum(data.notes.assumed.values()) == guesses
    # Fractions are those of the upright image.
    entries = {"classes.txt": b"a", "a.jpg": encoded, "a.txt": b"0 .5 .25 .5 .25"}
    records, data = read_data(tmp_path, entries)
    assert records["a.jpg"].boxes_px == [(12, 8, 36, 24)]
    (reason,) = data.notes.assumed
    assert "drawn on the upright image" in reason


def test_boxes_of_yolo_are_clipped(tmp_path):
    # The first is at the edge but for the rounding of the program that wrote it.
    lines = b"0 .0499998 .5 .1000004 .5\n0 .0 .5 .2 .5\n0 1.2 .5 .1 .1\n"
    entries = {"classes.txt": b"a", "n.jpg": NORTH, "n.txt": lines}
    records, data = read_data(tmp_path, entries)
    assert np.allclose(
        records["n.jpg"].boxes_px, [(0, 120, 64, 360), (0, 120, 64, 360)], atol=0.01
    )
    assert data.notes.changed == {"boxes clipped to their image": 1}
    assert left_out(data) == {"boxes under one pixel or outside their image": 1}
    assert data.notes.far_outside == 2


def test_label_files_that_cannot_be_used(tmp_path):
    entries = {"classes.txt": b"a"}
    for n, line in enumerate((b"0 .5 .5 .1 .1", b"9 .5 .5 .1 .1", b"0 5 5 9 9", b"x")):
        entries[f"{n}.jpg"] = suite_export.encoded_image((n, 0, 0))
        entries[f"{n}.txt"] = line
    with open_data(tmp_path, entries) as data:
        assert [item.source_id for item in data.items] == ["0.jpg"]
        reasons = dict(data.notes.unreadable)
    assert list(reasons) == ["1.jpg", "2.jpg", "3.jpg"]
    assert (
        "1.txt: line 1: expected the index of a class, 0 to 0, got 9"
        in reasons["1.jpg"]
    )
    assert "are these pixels?" in reasons["2.jpg"]
    entries["3.xml"] = b"<annotation><object>"
    del entries["classes.txt"]
    voc = {name: c for name, c in entries.items() if not name.endswith(".txt")}
    voc |= {f"{n}.xml": voc_xml(f"{n}.jpg", (64, 48), []) for n in range(3)}
    voc["2.xml"] = b""
    with open_data(tmp_path, voc) as data:
        assert [name for name, _ in data.notes.unreadable] == ["2.jpg", "3.jpg"]


def test_difficult_objects_of_voc(tmp_path):
    box = (1, 2, 30, 40)
    objects = [("b", box, False), ("a", box, True), ("c", (2, 3, 10, 11), False)]
    entries = {"n.xml": voc_xml("n.jpg", (640, 480), objects), "n.jpg": NORTH}
    records, data = read_data(tmp_path, entries)
    assert data.class_names == ["b", "c"]
    assert left_out(data) == {"objects marked difficult": 1}
    # Whole numbers from 1: the first pixel is 1, and the last is in the box.
    assert records["n.jpg"].boxes_px == [(0, 1, 30, 40), (1, 2, 10, 11)]
    assert sum(data.notes.assumed.values()) == 1


@pytest.mark.parametrize("edge", [0, 2.5])
def test_voc_files_of_programs_that_write_edges(tmp_path, edge):
    objects = [("b", (1, 2, 30, 40), False), ("b", (edge, 3, 10, 11), False)]
    entries = {"n.xml": voc_xml("n.jpg", (640, 480), objects), "n.jpg": NORTH}
    records, data = read_data(tmp_path, entries)
    assert records["n.jpg"].boxes_px == [(1, 2, 30, 40), (edge, 3, 10, 11)]
    assert not data.notes.assumed


def test_a_class_that_the_list_of_names_lacks(tmp_path):
    xml = voc_xml("n.jpg", (640, 480), [("b", (1, 2, 30, 40), False)])
    entries = {"n.xml": xml, "n.jpg": NORTH, "classes.txt": b"a"}
    with pytest.raises(InputError, match="expected the names of all classes.* for b"):
        read_data(tmp_path, entries)


# Which image is it?


def two_cameras(*missing):
    """A folder with a COCO file for each of two cameras, with equal names."""
    entries = {}
    for number, camera in enumerate(("cam1", "cam2")):
        file = coco_json([("1.jpg", 64, 48)], [(0, number, 8, 8, 16, 16)])
        entries[f"{camera}/labels.json"] = as_json(file)
        entries[f"{camera}/1.jpg"] = suite_export.encoded_image((number, 0, 0))
    return {name: c for name, c in entries.items() if name not in missing}


def test_equal_names_in_two_folders(tmp_path):
    entries = two_cameras()
    records, _ = read_data(tmp_path, entries)
    assert {n: (r.encoded, r.labels) for n, r in records.items()} == {
        "cam1/1.jpg": (entries["cam1/1.jpg"], [0]),
        "cam2/1.jpg": (entries["cam2/1.jpg"], [1]),
    }
    with pytest.raises(InputError, match="1 of 2 labelled images are not in .*cam1"):
        read_data(tmp_path, two_cameras("cam1/1.jpg"))
    records, data = read_data(tmp_path, two_cameras("cam1/1.jpg"), skip_missing=True)
    assert [record.labels for record in records.values()] == [[1]]
    assert left_out(data) == {"labelled images that are missing": 1}


def test_names_with_folders(tmp_path):
    names = [("cam1/1.jpg", 64, 48), ("cam2/1.jpg", 64, 48)]
    file = as_json(coco_json(names, [(0, 0, 8, 8, 16, 16), (1, 1, 8, 8, 16, 16)]))
    images = {f"x/cam{n}/1.jpg": suite_export.encoded_image((n, 0, 0)) for n in (1, 2)}
    records, _ = read_data(tmp_path, {"a/b.json": file}, images)
    assert [records[f"cam{n}/1.jpg"].labels for n in (1, 2)] == [[0], [1]]
    del images["x/cam1/1.jpg"]
    with pytest.raises(InputError, match=r"1 of 2 .*cam1/1\.jpg"):
        read_data(tmp_path, {"a/b.json": file}, images)
    only = as_json(coco_json(names[:1], [(0, 0, 8, 8, 16, 16)]))
    records, data = read_data(tmp_path, {"a/b.json": only}, images)
    reason = "images found by name, in another folder or archive than their labels"
    assert data.notes.assumed[reason] == 1


def test_different_images_that_fit_are_refused(tmp_path):
    file = as_json(coco_json([("1.jpg", 64, 48)], [(0, 0, 8, 8, 16, 16)]))
    images = {f"{n}/1.jpg": suite_export.encoded_image((n, 0, 0)) for n in (1, 2)}
    with pytest.raises(InputError) as error:
        read_data(tmp_path, {"a.json": file}, images)
    assert "images.zip: 1/1.jpg, " in str(error.value)
    assert "images.zip: 2/1.jpg; remove those" in str(error.value)
    images["2/1.jpg"] = images["1/1.jpg"]
    records, _ = read_data(tmp_path, {"a.json": file}, images)
    assert [record.labels for record in records.values()] == [[0]]


def test_one_image_for_two_labels_is_refused(tmp_path):
    yolo = {"classes.txt": b"a", "images/1.jpg": NORTH}
    yolo |= {"labels/1.txt": b"0 .5 .5 .1 .1", "images/1.txt": b"0 .4 .4 .1 .1"}
    with pytest.raises(InputError, match="fits both .*1.txt .* and .*1.txt"):
        read_data(tmp_path, yolo)
    apart = {"classes.txt": b"a", "a/1.txt": b"0 .5 .5 .1 .1", "b/1.txt": b""}
    apart["b/1.txt"] = b"0 .4 .4 .1 .1"
    with pytest.raises(InputError, match="fits both"):
        read_data(tmp_path, apart, {"1.jpg": NORTH})


def test_the_name_of_an_xml_and_that_in_it(tmp_path):
    xml = voc_xml("south.jpg", (640, 480), [("a", (1, 2, 30, 40), False)])
    entries = {"north.xml": xml, "north.jpg": NORTH}
    assert list(read_data(tmp_path, entries)[0]) == ["north.jpg"]
    # Either could be meant.
    with open_data(
        tmp_path,
        {
            **entries,
            "south.jpg": SOUTH,
            "b.jpg": SOUTH,
            "b.xml": voc_xml("b.jpg", (320, 240), []),
        },
    ) as data:
        ((name, reason),) = data.notes.unreadable
    assert name == "north.jpg"
    assert "filename 'south.jpg', but south.jpg and north.jpg both exist" in reason


@pytest.mark.parametrize("kind", ["coco", "yolo", "voc"])
def test_coco_mini_in_three_formats(tmp_path, kind):
    """All give the records of the Suite's export, split by split."""
    source = SHARED / "data" / "coco-mini"
    if not source.is_dir():
        pytest.skip(f"{source} is not there")
    check_equal(tmp_path, [source / "images.zip"], [source / "labels-0.6.5.zip"], kind)


@pytest.mark.parametrize("kind", ["coco", "yolo", "voc"])
def test_a_made_export_in_three_formats(tmp_path, kind):
    items = [
        labelled(
            f"{number}.jpg",
            box(3 + number, 4.25, 20.5, 8, ("car", "person")[number % 2]),
            *[box(1, 2, 5, 6)] * (number % 3),
            encoded=suite_export.encoded_image((number, 0, 0)),
            tags=[tag],
        )
        for number, tag in enumerate(("train", "test", "val", "train", "train"))
    ]
    images, labels = suite_export.build(items)
    write_zip(tmp_path / "images.zip", images)
    write_zip(tmp_path / "labels.zip", labels)
    check_equal(tmp_path, [tmp_path / "images.zip"], [tmp_path / "labels.zip"], kind)


def check_equal(folder, images, labels, kind):
    """Checks that an export of the Suite and its records in another format are equal.

    An image is `<dataset>/<key>` there, and its path here.
    """
    with formats.open_export(images, labels) as export:
        expected, class_names = split_records(export), export.class_names
    records = [record for each in expected.values() for record in each]
    tags = [split for split, each in expected.items() for _ in each]
    entries = getattr(annotated_data, f"as_{kind}")(records, tags, class_names)
    with open_data(folder, entries) as data:
        assert data.class_names == class_names
        found = split_records(data)
        assert not data.notes.left_out and not data.notes.changed
    assert {s: len(each) for s, each in found.items()} == {
        s: len(each) for s, each in expected.items()
    }
    for split, each in expected.items():
        for record, other in zip(each, found[split], strict=True):
            assert annotated_data.base(record) == annotated_data.base(other)
            # Fractions are not exact.
            assert np.allclose(record.boxes_px, other.boxes_px, rtol=0, atol=1e-9)
            same = {"source_id": "", "boxes_px": record.boxes_px}
            assert record._replace(**same) == other._replace(**same)


def split_records(export):
    by_split, _ = splits.split_items(
        export.items, 0.2, export.name, source=export.split_source
    )
    return {split: list(map(export.read, items)) for split, items in by_split.items()}


def labels_of(kind, names):
    """The labels of one image in COCO, YOLO or VOC form, and its name."""
    if kind == "COCO":
        listed = [(f"{name}.jpg", 640, 480) for name in names]
        boxes = [(n, 0, 1, 2, 30, 40) for n in range(len(names))]
        return {"labels.json": as_json(coco_json(listed, boxes))}
    if kind == "YOLO":
        return {f"{name}.txt": b"0 .5 .5 .1 .1" for name in names}
    objects = [("valve", (1, 2, 30, 40), False)]
    return {f"{n}.xml": voc_xml(f"{n}.jpg", (640, 480), objects) for n in names}


@pytest.mark.parametrize("kind", ["COCO", "YOLO", "VOC"])
def test_archives_of_two_cameras_with_equal_names(tmp_path, kind):
    """Of one camera, images are forgotten: they are not those of the other one."""
    images = {"1.jpg": NORTH, "2.jpg": SOUTH}
    names = {"classes.txt": b"valve\ngauge\n"} if kind == "YOLO" else {}
    first = labels_of(kind, ("1",)) | names
    second = labels_of(kind, ("1", "2")) | names
    for apart in (False, True):
        parts = [first | images, second] if not apart else [first, second]
        labels = [
            write_zip(tmp_path / f"cam{n}.zip", part) for n, part in enumerate(parts)
        ]
        given = []
        if apart:
            (tmp_path / "images").mkdir()
            given = [write_zip(tmp_path / "images" / "cam0.zip", images)]
        with pytest.raises(InputError, match="2 of 3 labelled images are not in"):
            formats.open_export(given, labels)
    # With the images of both, each label has its own.
    other = encoded_image((7, 7, 7), size=(640, 480))
    content = {"1.jpg": other, "2.jpg": NORTH}
    given.append(write_zip(tmp_path / "images" / "cam1.zip", content))
    with formats.open_export(given, labels) as data:
        found = {i.source_id: data.read(i) for i in data.items}
    with_boxes = {name for name, each in found.items() if each.boxes_px}
    assert with_boxes == {"cam0/1.jpg", "cam1/1.jpg", "cam1/2.jpg"}
    assert found["cam1/1.jpg"].encoded == other


@pytest.mark.parametrize(
    ("label", "there"),
    [
        ("train/Annotations/2.xml", "valid/JPEGImages/2.jpg"),
        ("cam1/Annotations/2.xml", "cam2/JPEGImages/2.jpg"),
        ("labels/train/day/2.txt", "images/val/day/2.jpg"),
        ("cam1/labels.json", "cam2/images/2.jpg"),
    ],
)
def test_images_of_another_split_or_camera_with_the_same_folders(
    tmp_path, label, there
):
    kind = {"xml": "VOC", "txt": "YOLO", "json": "COCO"}[label.rpartition(".")[2]]

    def labels_at(path, name):
        ((_, content),) = labels_of(kind, (name,)).items()
        return {path: content}

    # Another label of the same camera and one of the other have their images.
    entries = labels_at(label, "2") | {there: NORTH}
    other = label
    for a, b in (("train", "val"), ("cam1", "cam2")):
        other = other.replace(a, b)
    if there.startswith("valid"):
        other = other.replace("val/", "valid/")
    other = other.replace("2.", "3.") if kind != "COCO" else other
    entries |= labels_at(other, "3") | {there.replace("2.jpg", "3.jpg"): SOUTH}
    if kind == "YOLO":
        entries["classes.txt"] = b"valve\ngauge\n"
    with pytest.raises(InputError, match="1 of 2 labelled images are not in"):
        open_data(tmp_path, entries)
