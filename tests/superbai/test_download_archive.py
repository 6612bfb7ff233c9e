"""The folder that `superb download` writes: the records are those of its export."""

import json
import shutil
import unicodedata
import zipfile

import pytest
import suite_export
from suite_export import box, build, build_download, labelled, polygon, rotated

from superbai import download_archive
from superbai.export import Export
from superbai.label_archive import LabelArchive
from yolov3_tf2.errors import InputError
from yolov3_tf2.files import archives

ITEMS = [
    labelled("day1/north.jpg", box(1, 2, 30, 20), box(9, 9, 9, 9, "person")),
    labelled("a.jpg", box(5, 5, 20, 20), polygon(), dataset="yard", tags=["test"]),
    labelled("a.jpg", rotated(30, 20, 9, 5, 45), tags=["Train"]),
    labelled("empty.png", encoded=suite_export.encoded_image(kind="PNG")),
    labelled("work.jpg", box(1, 1, 9, 9), status="WORKING"),
    labelled("skipped.jpg", box(1, 1, 9, 9), status="SKIPPED"),
    labelled("고양이/사진.jpg", box(3, 4, 5, 6), dataset="데이터"),
]


def write_folder(path, entries):
    for name, content in entries.items():
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        is_bytes = isinstance(content, bytes)
        file.write_bytes(content if is_bytes else json.dumps(content).encode())
    return path


def read(images, labels, **options):
    """The records by their name, the tags, and the notes of an export."""
    with Export(images, labels, **options) as export:
        records = {}
        for item in export.items:
            record = export.read(item)
            if record:
                records[item.source_id] = (record, item.tags)
        assert not export.notes.unreadable
        return records, export.class_names, export.notes


def refused(path, *expected, images=()):
    with pytest.raises(InputError) as caught, Export(list(images), path) as export:
        for _, reason in export.notes.unreadable:
            raise InputError(reason)
    for text in expected:
        assert text in str(caught.value)


@pytest.mark.parametrize("options", [{}, {"polygons_as_boxes": True}])
@pytest.mark.parametrize("unsubmitted", [False, True])
@pytest.mark.parametrize("spelling", suite_export.GENERATIONS)
def test_the_records_are_those_of_the_export(tmp_path, spelling, unsubmitted, options):
    options = {**options, "include_unsubmitted": unsubmitted}
    images, labels = build(ITEMS, spelling)
    expected = read(
        [suite_export.write_zip(tmp_path / "images.zip", images)],
        suite_export.write_zip(tmp_path / "labels.zip", labels),
        **options,
    )
    assert len(expected[0]) == 5 + unsubmitted
    entries = build_download(ITEMS, spelling)
    folder = write_folder(tmp_path / "yard", entries)
    zipped = suite_export.write_zip(tmp_path / "d.zip", entries)
    above = {f"my download/{name}": content for name, content in entries.items()}
    above["__MACOSX/my download/._project.json"] = b"junk"
    above = suite_export.write_zip(tmp_path / "above.zip", above)
    packed = shutil.make_archive(tmp_path / "packed", "gztar", folder)
    packed = type(folder)(packed)
    for path in (folder, zipped, above, packed):
        for given in ([], [path]):
            found = read(given, path, **options)
            assert found[:2] == expected[:2]
            assert found[2].left_out == expected[2].left_out
            assert not found[2].assumed
    # Images of another place are found as those of an export.
    assert read([tmp_path / "images.zip"], zipped, **options)[0] == expected[0]


@pytest.mark.parametrize("dataset", ["labels", "meta", "project.json", "a/b"])
def test_a_dataset_may_have_any_name(tmp_path, dataset):
    entries = build_download([labelled("a.jpg", box(1, 2, 3, 4), dataset=dataset)])
    path = suite_export.write_zip(tmp_path / "d.zip", entries)
    # As both inputs in two copies, too.
    copy = shutil.copy(path, tmp_path / "copy.zip")
    for given in ([], [type(path)(copy)]):
        records, *_ = read(given, path)
        assert records[f"{dataset}/a.jpg"][0].boxes_px == [(1, 2, 4, 6)]


@pytest.mark.parametrize("result", [None, {}, {"categories": {}}, {"objects": None}])
def test_a_label_without_objects(tmp_path, result):
    items = [
        labelled(f"{n}.jpg", status=s) for n, s in enumerate(("SUBMITTED", "OPEN"))
    ]
    entries = build_download(items)
    for number in range(2):
        entries[f"ds/{number}.jpg.json"]["result"] = result
    path = suite_export.write_zip(tmp_path / "d.zip", entries)
    records, _, notes = read([], path, include_unsubmitted=True)
    assert list(records) == ["ds/0.jpg"] and not records["ds/0.jpg"][0].labels
    assert notes.left_out == {"images not submitted and without any object": 1}


def test_keys_that_begin_with_a_slash(tmp_path):
    items = [labelled("/a.jpg", box(1, 2, 3, 4)), labelled("//day/b.jpg")]
    path = suite_export.write_zip(tmp_path / "d.zip", build_download(items))
    records, *_ = read([], path)
    assert set(records) == {"ds/a.jpg", "ds/day/b.jpg"}


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_the_forms_of_names(tmp_path, form):
    items = [labelled("é.jpg", box(1, 2, 3, 4), dataset="데이터")]
    entries = {
        unicodedata.normalize(form, name): content
        for name, content in build_download(items).items()
    }
    path = suite_export.write_zip(tmp_path / "d.zip", entries)
    assert list(read([], path)[0]) == ["데이터/é.jpg"]
    # Without project.json the folder of the datasets follows from a label.
    project = entries.pop("project.json")
    assert project
    above = {f"é/{name}": content for name, content in entries.items()}
    path = suite_export.write_zip(tmp_path / "e.zip", above)
    assert list(read([], path)[0]) == ["데이터/é.jpg"]


def test_an_image_that_is_missing(tmp_path):
    items = [labelled(f"{n}.jpg", box(1, 2, 3, 4)) for n in range(3)]
    # It has the file name of another image, which stays that of the other.
    items.append(labelled("day/0.jpg", box(1, 2, 3, 4)))
    entries = build_download(items)
    for name in ("ds/2.jpg", "ds/day/0.jpg"):
        del entries[name]
    path = suite_export.write_zip(tmp_path / "d.zip", entries)
    refused(path, "2 of 4 labelled images are not in", "d.zip", "ds/2.jpg", "ds/day/0")
    records, _, notes = read([], path, skip_missing=True)
    assert set(records) == {"ds/0.jpg", "ds/1.jpg"}
    assert notes.left_out == {"labelled images that are missing": 2}


def test_what_else_is_there(tmp_path):
    entries = build_download([labelled("a.jpg", box(1, 2, 3, 4))])
    rows = [("ds", "a.jpg"), ("ds", "/lost.jpg"), ("yard", "b.jpg")]
    entries |= {
        "ds/spare.jpg": suite_export.encoded_image(),
        "ds/a.json": {"shapes": []},  # As labelme writes it.
        "notes.json": [],
        "error.log": b"".join(
            json.dumps({"dataset_name": d, "key": k, "error": "x"}).encode() + b"\n"
            for d, k in rows
        )
        + b"a line\n",
    }
    path = suite_export.write_zip(tmp_path / "d.zip", entries)
    _, _, notes = read([], path)
    failed = "images without a label that failed to download"
    others = "files other than images"
    assert notes.left_out == {failed: 3, "images without a label": 1, others: 2}
    assert notes.examples == {
        failed: ["ds/lost.jpg", "yard/b.jpg", "a line"],
        "images without a label": ["ds/spare.jpg"],
        others: ["ds/a.json", "notes.json"],
    }


def test_a_missing_project(tmp_path):
    entries = build_download(ITEMS)
    with_project = suite_export.write_zip(tmp_path / "a.zip", entries)
    del entries["project.json"]
    without = suite_export.write_zip(tmp_path / "b.zip", entries)
    expected, records = read([], with_project), read([], without)
    assert records[0] == expected[0] and records[1] == ["car", "person"]
    assert records[2].assumed == {
        "project.json is missing: the classes are those of the labels, by name": 1
    }
    for content in entries.values():
        if isinstance(content, dict):
            content["result"] = None
    path = suite_export.write_zip(tmp_path / "c.zip", entries)
    refused(path, "c.zip has no project.json, and no label with an object")


def test_other_projects_are_refused(tmp_path):
    entries = build_download([labelled("a.jpg", box(1, 2, 3, 4))])
    for content in entries.values():
        if isinstance(content, dict) and "workapp" in content:
            content["workapp"] = "VIDEO_SIESTA"
    project = entries.pop("project.json")
    path = suite_export.write_zip(tmp_path / "a.zip", entries)
    refused(path, "is a 'video-siesta' project; only image projects")
    entries["project.json"] = {**project, "data_type": "image sequence"}
    path = suite_export.write_zip(tmp_path / "b.zip", entries)
    refused(path, "is a 'video-siesta' project; only image projects")


def test_labels_that_cannot_be_read_are_named(tmp_path):
    items = [labelled(f"{n}.jpg", box(1, 2, 3, 4)) for n in range(4)]
    entries = build_download(items)
    entries["ds/0.jpg.json"] = b'{"data_key": "0.jpg", "resu'
    entries["ds/1.jpg.json"] = []
    del entries["ds/2.jpg.json"]["result"]
    path = suite_export.write_zip(tmp_path / "d.zip", entries)
    with Export([], path) as export:
        assert [item.source_id for item in export.items] == ["ds/3.jpg"]
        assert export.num_labelled == 4
        assert not export.notes.left_out
    reasons = dict(export.notes.unreadable)
    assert "malformed JSON" in reasons["ds/0.jpg.json"]
    assert "expected an object, got []" in reasons["ds/1.jpg.json"]
    assert "expected a label with data_key and result" in reasons["ds/2.jpg.json"]


def test_a_label_that_lies_beside_another_image_is_refused(tmp_path):
    entries = build_download([labelled("a.jpg"), labelled("b.jpg")])
    a, b = entries.pop("ds/a.jpg.json"), entries.pop("ds/b.jpg.json")
    swapped = entries | {"ds/a.jpg.json": b, "ds/b.jpg.json": a}
    path = suite_export.write_zip(tmp_path / "a.zip", swapped)
    refused(path, "a.zip: ds/a.jpg.json is the label of 'b.jpg'", "beside ds/a.jpg")
    # In folders of other names, a label belongs to the image beside it.
    moved = {f"x/{name}": c for name, c in entries.items() if name.startswith("ds/")}
    moved |= {"project.json": entries["project.json"], "x/ds/a.jpg.json": a}
    moved |= {"x/ds/b.jpg.json": b}
    path = suite_export.write_zip(tmp_path / "b.zip", moved)
    assert set(read([], path)[0]) == {"ds/a.jpg", "ds/b.jpg"}
    twice = entries | {"ds/a.jpg.json": a, "ds/c.jpg.json": {**b, "data_key": "a.jpg"}}
    path = suite_export.write_zip(tmp_path / "c.zip", twice)
    refused(path, "described twice")
    # One label lies beside the image that another one names.
    both = entries | {"ds/a.jpg.json": {**a, "data_key": "c.jpg"}, "z.json": a}
    del both["ds/b.jpg"]
    path = suite_export.write_zip(tmp_path / "d.zip", both)
    refused(path, "ds/a.jpg is the image of both ds/a.jpg.json and z.json")


@pytest.mark.parametrize("encoding", ["cp949", "cp932", "cp1252"])
def test_a_zip_of_windows(tmp_path, encoding):
    name = {"cp949": "사진", "cp932": "写真表", "cp1252": "Straße"}[encoding]
    items = [labelled(f"{name}.jpg", box(1, 2, 3, 4), dataset=f"{name} 1")]
    entries = build_download(items)
    for folder, has_project in (("", True), ("folder/", True), (f"{name}/", False)):
        if not has_project:
            del entries["project.json"]
        raw = {f"{folder}{n}".encode(encoding): c for n, c in entries.items()}
        path = suite_export.write_raw_zip(tmp_path / "d.zip", raw)
        records, class_names, _ = read([], path)
        assert list(records) == [f"{name} 1/{name}.jpg"]
        assert records[f"{name} 1/{name}.jpg"][0].boxes_px == [(1, 2, 4, 6)]
        assert class_names == (["car", "person"] if has_project else ["car"])


def test_an_export_is_no_download(tmp_path):
    for spelling in suite_export.GENERATIONS:
        _, labels = build(ITEMS, spelling)
        path = suite_export.write_zip(tmp_path / "labels.zip", labels)
        labels = download_archive.open_labels(path)
        assert type(labels) is LabelArchive
        labels.close()
        with archives.open_archive(path) as archive:
            assert download_archive.find_sample(archive) is None


def test_a_real_data_set(tmp_path, shared):
    source = shared / "data" / "coco-mini"
    if not source.is_dir():
        pytest.skip(f"the real data is not here: no folder {source}")
    labels = source / "labels-0.6.5.zip"
    folder = tmp_path / "download"
    with (
        Export([source / "images.zip"], labels) as export,
        zipfile.ZipFile(labels) as archive,
    ):
        expected = {i.source_id: (export.read(i), i.tags) for i in export.items}
        entries = {"project.json": archive.read("project.json")}
        for item in export.items:
            meta = json.loads(archive.read(item.meta_name))
            label = json.loads(archive.read(item.label_name))
            meta = {k: meta[k] for k in ("dataset", "data_key", "tags", "status")}
            entries[f"{item.source_id}.json"] = {**meta, "result": label}
            entries[item.source_id] = item.archive.read(item.entry)
    assert len(expected) > 90
    assert read([], write_folder(folder, entries))[0] == expected


def test_images_that_are_given_beside_a_download(tmp_path, caplog):
    items = [labelled("a.jpg", box(1, 2, 3, 4)), labelled("b.jpg")]
    images, _ = build(items)
    download = suite_export.write_zip(tmp_path / "d.zip", build_download(items))
    images = suite_export.write_zip(tmp_path / "images.zip", images)
    read([images], download)
    assert "d.zip: not used of it, as the input 'images' is given: 2 images" in (
        caplog.text
    )
    caplog.clear()
    read([], download, find_images_by="key")
    assert "find_images_by has no effect" in caplog.text
    with Export([], download) as export:
        assert export.kind.startswith("download of Superb AI")
