"""Which format labels are in, and what is refused."""

import pytest
import suite_export
from annotated_data import NORTH, SOUTH, as_json, coco_json, open_data, voc_xml
from project import SHARED
from suite_export import box, labelled

from superbai import formats, splits
from superbai.export import Export
from yolov3_tf2.errors import InputError

BBOX = (0, 1, 12.5, 30, 100, 40.25)
COCO = {
    "annotations.json": as_json(coco_json([("north.jpg", 640, 480)], [BBOX])),
    "north.jpg": NORTH,
}
YOLO = {"classes.txt": b"valve\ngauge", "a/n.jpg": NORTH, "a/n.txt": b"1 .5 .5 .1 .1"}
VOC = {
    "b/n.jpg": NORTH,
    "b/n.xml": voc_xml("n.jpg", (640, 480), [("valve", (1, 2, 30, 40), False)]),
}


def refuse(folder, entries, *words, images=None, **options):
    """Checks that a data set is refused with one line."""
    with pytest.raises(InputError) as error:
        open_data(folder, entries, images, **options)
    for word in words:
        assert word in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("entries", "line"),
    [
        (COCO, "COCO, 1 label file, 1 image, 1 object, 2 classes"),
        (YOLO, "YOLO, 1 label file, 1 image, 1 object, 2 classes"),
        (VOC, "Pascal VOC, 1 label file, 1 image, 1 object, 1 class"),
    ],
)
def test_the_log_says_which_format_it_is(tmp_path, entries, line, caplog):
    with caplog.at_level("INFO", logger="absl"):
        open_data(tmp_path, entries).close()
    assert caplog.messages == [f"data.zip: {line}"]


def test_an_export_of_the_suite(tmp_path, caplog):
    images, labels = suite_export.build([labelled("a.jpg", box(1, 2, 3, 4))])
    with (
        caplog.at_level("INFO", logger="absl"),
        open_data(tmp_path, labels, images) as export,
    ):
        assert isinstance(export, Export)
    (message,) = caplog.messages
    expected = "export of the Superb AI Suite, 1 labelled image, 2 classes"
    assert message == f"data.zip: {expected}"


def test_options_for_labels_of_superb_ai_only(tmp_path, caplog):
    for entries in (COCO, YOLO, VOC):
        caplog.clear()
        options = {"include_unsubmitted": True, "find_images_by": "key"}
        open_data(tmp_path, entries, **options).close()
        assert [message.partition(",")[0] for message in caplog.messages[:2]] == [
            "include_unsubmitted has no effect",
            "find_images_by has no effect",
        ]


def test_labels_of_the_suite_and_others(tmp_path):
    images, labels = suite_export.build([labelled("a.jpg", box(1, 2, 3, 4))])
    labels = suite_export.write_zip(tmp_path / "labels.zip", labels)
    images = suite_export.write_zip(tmp_path / "images.zip", images)
    for kind, entries in (("COCO", COCO), ("YOLO", YOLO), ("Pascal VOC", VOC)):
        other = suite_export.write_zip(tmp_path / "other.zip", entries)
        words = f"expected labels in one format, got Superb AI .* and {kind} "
        with pytest.raises(InputError, match=words):
            formats.open_export([images], [labels, other])
    with pytest.raises(InputError, match="expected one zip, got 2"):
        formats.open_export([images], [labels, labels])


def test_coco_files_of_several_tasks_on_the_same_images(tmp_path, caplog):
    images = [("north.jpg", 640, 480)]
    entries = {
        "instances_val.json": as_json(coco_json(images, [BBOX, BBOX])),
        "person_keypoints_val.json": as_json(coco_json(images, [BBOX])),
        "instances_train.json": as_json(coco_json([("south.jpg", 640, 480)], [BBOX])),
        "north.jpg": NORTH,
        "south.jpg": SOUTH,
    }
    with caplog.at_level("INFO", logger="absl"):
        open_data(tmp_path, entries).close()
    assert caplog.messages == [
        "data.zip: COCO, 3 label files, 2 images, 3 objects, 2 classes"
    ]


def test_labels_in_two_formats_are_refused(tmp_path):
    for first, second, names in (
        (COCO, YOLO, ("COCO", "annotations.json", "YOLO", "a/n.txt")),
        (COCO, VOC, ("COCO", "annotations.json", "Pascal VOC", "b/n.xml")),
        (YOLO, VOC, ("YOLO", "a/n.txt", "Pascal VOC", "b/n.xml")),
    ):
        words = ("expected labels in one format", "remove the files of all but one")
        refuse(tmp_path, {**first, **second}, *words, *names)


def test_swapped_inputs_are_refused(tmp_path):
    for entries in (COCO, YOLO, VOC):
        images = {name: c for name, c in entries.items() if c == NORTH}
        labels = {name: c for name, c in entries.items() if c != NORTH}
        words = ("in none of these formats (1 .jpg)", "labels' swapped?")
        refuse(tmp_path, images, *words, images=labels)
        refuse(tmp_path, images, "these are images: give their labels too")


@pytest.mark.parametrize(
    "file",
    [
        {"schema_version": "1", "annotations_by_type": {"bbox": 3}, "assets": []},
        {
            "schema_version": 2,
            "classes": [{"id": "00000000-0000-4000-8000-0000000000c1", "name": "v"}],
        },
        {"format": "delta", "schema_version": 1, "assets": []},
    ],
)
def test_delta_is_refused_by_name(tmp_path, file):
    entries = {"export.json": as_json(file), "north.jpg": NORTH}
    refuse(tmp_path, entries, "own format 'delta'", "as COCO or YOLO instead")


@pytest.mark.parametrize(
    "entries",
    [
        {"a.json": as_json({"schema_version": 1, "shapes": []}), "a.jpg": NORTH},
        {"a.json": as_json({"shapes": [], "imagePath": "a.jpg"}), "a.jpg": NORTH},
        {"a.json": as_json({"images": [], "annotations": []})},
        {"a.json": b"[]", "a.txt": b"no label", "a.xml": b"<project/>", "a.jpg": NORTH},
        {"a.txt": b"a dog on a beach", "a.jpg": NORTH, "classes.txt": b"dog"},
        {},
    ],
)
def test_other_files_are_refused(tmp_path, entries):
    refuse(tmp_path, entries, "expected labels as an export of the Superb AI Suite")


def test_labels_of_the_suite_without_a_project(tmp_path):
    label = {"dataset": "ds", "data_key": "a.jpg", "result": {"objects": []}}
    entries = {"a.jpg": NORTH, "a.jpg.json": as_json(label)}
    refuse(tmp_path, entries, "has no project.json, and no label with an object")


def test_damaged_files(tmp_path):
    refuse(tmp_path, {"a.json": b'{"images": [', "a.jpg": NORTH}, "malformed JSON")
    # One of the splits.
    entries = {**COCO, "val.json": b'{"images": [', "train.json": b"{"}
    refuse(
        tmp_path, entries, "of its JSON files, 2 cannot be used", "val.json", "train"
    )
    # Of no concern to the other formats.
    for other in (YOLO, VOC):
        with open_data(tmp_path, {**other, "package.json": b"{"}) as data:
            assert len(data.items) == 1


def test_no_class_names(tmp_path):
    entries = {name: c for name, c in YOLO.items() if name != "classes.txt"}
    words = ("1 YOLO label files, but no class names", "classes.txt or obj.names")
    refuse(tmp_path, entries, *words)
    entries["obj.data"] = b"names = data/obj.names"
    refuse(tmp_path, entries, "(data/obj.names is missing)")
    entries["data.yaml"] = b"names: [a"
    refuse(tmp_path, entries, "malformed YAML")


def test_different_class_names(tmp_path):
    entries = {**YOLO, "a/classes.txt": b"gauge\nvalve"}
    refuse(tmp_path, entries, "classes.txt and", "have different class names")
    # A YAML counts more: labelImg leaves its own list behind.
    with open_data(tmp_path, {**entries, "d.yaml": b"names: [a, b]"}) as data:
        assert data.class_names == ["a", "b"]


def test_names_of_entries_are_safe(tmp_path):
    refuse(tmp_path, {**COCO, "../a.json": b"{}"}, "leaves the archive")


def test_a_large_label_file_is_not_read(tmp_path):
    entries = {**YOLO, "a/m.jpg": SOUTH, "a/m.txt": b"0 .5 .5 .1 .1\n" * 1_300_000}
    with open_data(tmp_path, entries) as data:
        ((name, reason),) = data.notes.unreadable
    assert name == "a/m.jpg"
    assert "18,200,000 bytes; expected at most 16,777,216" in reason


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (
            {"data.yaml": b"names: [valve, gauge]\nnc: 3"},
            "nc is 3, but the data set has 2",
        ),
        (
            {"stats.json": b'{"num_images": 5}'},
            "num_images is 5, but the data set has 1",
        ),
        (
            {"result.json": b'{"result_details": {"num_labels": 9, "num_classes": 2}}'},
            "num_labels is 9, but the data set has 1 annotations: is it whole?",
        ),
        ({"data.yaml": b"names: [valve, gauge]\nnc: 2"}, None),
        ({"s.json": b'{"num_images": 1, "num_labels": 1, "num_classes": 2}'}, None),
        ({"obj.data": b"classes = 4"}, "num_classes is 4"),
    ],
)
def test_counts_that_the_data_set_states(tmp_path, extra, words, caplog):
    open_data(tmp_path, {**YOLO, **extra}).close()
    warnings = [text for text in caplog.messages if "is it whole?" in text]
    assert len(warnings) == (words is not None)
    assert words is None or words in warnings[0]


def test_counts_within_a_coco_file(tmp_path, caplog):
    file = coco_json([("north.jpg", 640, 480)], [BBOX])
    file["info"] = {"num_images": 1, "num_annotations": 2, "num_categories": 2}
    open_data(tmp_path, {"a.json": as_json(file), "north.jpg": NORTH}).close()
    (message,) = (text for text in caplog.messages if "is it whole?" in text)
    assert "num_annotations is 2, but the data set has 1 annotations" in message


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("coco", "expected COCO labels of some images, got an empty list of 'images'"),
        # Read by content: one image with a label; those of images.zip have none.
        ("yolo", "a0.jpg is the only usable image"),
    ],
)
def test_cases(case, words):
    folder = SHARED / "cases" / f"{case}_export_of_the_new_platform"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    with (
        pytest.raises(InputError, match=words),
        formats.open_export([folder / "images.zip"], [folder / "labels.zip"]) as data,
    ):
        assert data.notes.left_out == {"images without a label": 4}
        splits.split_items(data.items, 0.2, data.name, source=data.split_source)
