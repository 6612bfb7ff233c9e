"""Annotation files of other tools: what is read, left out and refused."""

import contextlib
import io
import json
import resource
import subprocess
import sys
import tempfile
import time
import unicodedata
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
import suite_export
from hypothesis import example, given
from hypothesis import strategies as st
from project import REPOSITORY, SHARED
from pycocotools.coco import COCO

from yolov3_tf2.errors import InputError
from yolov3_tf2.evaluation.coco import (
    categories,
    coco_annotations,
    number_annotations,
)
from yolov3_tf2.files import annotations
from yolov3_tf2.files.annotations import AnnotatedImage, Box
from yolov3_tf2.files.coco_annotations import parse_coco
from yolov3_tf2.names import normalise_path

KOREAN = "사진/고양이 1.jpg"
VOC = """<?xml version="1.0" encoding="utf-8"?>
<annotation>
  <folder>VOC2012</folder>
  <filename> 2007_000027.jpg </filename>
  <size><width>486</width><height>500</height><depth>3</depth></size>
  <segmented>0</segmented>
  <object>
    <name> person </name><pose>Unspecified</pose><difficult>0</difficult>
    <part><name>head</name>
      <bndbox><xmin>209</xmin><ymin>4</ymin><xmax>270</xmax><ymax>80</ymax></bndbox>
    </part>
    <bndbox><xmin>174</xmin><ymin>101</ymin><xmax>349</xmax><ymax>351</ymax></bndbox>
  </object>
  <object>
    <name>고양이</name><difficult>1</difficult>
    <bndbox><xmax>486</xmax><xmin>1</xmin><ymax>500</ymax><ymin>1</ymin></bndbox>
  </object>
</annotation>
"""
VOC_PERSON = "<xmin>174</xmin><ymin>101</ymin><xmax>349</xmax><ymax>351</ymax>"


def coco(**changes):
    """A small COCO file: an image with a cat and a dog, one with nothing."""
    return {
        "images": [
            {"id": 7, "file_name": "a.jpg", "width": 100, "height": 80},
            {"id": 3, "file_name": "sub\\b.jpg", "width": 10, "height": 10},
        ],
        "categories": [{"id": 5, "name": "cat "}, {"id": 2, "name": "dog"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 2, "bbox": [10, 20.5, 30, 40]},
            {
                "id": 2,
                "image_id": 7,
                "category_id": 5,
                "bbox": [0, 0, 100, 80],
                "score": 0.25,
            },
        ],
        **changes,
    }


def changed(key, index=0, **changes):
    """The small COCO file with members of one record changed."""
    file = coco()
    file[key][index].update(changes)
    return file


def read_coco(tmp_path, file):
    """Writes a COCO file, given as a value, a text or bytes, and reads it."""
    path = tmp_path / "instances.json"
    if not isinstance(file, str | bytes):
        file = json.dumps(file, ensure_ascii=False)
    path.write_bytes(file.encode() if isinstance(file, str) else file)
    return annotations.read_annotations([path])


def read_voc(tmp_path, text, **options):
    path = tmp_path / "2007_000027.xml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return annotations.read_annotations([path], **options)


def test_a_coco_file(tmp_path):
    found, report = read_coco(tmp_path, coco())
    where = f"{tmp_path}/instances.json: image "
    dog = Box("dog", (10.0, 20.5, 40.0, 60.5), None)
    cat = Box("cat", (0.0, 0.0, 100.0, 80.0), 0.25)
    assert found == [
        AnnotatedImage("a.jpg", (100, 80), (dog, cat), where + "7"),
        AnnotatedImage("sub/b.jpg", (10, 10), (), where + "3"),
    ]
    assert not report
    for edge in found[0].boxes[0].xyxy:
        assert type(edge) is float
    assert [type(side) for side in found[0].size] == [int, int]


def test_a_voc_file(tmp_path):
    found, report = read_voc(tmp_path, VOC)
    person = Box("person", (173.0, 100.0, 349.0, 351.0))
    # All of the image, and difficult.
    cat = Box("고양이", (0.0, 0.0, 486.0, 500.0))
    where = str(tmp_path / "2007_000027.xml")
    assert found == [
        AnnotatedImage("2007_000027.jpg", (486, 500), (person, cat), where)
    ]
    assert not report


def test_voc_with_pixels_counted_from_zero(tmp_path):
    found, report = read_voc(tmp_path, VOC, voc_first_pixel=0)
    assert [box.xyxy for box in found[0].boxes] == [
        (174.0, 101.0, 349.0, 351.0),
        (1.0, 1.0, 486.0, 500.0),
    ]
    # Read as counted from one: one pixel outside is not an error in the file.
    (image,), report = read_voc(
        tmp_path, VOC.replace("<xmin>1<", "<xmin>0<").replace("<ymin>1<", "<ymin>0<")
    )
    assert image.boxes[1].xyxy == (0, 0, 486, 500)
    assert not report


@pytest.mark.parametrize(
    "text",
    [
        VOC.encode("utf-8-sig"),
        VOC.replace("utf-8", "utf-16").encode("utf-16"),
        VOC.replace("utf-8", "euc-kr").encode("euc-kr"),
        b"\n " + VOC.partition("\n")[2].encode(),
        VOC.replace("<xmin>174<", "<xmin><!-- left -->1<?p i?>74\n<"),
    ],
    ids=["utf-8 mark", "utf-16", "euc-kr", "no declaration", "comment"],
)
def test_spellings_of_a_voc_file(tmp_path, text):
    expected = read_voc(tmp_path, VOC)
    assert read_voc(tmp_path, text) == expected


def test_a_voc_image_without_objects_or_size(tmp_path):
    text = "<annotation><filename>/사진/a.jpg</filename></annotation>"
    (image,), report = read_voc(tmp_path, text)
    assert image[:3] == ("사진/a.jpg", None, ()) and not report
    zero = VOC.replace("<width>486<", "<width>0<")
    (image,), report = read_voc(tmp_path, zero)
    assert image.size is None and len(image.boxes) == 2 and not report


def test_spellings_of_a_coco_file(tmp_path):
    expected = read_coco(tmp_path, coco())
    text = json.dumps(coco())
    assert read_coco(tmp_path, text.encode("utf-8-sig")) == expected
    assert read_coco(tmp_path, "\r\n\t " + text) == expected
    # NaN is not JSON, but harmless in values that are not used.
    assert read_coco(tmp_path, changed("annotations", area=float("nan"))) == expected
    assert read_coco(tmp_path, changed("images", width=100.0)) == expected
    odd = changed("annotations", iscrowd=None, segmentation=[], score=None)
    assert read_coco(tmp_path, odd) == expected


def test_annotations_without_a_box_are_counted(tmp_path):
    annotation = {"image_id": 7, "category_id": 5}
    outline = {**annotation, "segmentation": [[0, 0, 9, 0, 9, 9]]}
    (image, _), report = read_coco(
        tmp_path,
        coco(
            annotations=[
                {**annotation, "bbox": [1, 2, 3, 4], "iscrowd": 1},
                {**outline, "iscrowd": 1},
                outline,
                {**outline, "bbox": []},
                {**outline, "bbox": None},
                {**outline, "bbox": [1, 2, 3, 4], "iscrowd": 0},
            ]
        ),
    )
    assert image.boxes == (Box("cat", (1, 2, 4, 6)),)
    assert report == {"crowd regions": 2, "segmentations without a bbox": 3}


@pytest.mark.parametrize(
    ("bbox", "xyxy", "reason"),
    [
        ([-5, 0, 10, 10], (0, 0, 5, 10), "boxes clipped to their image"),
        ([90, 70, 20, 20], (90, 70, 100, 80), "boxes clipped to their image"),
        ([-2, -2, 104, 84], (0, 0, 100, 80), None),  # Rounded, counted from 0 or 1.
        ([-2.1, 0, 10, 10], (0, 0, 7.9, 10), "boxes clipped to their image"),
        ([0, 0, 100.0005, 80], (0, 0, 100, 80), None),
        ([3, 3, 0, 5], None, "boxes without area"),
        ([3, 3, 5, 0.0009], None, "boxes without area"),
        ([3, 3, 5, 0.0011], (3, 3, 8, 3.0011), None),
        ([100, 0, 10, 10], None, "boxes outside their image"),
        ([0, -1000, 10, 10], None, "boxes outside their image"),
        ([-1e300, -1e300, 1e301, 1e301], (0, 0, 100, 80), "boxes clipped to their "),
    ],
)
def test_boxes_at_the_edges(tmp_path, bbox, xyxy, reason):
    found, report = read_coco(tmp_path, changed("annotations", bbox=bbox))
    boxes = [box.xyxy for box in found[0].boxes[:-1]]
    assert boxes == [xyxy] * (xyxy is not None)
    assert list(report.values()) == [1] * (reason is not None)
    assert not reason or list(report)[0].startswith(reason)


@pytest.mark.parametrize(
    "size", [{"width": None}, {"height": 0}, {"width": None, "height": None}]
)
def test_without_a_size_nothing_is_clipped(tmp_path, size):
    file = changed("images", **size)
    file["annotations"][0]["bbox"] = [-5, -5, 500, 500]
    found, report = read_coco(tmp_path, file)
    assert found[0].size is None and not report
    assert found[0].boxes[0].xyxy == (-5, -5, 495, 495)
    # The image file may have the size; without it, only certain errors are left out.
    clipped = annotations.clip_to_image(found[0], (100, 80), report)
    assert clipped.size == (100, 80) and len(clipped.boxes) == 2
    assert clipped.boxes[0].xyxy == (0, 0, 100, 80)
    assert report == {"boxes clipped to their image": 1}
    report.clear()
    assert annotations.clip_to_image(found[0], None, report).boxes == found[0].boxes[1:]
    assert report == {
        "images of unknown size, boxes not clipped": 1,
        "boxes that reach out of an image of unknown size": 1,
    }


@pytest.mark.parametrize(
    ("bbox", "expected"),
    [
        ([-2, -0.5, 12, 20.5], (0, 0, 10, 20)),  # Counted from another pixel.
        ([-2.5, 5, 10, 10], None),
        ([5, -2.5, 10, 10], None),
        ([5, 5, 1e6, 1e6], (5, 5, 1000005, 1000005)),
        ([-0.9, 5, 0.9, 10], None),
    ],
)
def test_boxes_of_an_image_of_unknown_size(tmp_path, bbox, expected):
    file = changed("images", width=None)
    file["annotations"][0]["bbox"] = bbox
    found, report = read_coco(tmp_path, file)
    boxes = annotations.clip_to_image(found[0], None, report).boxes
    assert [box.xyxy for box in boxes[:-1]] == [expected] * (expected is not None)
    assert len(report) == 1 + (expected is None)


finite = st.floats(-1e6, 1e6, allow_subnormal=False)
sides = st.floats(0.01, 1e6)
cases = st.lists(
    st.tuples(
        st.text(
            st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1
        ).filter(lambda name: normalise_path(name).strip()),
        st.lists(st.tuples(finite, finite, sides, sides, st.floats(0, 1)), max_size=4),
    ),
    max_size=5,
    unique_by=lambda case: normalise_path(case[0]),
)


@given(cases)
@example([(unicodedata.normalize("NFD", KOREAN), [(0.1, 0.2, 0.3, 0.7, 1.0)])])
def test_coco_files_are_read_back_as_they_were_written(images):
    file = coco(images=[], annotations=[])
    for number, (name, boxes) in enumerate(images):
        file["images"].append({"id": number, "file_name": name})
        for left, top, width, height, score in boxes:
            file["annotations"].append(
                {
                    "image_id": number,
                    "category_id": 5,
                    "bbox": [left, top, width, height],
                    "score": score,
                }
            )
    with tempfile.TemporaryDirectory() as folder:
        found, report = read_coco(Path(folder), file)
    assert [(image.name, image.boxes) for image in found] == [
        (
            normalise_path(name),
            tuple(
                Box("cat", (x, y, x + w, y + h), score) for x, y, w, h, score in all_
            ),
        )
        for name, all_ in images
    ]
    assert not report


def detections(num_images, boxes_each):
    """What detect.py writes, of random boxes in images of 640x480."""
    generator = np.random.default_rng(0)
    found = []
    for number in range(1, num_images + 1):
        corners = generator.uniform(0, 1, (boxes_each, 2, 2)) * (640, 480)
        corners = np.concatenate([corners.min(1), corners.max(1)], axis=-1)
        labels = generator.integers(0, 2, boxes_each)
        scores = generator.uniform(0, 1, boxes_each)
        found.append(coco_annotations(number, corners, labels, scores))
    return {
        "info": {"left_out": []},
        "images": [
            {
                "id": number,
                "file_name": f"사진/{number}.jpg",
                "source": f"images.zip: 사진/{number}.jpg",
                "width": 640,
                "height": 480,
                "output": f"output_{number}.jpg",
            }
            for number in range(1, num_images + 1)
        ],
        "categories": categories(["고양이", "dog"]),
        "annotations": number_annotations(found),
    }


def test_coco_is_read_like_pycocotools(tmp_path):
    file = detections(num_images=20, boxes_each=5)
    found, report = read_coco(tmp_path, file)
    with contextlib.redirect_stdout(io.StringIO()):
        theirs = COCO(str(tmp_path / "instances.json"))
    assert not report
    assert len(found) == len(theirs.getImgIds()) == 20
    for image, entry in zip(found, theirs.loadImgs(theirs.getImgIds()), strict=True):
        assert image.name == entry["file_name"]
        assert image.size == (entry["width"], entry["height"])
        loaded = theirs.loadAnns(theirs.getAnnIds(imgIds=[entry["id"]]))
        for box, annotation in zip(image.boxes, loaded, strict=True):
            assert box.class_name == theirs.cats[annotation["category_id"]]["name"]
            assert box.score == annotation["score"]
            left, top, right, bottom = box.xyxy
            # Rounded to three decimals, a box may end that much outside.
            np.testing.assert_allclose(
                (left, top, right - left, bottom - top), annotation["bbox"], atol=2e-3
            )


def test_voc_is_read_like_a_short_loop(tmp_path):
    generator = np.random.default_rng(1)
    for number in range(10):
        root = ET.Element("annotation")
        ET.SubElement(root, "filename").text = f"{number}.jpg"
        size = ET.SubElement(root, "size")
        ET.SubElement(size, "width").text = ET.SubElement(size, "height").text = "300"
        for _ in range(number):
            thing = ET.SubElement(root, "object")
            ET.SubElement(thing, "name").text = str(generator.choice(["<a>", "나&"]))
            box = ET.SubElement(thing, "bndbox")
            corners = np.sort(generator.integers(1, 301, (2, 2)), axis=0)
            for edge, value in zip(
                ("xmin", "ymin", "xmax", "ymax"), corners.ravel(), strict=True
            ):
                ET.SubElement(box, edge).text = str(value)
        ET.ElementTree(root).write(tmp_path / f"{number}.xml", "utf-8")
    expected = []
    for path in sorted(tmp_path.iterdir()):
        root, boxes = ET.parse(path).getroot(), []
        for thing in root.findall("object"):
            edges = {edge.tag: float(edge.text) for edge in thing.find("bndbox")}
            xyxy = edges["xmin"] - 1, edges["ymin"] - 1, edges["xmax"], edges["ymax"]
            boxes.append((thing.find("name").text, xyxy, None))
        expected.append((root.find("filename").text, (300, 300), tuple(boxes)))
    found, report = annotations.read_annotations([tmp_path])
    assert [image[:3] for image in found] == expected
    assert not report


def test_zips_folders_and_files(tmp_path):
    second = VOC.replace("2007_000027", "2")
    archive = suite_export.write_zip(
        tmp_path / "labels.zip",
        {
            "top/instances.JSON": json.dumps(coco()).encode(),
            "top/a.jpg": suite_export.encoded_image(),
            "readme.txt": b"",
            "__MACOSX/top/._instances.json": b"\0",
        },
    )
    folder = tmp_path / "폴더"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "1.xml").write_text(VOC, "utf-8")
    (folder / "1.png").write_bytes(b"")
    # The content decides, not the name.
    loose = tmp_path / "download"
    loose.write_text(second, "utf-8")
    found, report = annotations.read_annotations([archive, folder, loose])
    assert [(image.name, image.where) for image in found] == [
        ("a.jpg", f"{archive}: top/instances.JSON: image 7"),
        ("sub/b.jpg", f"{archive}: top/instances.JSON: image 3"),
        ("2007_000027.jpg", f"{folder}: sub/1.xml"),
        ("2.jpg", str(loose)),
    ]
    assert report == {"other files": 3}
    xml_of_json = tmp_path / "coco.xml"
    xml_of_json.write_text(json.dumps(coco()))
    assert [p.name for p in annotations.read_annotations([xml_of_json])[0]] == [
        "a.jpg",
        "sub/b.jpg",
    ]


def test_composed_and_decomposed_names_are_equal(tmp_path):
    for form in ("NFC", "NFD"):
        name = unicodedata.normalize(form, KOREAN)
        found, _ = read_coco(tmp_path, changed("images", file_name="\\" + name))
        assert found[0].name == unicodedata.normalize("NFC", KOREAN)


def test_an_image_in_two_files_is_refused(tmp_path):
    files = [tmp_path / "train.json", tmp_path / "val.json"]
    for path in files:
        path.write_text(json.dumps(coco()))
    with pytest.raises(
        InputError,
        match=r"val\.json: image 7 is 'a\.jpg', and so is \S+train\.json: image 7; "
        "expected each image once",
    ):
        annotations.read_annotations(files)
    (tmp_path / "a.xml").write_text(VOC.replace("2007_000027", "a"), "utf-8")
    with pytest.raises(InputError, match=r"a\.xml is 'a\.jpg', and so is"):
        annotations.read_annotations([files[0], tmp_path / "a.xml"])
    with pytest.raises(InputError, match="image 3 is 'a.jpg', and so is .* image 7"):
        read_coco(tmp_path, changed("images", 1, file_name="/a.jpg"))


def test_categories_that_no_box_uses(tmp_path):
    unused = [
        {"id": 9, "name": "dog", "supercategory": "none"},  # The parent, of Roboflow.
        {"id": 10, "name": "  "},
        {"id": 11, "name": "cow"},
        {"id": 11, "name": "ox"},
    ]
    used = coco()["categories"]
    for listed in ([*unused, *used], [*used, *unused]):
        file = coco(categories=listed)
        assert read_coco(tmp_path, file) == read_coco(tmp_path, coco())
    # Regions without a box do not use theirs.
    crowd = {"image_id": 7, "category_id": 9, "bbox": [1, 2, 3, 4], "iscrowd": 1}
    file["annotations"].append(crowd)
    assert read_coco(tmp_path, file)[1] == {"crowd regions": 1}
    file["annotations"][-1]["iscrowd"] = 0
    with pytest.raises(InputError, match="category 9: name: .* no other .* got 'dog'"):
        read_coco(tmp_path, file)
    file["annotations"][-1]["category_id"] = 11
    with pytest.raises(InputError, match="number 6: id: expected a unique id, got 11"):
        read_coco(tmp_path, file)


def test_the_file_of_roboflow():
    path = SHARED / "cases" / "annotations" / "roboflow_same.json"
    if not path.is_file():
        pytest.skip(f"the case is not here: no file {path}")
    (image,), report = annotations.read_annotations([path])
    assert image.boxes == (Box("raccoon", (10, 20, 40.5, 60)),)
    assert not report


def test_annotations_of_images_that_are_not_listed(tmp_path):
    file = coco()
    file["annotations"] += [{"image_id": n, "bbox": [1, 2, 3, 4]} for n in (1, HUGE)]
    found, report = read_coco(tmp_path, file)
    assert found == read_coco(tmp_path, coco())[0]
    assert report == {"annotations of images that are not listed": 2}


def test_all_bad_annotations_are_named(tmp_path):
    file = coco()
    file["annotations"] += [
        {"id": n, "image_id": 7, "category_id": 5, "bbox": [n]} for n in range(20, 33)
    ]
    with pytest.raises(InputError) as caught:
        read_coco(tmp_path, file)
    message = str(caught.value)
    assert "instances.json: of its annotations, 13 cannot be used: " in message
    assert all(f"annotation {n}: bbox: expected" in message for n in range(20, 30))
    assert "annotation 30" not in message and message.endswith("; and 3 more.")
    for name in "abc":
        (tmp_path / f"{name}.xml").write_text("<annotation>")
    (tmp_path / "d.xml").write_text(VOC, "utf-8")
    with pytest.raises(
        InputError, match="of 5 annotation files, 4 cannot be used: "
    ) as e:
        annotations.read_annotations([tmp_path])
    assert all(f"{name}.xml: malformed XML" in str(e.value) for name in "abc")


def test_no_annotations(tmp_path):
    (tmp_path / "a.jpg").write_bytes(suite_export.encoded_image())
    with pytest.raises(
        InputError,
        match=r"no annotations in \S+; expected COCO \(\.json\) or Pascal VOC "
        r"\(\.xml\) files, got 1 others: are these the images",
    ):
        annotations.read_annotations([tmp_path])
    (tmp_path / "labels.zip").write_bytes(b"")
    with pytest.raises(InputError, match=r"got the zip labels\.zip; unpack it first"):
        annotations.read_annotations([tmp_path])
    with pytest.raises(InputError, match="no annotations in no files"):
        annotations.read_annotations([])
    with pytest.raises(
        InputError, match=r"a\.jpg: expected a COCO JSON or a Pascal VOC XML, got b'\\x"
    ):
        annotations.read_annotations([tmp_path / "a.jpg"])
    (tmp_path / "empty.json").write_bytes(b"")
    with pytest.raises(InputError, match=r"empty\.json: expected a COCO .*, got b''"):
        annotations.read_annotations([tmp_path])


HUGE = 10**400
BAD_COCO = {
    "list": ([], "expected a COCO file .* got a list, as COCO results .* whole"),
    "no images": ({"annotations": [], "categories": []}, "got no images; is it"),
    "nothing": (
        {},
        "'images' .id, .* got no images, no categories, no annotations; is",
    ),
    "no list": (coco(images={}), r"images: expected a list, got \{\}"),
    "null": (coco(annotations=None), "annotations: expected a list, got null"),
    "no object": (coco(images=[1]), "images number 1: expected an object, got 1"),
    "no id": (coco(images=[{}]), "images number 1: id: expected an integer, got null"),
    "text id": (changed("images", id="7"), "expected an integer, got '7'"),
    "bool id": (changed("categories", id=True), "expected an integer, got True"),
    "float id": (changed("categories", id=5.0), "expected an integer, got 5.0"),
    "image twice": (
        changed("images", 1, id=7),
        "images number 2: id: expected a unique id, got 7",
    ),
    "category twice": (
        changed("categories", 1, id=5),
        "categories number 2: id: expected a unique id, got 5",
    ),
    "one name": (
        changed("categories", 1, name=" cat"),
        "category 2: name: expected a name that no other used .*, got 'cat'",
    ),
    "blank name": (changed("categories", name=" "), "category 5: name: .* got ''"),
    "no name": (changed("categories", name=None), "category 5: name: .* got null"),
    "number": (changed("categories", name=1), "expected one line of text, got 1"),
    "two lines": (changed("categories", name="a\nb"), r"one line of text, got 'a\\nb'"),
    "half a pair": (changed("categories", name="\ud83d"), "expected one line of text"),
    "no file name": (
        changed("images", file_name=None),
        "image 7: file_name: expected one line of text, got null",
    ),
    "slash": (changed("images", file_name="/"), "image 7: file_name: .* got ''"),
    "half size": (changed("images", width=9.5), r"image 7: .* whole pixels, got \[9.5"),
    "negative size": (changed("images", width=-9), "whole pixels, got .-9.0, 80.0"),
    "text size": (
        changed("images", height="80"),
        "size: expected a finite .* got '80'",
    ),
    "bool size": (changed("images", height=False), "a finite number, got False"),
    "other images": (
        coco(annotations=[{"image_id": n} for n in (1, 4)]),
        r"annotation number 1: image_id: expected one .* lists \(7, 3\), got 1;",
    ),
    "other category": (
        changed("annotations", category_id=9),
        r"category_id: expected one that the file lists \(5, 2\), got 9",
    ),
    "many categories": (
        changed("annotations", category_id=99)
        | {"categories": [{"id": n, "name": str(n)} for n in range(50)]},
        r"\(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, …\), got 99",
    ),
    "no images listed": (coco(images=[]), r"that the file lists \(none\), got 7"),
    "text image": (changed("annotations", image_id="7"), r"\(7, 3\), got '7'"),
    "list image": (changed("annotations", image_id=[7]), r"\(7, 3\), got \[7\]"),
    "bool image": (changed("annotations", image_id=True), "got True"),
    "huge image": (
        coco(annotations=[{"image_id": HUGE}]),
        "got 1000000000",
    ),
    "crowd": (changed("annotations", iscrowd="no"), "iscrowd: expected 0 or 1, got 'n"),
    "no bbox": (changed("annotations", bbox=None), "annotation 1: bbox: .* got null"),
    "three": (
        changed("annotations", 1, bbox=[1, 2, 3]),
        r"annotation 2: bbox: .* 2, 3",
    ),
    "text": (
        changed("annotations", bbox=[1, 2, 3, "12"]),
        r"four finite numbers, got \[1, 2, 3, '12'\]",
    ),
    "bool": (
        changed("annotations", bbox=[1, 2, 3, True]),
        r"bbox: .* finite numbers, got \[1, 2, 3, True\]",
    ),
    "NaN": (
        changed("annotations", bbox=[1, 2, 3, float("nan")]),
        r"bbox: .* got \[1, 2, 3, nan\]",
    ),
    "infinite": (
        changed("annotations", bbox=[1, 2, 3, float("inf")]),
        r"bbox: .* got \[1, 2, 3, inf\]",
    ),
    "huge": (
        changed("annotations", bbox=[1, 2, 3, HUGE]),
        r"bbox: .* got \[1, 2, 3, 1000000",
    ),
    "sum": (
        changed("annotations", bbox=[1e308, 0, 1e308, 9]),
        r"four finite numbers, got \[1e",
    ),
    "score": (changed("annotations", score=25), "score: expected 0 to 1, got 25"),
    "no score": (changed("annotations", score=-0.1), "expected 0 to 1, got -0.1"),
    "text score": (
        changed("annotations", score="1"),
        "score: expected a finite .* '1'",
    ),
    "bool score": (changed("annotations", score=True), "score: .* got True"),
    "NaN score": (changed("annotations", score=float("nan")), "score: .* got nan"),
    "cut off": (json.dumps(coco())[:60], r"malformed JSON: .* line 1 column \d+"),
    "second line": ('{"images":\n [}', "malformed JSON: Expecting value: line 2 col"),
    "deep": ("[" * 100_000, "malformed JSON"),
    "many digits": ("[" + "1" * 5000 + "]", "malformed JSON"),
    "encoding": (
        json.dumps(changed("images", file_name=KOREAN), ensure_ascii=False).encode(
            "cp949"
        ),
        r"expected JSON in UTF-8, got byte 0x\w\w at \d+ \(.*\); was it saved in",
    ),
    "utf-16": ("[]".encode("utf-16"), "expected JSON in UTF-8, got byte 0xff at 0"),
}


@pytest.mark.parametrize(("file", "message"), BAD_COCO.values(), ids=BAD_COCO)
def test_a_coco_file_that_is_refused(tmp_path, file, message):
    if not isinstance(file, str | bytes):
        file = json.dumps(file)  # Halves of pairs as \ud83d, which UTF-8 has not.
    with pytest.raises(InputError, match=message) as caught:
        read_coco(tmp_path, file)
    assert str(caught.value).startswith(f"{tmp_path}/instances.json")
    assert len(str(caught.value)) < 500


def without(start, end):
    """The small VOC file without what lies from one text to the end of another."""
    before, rest = VOC.split(start, 1)
    return before + rest.split(end, 1)[1]


def voc_box(xmin=1, ymin=1, xmax=9, ymax=9):
    return VOC.replace(
        VOC_PERSON,
        f"<xmin>{xmin}</xmin><ymin>{ymin}</ymin><xmax>{xmax}</xmax><ymax>{ymax}</ymax>",
    )


BAD_VOC = {
    "no file name": (without("<filename>", "</filename>"), "filename: .* got ''"),
    "other root": ("<annotations/>", "expected a Pascal VOC <annot.*got 'annotations'"),
    "no name": (without("<name> p", "</name>"), "object 1: name: .* got ''"),
    "no box": (without("<bndbox><xmin>174", "</bndbox>"), "object 1: xmin .* got ''"),
    "no edge": (without("<ymax>500", "</ymax>"), "object 2: ymax of bndbox: .* got ''"),
    "word": (voc_box(xmin="left"), "expected a finite number, got 'left'"),
    "NaN": (voc_box(xmin="nan"), "expected a finite number, got 'nan'"),
    "infinite": (voc_box(xmax="1e999"), "expected a finite number, got inf"),
    "underscore": (voc_box(xmax="1_0"), "expected a finite number, got '1_0'"),
    "other digits": (voc_box(xmax="٣"), "expected a finite number, got '٣'"),
    "comma": (voc_box(xmax="1,5"), "expected a finite number, got '1,5'"),
    "size": (
        VOC.replace(">486</w", ">wide</w"),
        "size: expected a finite .* got 'wide'",
    ),
    "negative": (
        VOC.replace(">486</w", ">-4</w"),
        r"width and height in whole pixels, got \[-4.0, 500",
    ),
    "cut off": (
        VOC[:300],
        r"malformed XML: .*line \d+, column \d+; is the file incomplete",
    ),
    "namespace": ('<annotation xmlns="u"></annotation>', "malformed XML: .*namespace"),
    "NUL": ("<annotation>\0</annotation>", "malformed XML: .*line 1"),
    "crossed": ("<annotation>\n<a></annotation>", "malformed XML: .* mismatch.*line 2"),
    "encoding": (
        VOC.encode("cp949"),
        "malformed XML: .*",
    ),
    "entity": (
        VOC.replace(" person ", "&person;"),
        "malformed XML: .*'person' not def",
    ),
    "deep": ("<a>" * 100_000, "malformed XML: .*depth"),
    "only a start": ("<", "malformed XML: .*"),
    "web page": (
        "<!DOCTYPE html><html><br></html>",
        "expected a Pascal VOC annotation, which has no DTD, got <!DOCTYPE html>.*page",
    ),
}


@pytest.mark.parametrize(("text", "message"), BAD_VOC.values(), ids=BAD_VOC)
def test_a_voc_file_that_is_refused(tmp_path, text, message):
    with pytest.raises(InputError, match=message) as caught:
        read_voc(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path}/2007_000027.xml")


def test_numbers_of_voc(tmp_path):
    found, _ = read_voc(tmp_path, voc_box(" 1.25\n", "+2", "1e1", "10."))
    assert found[0].boxes[0].xyxy == (0.25, 1, 10, 10)
    found, _ = read_voc(tmp_path, voc_box(xmin=5, xmax=5))
    assert found[0].boxes[0].xyxy == (4, 0, 5, 9)  # One pixel wide.


@pytest.mark.parametrize(
    ("bbox", "expected"),
    [
        ([30, 20, -10, 5], (20, 20, 30, 25)),
        ([30, 20, 10, -5], (30, 15, 40, 20)),
        ([5, 20, -10, -30], (0, 0, 5, 20)),
    ],
)
def test_corners_of_a_coco_box_are_swapped(tmp_path, bbox, expected):
    found, report = read_coco(tmp_path, changed("annotations", bbox=bbox))
    assert found[0].boxes[0].xyxy == expected
    assert report["boxes with negative width or height: corners swapped"] == 1
    # A box of which nothing is left is counted once.
    found, report = read_coco(tmp_path, changed("annotations", bbox=[-5, 5, -9, 9]))
    assert report == {"boxes outside their image": 1}


@pytest.mark.parametrize(("first_pixel", "left", "top"), [(1, 7, 8), (0, 8, 9)])
def test_corners_of_a_voc_box_are_swapped(tmp_path, first_pixel, left, top):
    text = voc_box(xmin=20, xmax=8, ymin=30, ymax=9)
    expected, report = read_voc(
        tmp_path, voc_box(8, 9, 20, 30), voc_first_pixel=first_pixel
    )
    assert not report
    found, report = read_voc(tmp_path, text, voc_first_pixel=first_pixel)
    assert found == expected
    assert found[0].boxes[0].xyxy == (left, top, 20, 30)
    assert report == {"boxes with negative width or height: corners swapped": 1}


def test_class_names_in_either_unicode_form_are_equal(tmp_path):
    nfc, nfd = (unicodedata.normalize(form, "고양이") for form in ("NFC", "NFD"))
    assert nfc != nfd
    found, _ = read_coco(tmp_path, changed("categories", name=nfd))
    assert found[0].boxes[1].class_name == nfc
    found, _ = read_voc(tmp_path, VOC.replace(nfc, nfd))
    assert found[0].boxes[1].class_name == nfc
    twice = changed("categories", name=nfc)
    twice["categories"][1]["name"] = nfd
    with pytest.raises(InputError, match=f"expected a name that no .*, got '{nfc}'"):
        read_coco(tmp_path, twice)


LAUGHS = (
    '<!DOCTYPE annotation [<!ENTITY l0 "'
    + "ha" * 500
    + '">'
    + "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    + "]>"
)
QUADRATIC = f'<!DOCTYPE annotation [<!ENTITY l9 "{"ha" * 100_000}">]>'
SECRET = "하나둘셋"
DTDS = {
    "laughs": LAUGHS,
    "quadratic": QUADRATIC,
    "file": '<!DOCTYPE a [<!ENTITY l9 SYSTEM "{secret}">]>',
    "parameter": '<!DOCTYPE a [<!ENTITY % p SYSTEM "{secret}"> %p;]>',
    "external": '<!DOCTYPE a SYSTEM "{secret}">',
    "address": '<!DOCTYPE a PUBLIC "-//W3C//DTD" "http://127.0.0.1:9/x.dtd">',
    "attribute": '<!DOCTYPE a [<!ATTLIST annotation verified CDATA "yes">]>',
    "empty": "<!DOCTYPE annotation>",
}
BOMBED = VOC.replace(" person ", "&l9;" * 1000).replace(
    "<folder>", '<folder a="&l9;&l9;">'
)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("dtd", DTDS.values(), ids=DTDS)
def test_no_entity_is_expanded(tmp_path, dtd, encoding):
    secret = tmp_path / "secret.txt"
    secret.write_text(SECRET, "utf-8")
    head, body = BOMBED.replace("utf-8", encoding).split("\n", 1)
    text = f"{head}\n{dtd.replace('{secret}', secret.as_uri())}\n{body}"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    with pytest.raises(InputError, match="has no DTD, got <!DOCTYPE a") as caught:
        read_voc(tmp_path, text.encode(encoding))
    assert time.perf_counter() - start < 5
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert after - before < 50 * 1024  # KiB
    assert SECRET not in str(caught.value)


@given(st.data())
def test_a_damaged_file_raises_only_input_errors(data):
    text = data.draw(st.sampled_from([json.dumps(coco()), VOC])).encode()
    start = data.draw(st.integers(0, len(text)))
    end = start + data.draw(st.integers(0, 20))
    damaged = text[:start] + data.draw(st.binary(max_size=5)) + text[end:]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.json")
        path.write_bytes(damaged)
        with contextlib.suppress(InputError):
            found, _ = annotations.read_annotations([path])
            str(found).encode()


def test_it_needs_no_tensorflow():
    code = (
        "import sys, yolov3_tf2.files.annotations; print(*sorted({'tensorflow', "
        "'keras', 'valohai', 'tqdm', 'absl', 'pycocotools'} & set(sys.modules)))"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert (process.returncode, process.stdout) == (0, "\n"), process.stderr


def test_outlines_that_no_box_needs_are_not_kept():
    outline = [[1, 2, 3, 4, 5, 6]]
    annotations = [
        {"bbox": [1, 2, 3, 4], "segmentation": outline},
        {"bbox": [1, 2, 3, 4], "segmentation": []},
        {"bbox": [], "segmentation": outline},
    ]
    content = json.dumps({"annotations": annotations}).encode()
    parsed = parse_coco(content, "a.json")["annotations"]
    assert [each["segmentation"] for each in parsed] == [True, False, outline]
