"""Which image a label gets where folders, splits and archives have equal names."""

import time

import pytest
import suite_export
from annotated_data import as_json, coco_json, open_data, read_data, voc_xml, yolo_lines
from suite_export import write_zip

from superbai import formats
from superbai.data_sets.data_set import BY_NAME
from yolov3_tf2.errors import InputError

SIZE = (64, 48)
BOX = (1.0, 2.0, 30.0, 40.0)
LINE = yolo_lines([(0, BOX)], SIZE)
MISSING = "labelled images are not in"


def image(number):
    return suite_export.encoded_image((number % 256, number // 256, 0), "PNG")


def coco(*names):
    boxes = [(n, 0, 8, 8, 16, 16) for n in range(len(names))]
    return as_json(coco_json([(name, *SIZE) for name in names], boxes, ["cat"]))


def xml(name):
    return voc_xml(name, SIZE, [("cat", BOX, False)])


LABELS = {
    "coco": lambda *n: {"_annotations.coco.json": coco(*(f"{each}.png" for each in n))},
    "yolo": lambda *n: {f"labels/{each}.txt": LINE for each in n},
    "voc": lambda *n: {f"Annotations/{each}.xml": xml(f"{each}.png") for each in n},
}
FOLDERS = {"coco": "", "yolo": "images/", "voc": "JPEGImages/"}


def zips(folder, **archives):
    return [write_zip(folder / f"{name}.zip", each) for name, each in archives.items()]


@pytest.mark.parametrize("kind", LABELS)
@pytest.mark.parametrize("numbers", [(1, 2), (3,)])
def test_archives_of_two_cameras(tmp_path, kind, numbers):
    """The images of the second were forgotten; the first may have unlabelled ones."""
    images = {f"{FOLDERS[kind]}{n}.png": image(n) for n in (1, 2, 3)}
    others = {"classes.txt": b"cat"} if kind == "yolo" else {}
    first, second = LABELS[kind](1, 2) | others, LABELS[kind](*numbers) | others
    given = zips(tmp_path, cam1=first | images, cam2=second)
    words = f"{len(numbers)} of {2 + len(numbers)} {MISSING}"
    with pytest.raises(InputError, match=words):
        formats.open_export([], given)
    # The images apart.
    given = zips(tmp_path, cam1=first, cam2=second)
    apart = tmp_path / "images"
    apart.mkdir()
    only = zips(apart, cam1=images)
    with pytest.raises(InputError, match=words):
        formats.open_export(only, given)
    both = only + zips(apart, cam2={n: image(9 + i) for i, n in enumerate(images)})
    with formats.open_export(both, given) as data:
        found = {item.source_id: data.read(item) for item in data.items}
    labelled = [r.encoded for r in found.values() if r.boxes_px]
    assert labelled == [image(1), image(2), *(image(8 + n) for n in numbers)]


def test_the_parts_of_one_folder(tmp_path):
    """Cloud drives zip a large folder in parts, each with some of all files."""
    first = {f"set/Annotations/{n}.xml": xml(f"{n}.png") for n in (1, 2)}
    first |= {f"set/JPEGImages/{n}.png": image(n) for n in (2, 3)}
    second = {f"set/Annotations/{n}.xml": xml(f"{n}.png") for n in (3, 4)}
    second |= {f"set/JPEGImages/{n}.png": image(n) for n in (1, 4)}
    given = zips(tmp_path, **{"set-T1-001": first, "set-T1-002": second})
    with formats.open_export([], given) as data:
        assert len(data.items) == 4 and not data.notes.left_out
        assert data.notes.assumed[BY_NAME] == 2
    # With a file in both they are two sets.
    second["set/Annotations/1.xml"] = xml("1.png")
    given = zips(tmp_path, **{"set-T1-001": first, "set-T1-002": second})
    with pytest.raises(InputError, match=f"2 of 5 {MISSING}"):
        formats.open_export([], given)


@pytest.mark.parametrize("kind", LABELS)
def test_old_and_corrected_labels(tmp_path, kind):
    others = {"classes.txt": b"cat"} if kind == "yolo" else {}
    labels = LABELS[kind](1, 2) | others
    images = {f"{FOLDERS[kind]}{n}.png": image(n) for n in (1, 2)}
    given = zips(tmp_path, data=labels | images, labels_fixed=labels)
    with pytest.raises(InputError, match=f"2 of 4 {MISSING}"):
        formats.open_export([], given)
    given = zips(tmp_path, data=labels, labels_fixed=labels)
    with pytest.raises(InputError, match="fits both"):
        formats.open_export(zips(tmp_path, images=images), given)


OTHERS = {
    "voc, split": (
        {"train/Annotations/1.xml": xml("1.png"), "train/Annotations/2.xml": xml("2")}
        | {"valid/Annotations/3.xml": xml("3.png")},
        ("train/JPEGImages/1", "valid/JPEGImages/3", "valid/JPEGImages/2"),
    ),
    "voc, split without labels": (
        {"train/Annotations/2.xml": xml("2.png"), "pics/Annotations/3.xml": xml("3")},
        ("pics/JPEGImages/3", "valid/JPEGImages/2"),
    ),
    "yolo, split": (
        {f"labels/train/day/{n}.txt": LINE for n in (1, 2)}
        | {"labels/val/day/3.txt": LINE, "classes.txt": b"cat"},
        ("images/train/day/1", "images/val/day/2", "images/val/day/3"),
    ),
    "coco, cameras": (
        {"cam1/annotations/a.json": coco("1.png", "2.png")}
        | {"cam2/annotations/a.json": coco("3.png")},
        ("cam1/images/1", "cam2/images/2", "cam2/images/3"),
    ),
    "coco, names": (
        {"a.json": coco("cam1/day/1.png", "cam1/day/2.png", "cam2/day/3.png")},
        ("cam1/day/1", "cam2/day/2", "cam2/day/3"),
    ),
    "coco, a camera without labels": (
        {"cam1/a.json": coco("1.png", "2.png")},
        ("cam1/1", "cam2/2"),
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_an_image_of_another_split_or_camera(tmp_path, name):
    labels, names = OTHERS[name]
    images = {f"{each}.png": image(n) for n, each in enumerate(names)}
    with pytest.raises(InputError, match=f"1 of . {MISSING}"):
        read_data(tmp_path, labels | images)
    with pytest.raises(InputError, match=f"1 of . {MISSING}"):
        read_data(tmp_path, labels, images)


def test_the_folders_of_annotations_are_those_of_images(tmp_path):
    entries = {}
    for number in (1, 2):
        place = f"annotations/cam{number}/_annotations.coco.json"
        entries[place] = coco("1.png", "2.png")
        entries |= {
            f"images/cam{number}/{n}.png": image(10 * number + n) for n in (1, 2)
        }
    records, data = read_data(tmp_path, entries)
    assert [record.encoded for record in records.values()] == list(
        map(image, (11, 12, 21, 22))
    )
    assert not data.notes.assumed


def test_images_without_labels_in_another_archive(tmp_path):
    """Only those in a folder with labelled ones have no objects."""
    labels = {"classes.txt": b"cat"} | LABELS["yolo"](1, 2)
    images = [{f"images/{n}.png": image(n)} for n in (1, 2, 3)]
    data = zips(tmp_path, labels=labels)
    given = zips(tmp_path, cam1=images[0] | images[1], cam2=images[2])
    with formats.open_export(given, data) as found:
        assert [item.source_id for item in found.items] == ["1.png", "2.png"]
        assert found.notes.left_out == {"images without a label": 1}


def test_many_images_of_one_name(tmp_path):
    """No image is compared with each label."""
    names = [f"x/f{n}/img.png" for n in range(1500)]
    labels = {"ann/a.json": coco(*names)}
    images = {f"W/{name}": image(n) for n, name in enumerate(names)}
    start = time.monotonic()
    with open_data(tmp_path, labels | images) as data:
        assert len(data.items) == 1500
    assert time.monotonic() - start < 5
    others = {f"W/x/g{n}/img.png": image(0) for n in range(1500)}
    with pytest.raises(InputError, match="fits both"):
        open_data(tmp_path, labels | others)
    assert time.monotonic() - start < 10


@pytest.mark.parametrize(
    ("encoding", "name"), [("cp1252", "façade"), ("cp932", "表の写真"), ("cp437", "é")]
)
def test_the_encoding_of_names(tmp_path, encoding, name):
    """Programs of Windows do not say in which encoding the names of a zip are."""
    images = {f"images/{name}{n}.png": image(n) for n in (1, 2)}
    raw = {n.encode(encoding): content for n, content in images.items()}
    zipped = suite_export.write_raw_zip(tmp_path / "images.zip", raw)
    labels = [
        {"a.json": coco(*(f"{name}{n}.png" for n in (1, 2)))},
        {"classes.txt": b"cat", **{f"labels/{name}{n}.txt": LINE for n in (1, 2)}},
        {f"Annotations/{name}{n}.xml": xml(f"{name}{n}.png") for n in (1, 2)},
    ]
    for each in labels:
        with formats.open_export([zipped], zips(tmp_path, labels=each)) as data:
            found = {item.source_id: data.read(item).encoded for item in data.items}
        assert found == {n.rpartition("/")[2]: content for n, content in images.items()}
    # The JSON in the zip itself.
    raw[b"a.json"] = labels[0]["a.json"]
    zipped = suite_export.write_raw_zip(tmp_path / "data.zip", raw)
    with formats.open_export([], [zipped]) as data:
        assert [data.read(item).encoded for item in data.items] == [image(1), image(2)]


def test_an_xml_with_the_name_of_another_image(tmp_path):
    entries = {"xml/a.xml": xml("b.png"), "xml/c.xml": xml("c.png")}
    entries |= {f"img/{name}.png": image(n) for n, name in enumerate("abc")}
    with open_data(tmp_path, entries) as data:
        ((name, reason),) = data.notes.unreadable
        assert [item.source_id for item in data.items] == ["c.png"]
    assert name.endswith("a.png")
    assert "'b.png', but img/b.png and img/a.png both exist" in reason
    # An image of that name somewhere else says nothing.
    entries["other/a.png"] = entries.pop("img/a.png")
    records, _ = read_data(tmp_path, entries)
    assert sorted(record.encoded for record in records.values()) == sorted(
        map(image, (1, 2))
    )


def test_predictions_beside_the_truth(tmp_path):
    names = [("1.png", *SIZE), ("2.png", *SIZE)]
    truth = coco_json(names, [(0, 0, 8, 8, 16, 16), (1, 0, 8, 8, 9, 9)], ["cat"])
    predicted = coco_json(names, [(0, 0, 1, 1, 16, 16)], ["cat"])
    predicted["annotations"][0]["score"] = 0.5
    entries = {"truth.json": as_json(truth), "predictions.json": as_json(predicted)}
    entries |= {f"{n}.png": image(n) for n in (1, 2)}
    records, data = read_data(tmp_path, entries)
    assert [record.boxes_px for record in records.values()] == [
        [(8, 8, 24, 24)],
        [(8, 8, 17, 17)],
    ]
    assert data.notes.left_out == {
        "boxes of a model (source 'model' or with a score)": 1
    }
    # Predictions of images that are not there are of no use, and no harm.
    predicted["images"].append(dict(predicted["images"][0], id=99, file_name="3.png"))
    entries["predictions.json"] = as_json(predicted)
    assert list(read_data(tmp_path, entries)[0]) == ["1.png", "2.png"]


def test_numbers_beside_images_with_other_labels(tmp_path):
    """Five numbers may be a calibration; without class names they are no labels."""
    entries = {"a.json": coco("1.png", "2.png"), "1.txt": b"1 2 3 4 5", "2.txt": b"x"}
    entries |= {f"{n}.png": image(n) for n in (1, 2)}
    records, data = read_data(tmp_path, entries)
    assert len(records) == 2
    reason = "texts with numbers, and no class names for them: no YOLO labels"
    assert data.notes.left_out[reason] == 2
    with pytest.raises(InputError, match=r"got COCO \(.*\) and YOLO"):
        read_data(tmp_path, entries | {"classes.txt": b"cat"})


@pytest.mark.parametrize("kind", LABELS)
def test_names_in_two_unicode_forms(tmp_path, kind):
    """They are one name, but where there are two, their exact bytes tell them apart."""
    names = ["caf\u00e9", "cafe\u0301"]
    entries = {"classes.txt": b"cat"} if kind == "yolo" else {}
    entries |= LABELS[kind](*names)
    # The first has a box.
    if kind == "yolo":
        entries[f"labels/{names[1]}.txt"] = b""
    images = {f"{FOLDERS[kind]}{name}.png": image(n) for n, name in enumerate(names)}
    with open_data(tmp_path, entries | images) as data:
        found = {item.source_id: data.read(item) for item in data.items}
    assert {name: record.encoded for name, record in found.items()} == {
        f"{name}.png": image(n) for n, name in enumerate(names)
    }
    if kind == "yolo":
        assert [bool(found[f"{name}.png"].boxes_px) for name in names] == [True, False]
    # One image for both is refused.
    del images[f"{FOLDERS[kind]}{names[1]}.png"]
    with pytest.raises(InputError, match="fits both"):
        read_data(tmp_path, entries | images)
    # For one label alone it is the image.
    entries = {k: v for k, v in entries.items() if names[0] not in k}
    entries |= LABELS[kind](names[1])
    with open_data(tmp_path, entries | images) as data:
        assert [data.read(item).encoded for item in data.items] == [image(0)]


def test_why_only_one_image_is_left(tmp_path, caplog):
    entries = {"classes.txt": b"cat", "1.png": image(1), "2.png": image(2)}
    entries |= {"1.txt": b"0 .5 .5 .1", "2.txt": LINE}
    with open_data(tmp_path, entries) as data:
        assert len(data.items) == 1
    assert any("1.txt: line 1: expected" in message for message in caplog.messages)


def test_images_found_in_an_archive_that_may_be_another(tmp_path):
    """They are counted, as the others of their folder are beside the labels."""
    labels = LABELS["voc"](1, 2)
    given = zips(tmp_path, data=labels | {"JPEGImages/1.png": image(1)})
    more = zips(tmp_path, more={"JPEGImages/2.png": image(2)})
    with formats.open_export(more, given) as data:
        assert len(data.items) == 2 and data.notes.assumed[BY_NAME] == 1
    # Of two archives, that of the same name is meant.
    given = zips(tmp_path, cam1=labels)
    apart = tmp_path / "images"
    apart.mkdir()
    both = zips(
        apart,
        cam1={"JPEGImages/1.png": image(1)},
        cam2={"JPEGImages/2.png": image(2)},
    )
    with pytest.raises(InputError, match=f"1 of 2 {MISSING}"):
        formats.open_export(both, given)
