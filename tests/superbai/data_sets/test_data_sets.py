"""Data sets of other tools: each layout is recognised and gives the same boxes."""

import io
import tarfile

import pytest
import suite_export
from annotated_data import (
    NORTH,
    SOUTH,
    as_json,
    coco_json,
    read_data,
    voc_xml,
)

from superbai import formats

# The box of all layouts: of class 1, a gauge, on north.jpg of 640x480.
XYXY = (12.5, 30, 112.5, 70.25)
BBOX = (0, 1, 12.5, 30, 100, 40.25)
NAMES = ["valve", "gauge"]
YAML = b"names: [valve, gauge]\n"
LINE = b"1 0.09765625 0.10442708 0.15625 0.08385417\n"
XML = voc_xml("north.jpg", (640, 480), [("gauge", XYXY, False)])
EMPTY_XML = voc_xml("south.jpg", (320, 240), [("valve", (0, 0, 64.5, 48), False)])
LISTED = [("north.jpg", 640, 480), ("south.jpg", 320, 240)]


def coco(*boxes, images=LISTED, **changes):
    return as_json(coco_json(images, boxes or [BBOX], **changes))


def in_folder(folder, images=LISTED):
    return [(f"{folder}/{name}", *size) for name, *size in images]


ROBOFLOW_YAML = b"""train: ../train/images
val: ../valid/images
test: ../test/images
nc: 2
names: ['valve', 'gauge']
"""
OBJ_DATA = b"classes = 2\ntrain = data/train.txt\nnames = data/obj.names\nbackup = x\n"

# Each has north.jpg with the box, and south.jpg without one.
LAYOUTS = {
    "coco-a": {
        "annotations.json": coco(images=in_folder("images")),
        "images/north.jpg": NORTH,
        "images/south.jpg": SOUTH,
    },
    "coco-b": {
        "export/labels/instances.json": coco(),
        "export/north.jpg": NORTH,
        "export/south.jpg": SOUTH,
    },
    "coco, Label Studio": {
        "result.json": coco(images=in_folder("../../media/upload/1")),
        "images/north.jpg": NORTH,
        "images/south.jpg": SOUTH,
    },
    "coco, Roboflow, one split": {
        "train/_annotations.coco.json": coco(),
        "train/north.jpg": NORTH,
        "train/south.jpg": SOUTH,
        "README.roboflow.txt": b"Exported on 1 2 3 4 5",
    },
    "coco, a list and Windows paths": {
        "a.json": coco(images=in_folder(r"C:\data\images".replace("/", "\\"))),
        "data/images/north.jpg": NORTH,
        "data/images/south.jpg": SOUTH,
    },
    "coco, two files of the same images": {
        "annotations/instances_train2017.json": coco(),
        "annotations/person_keypoints_train2017.json": coco(),
        "annotations/captions_train2017.json": as_json(
            {"images": [], "annotations": []}
        ),
        "train2017/north.jpg": NORTH,
        "train2017/south.jpg": SOUTH,
    },
    "yolo-a": {
        "data.yaml": YAML,
        "images/north.jpg": NORTH,
        "labels/north.txt": LINE,
        "images/south.jpg": SOUTH,
    },
    "yolo-b": {
        "classes.txt": b"valve\r\ngauge\r\n",
        "north.jpg": NORTH,
        "north.txt": LINE,
        "south.jpg": SOUTH,
    },
    "yolo, Roboflow": {
        "data.yaml": ROBOFLOW_YAML,
        "train/images/north.jpg": NORTH,
        "train/labels/north.txt": LINE,
        "train/images/south.jpg": SOUTH,
        "train/labels/south.txt": b"",
        "README.dataset.txt": b"0 of 1 2 3 4",
    },
    "yolo, Roboflow darknet": {
        "train/_darknet.labels": b"valve\ngauge",
        "train/north.jpg": NORTH,
        "train/north.txt": LINE,
        "train/south.jpg": SOUTH,
        "train/south.txt": b"",
    },
    "yolo, CVAT 1.1": {
        "obj.data": OBJ_DATA,
        "obj.names": b"valve\ngauge\n",
        "train.txt": b"data/obj_train_data/north.jpg\ndata/obj_train_data/south.jpg\n",
        "obj_train_data/north.jpg": NORTH,
        "obj_train_data/north.txt": LINE,
        "obj_train_data/south.jpg": SOUTH,
        "obj_train_data/south.txt": b"",
    },
    "yolo, Label Studio": {
        "classes.txt": b"valve\ngauge\n",
        "notes.json": as_json({"categories": [{"id": 0, "name": "valve"}]}),
        "images/north.jpg": NORTH,
        "labels/north.txt": LINE,
        "images/south.jpg": SOUTH,
        "labels/south.txt": b"",
    },
    "voc": {
        "Annotations/north.xml": XML,
        "Annotations/south.xml": EMPTY_XML,
        "JPEGImages/north.jpg": NORTH,
        "JPEGImages/south.jpg": SOUTH,
        "pom.xml": b"<project/>",
        "classes.txt": b"valve\ngauge\n",
    },
    "voc, side by side": {
        "labelmap.txt": b"# label:color_rgb:parts:actions\nbackground:0,0,0::\n"
        b"valve:1,2,3::\ngauge:4,5,6::\n",
        "all/north.jpg": NORTH,
        "all/north.xml": XML,
        "all/south.jpg": SOUTH,
        "all/south.xml": EMPTY_XML,
    },
    "voc, renamed images": {
        "classes.names": b"valve\ngauge\n",
        "north.jpg": NORTH,
        "north.xml": XML.replace(b"north.jpg", b"IMG_0001.png"),
        "south.jpg": SOUTH,
        "south.xml": EMPTY_XML.replace(b"south.jpg", b""),
    },
}


def check(records, data):
    """Checks the records of a layout, whatever the folder of the images is."""
    by_base = {name.rpartition("/")[2]: record for name, record in records.items()}
    assert sorted(by_base) == ["north.jpg", "south.jpg"]
    north, south = by_base["north.jpg"], by_base["south.jpg"]
    assert data.class_names == NAMES
    assert (north.encoded, north.width, north.height) == (NORTH, 640, 480)
    assert north.labels == [1]
    assert north.boxes_px[0] == pytest.approx(XYXY, abs=1e-2)
    assert south.encoded == SOUTH
    assert south.boxes_px in ([], [(0, 0, 64.5, 48)])
    assert not data.notes.unreadable


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts(tmp_path, name):
    check(*read_data(tmp_path, LAYOUTS[name]))


@pytest.mark.parametrize("name", LAYOUTS)
def test_images_apart(tmp_path, name):
    entries = LAYOUTS[name]
    images = {n: c for n, c in entries.items() if c in (NORTH, SOUTH)}
    labels = {n: c for n, c in entries.items() if n not in images}
    # In a folder of its own, as programs zip them, or with no folder.
    check(*read_data(tmp_path, labels, {f"pictures/{n}": images[n] for n in images}))
    flat = {n.rpartition("/")[2]: content for n, content in images.items()}
    check(*read_data(tmp_path, labels, flat))


@pytest.mark.parametrize("yaml", [YAML, YAML + b"train: images\n"])
def test_an_image_that_is_given_twice_is_used_once(tmp_path, yaml):
    """Its copy in the other archive is not an image without objects."""
    images = {"images/north.jpg": NORTH, "images/south.jpg": SOUTH}
    labels = {"data.yaml": yaml, "labels/north.txt": LINE, "images/north.jpg": NORTH}
    records, data = read_data(tmp_path, labels, images)
    check(records, data)
    assert data.notes.left_out == {"images without a label": 1}


@pytest.mark.parametrize("name", LAYOUTS)
def test_folders_tars_and_loose_files(tmp_path, name):
    paths = []
    for entry, content in LAYOUTS[name].items():
        path = tmp_path / "data" / entry
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        paths.append(path)
    with tarfile.open(tmp_path / "data.tar.gz", "w:gz") as tar:
        for entry, content in LAYOUTS[name].items():
            member = tarfile.TarInfo(f"./made/{entry}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    for given in ([tmp_path / "data"], [tmp_path / "data.tar.gz"], paths):
        with formats.open_export([], given) as data:
            check({item.source_id: data.read(item) for item in data.items}, data)


@pytest.mark.parametrize(
    ("encoding", "name"), [("cp949", "사진"), ("cp932", "写真表"), ("cp1252", "Straße")]
)
def test_names_of_windows(tmp_path, encoding, name):
    image = suite_export.encoded_image(size=(640, 480))
    boxes = [(0, 0, 1, 2, 30, 40)]
    listed = [(f"{name}.jpg", 640, 480)]
    objects = [("valve", (1, 2, 30, 40), False)]
    for labels in (
        {"labels.json": as_json(coco_json(listed, boxes))},
        {f"{name}.txt": b"0 .5 .5 .1 .1", "classes.txt": b"valve"},
        {f"{name}.xml": voc_xml(f"{name}.jpg", (640, 480), objects)},
    ):
        labels = suite_export.write_zip(tmp_path / "labels.zip", labels)
        raw = {f"{name}.jpg".encode(encoding): image}
        images = suite_export.write_raw_zip(tmp_path / "images.zip", raw)
        with formats.open_export([images], [labels]) as data:
            assert [item.source_id for item in data.items] == [f"{name}.jpg"]
