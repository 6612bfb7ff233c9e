"""What an upload sends: names, ids, boxes, tags, and which objects of a label stay."""

import unicodedata
import uuid
from collections import Counter

import pytest

from superbai import upload_plan
from superbai.upload_plan import Item
from yolov3_tf2.errors import InputError
from yolov3_tf2.files.annotations import AnnotatedImage, Box

DECOMPOSED = unicodedata.normalize("NFD", "사진")


def annotated(name, *boxes, size=(64, 48)):
    boxes = tuple(Box(class_name, xyxy, *score) for class_name, xyxy, *score in boxes)
    return AnnotatedImage(name, size, boxes, "c.json")


def stored_box(item, class_name, xywh, **changes):
    """Returns a box as the Suite stores it after an upload."""
    return {
        "id": upload_plan.object_id(item.dataset, item.key, class_name, xywh),
        "class_name": class_name,
        "annotation_type": "box",
        "annotation": {
            "coord": dict(zip(("x", "y", "width", "height"), xywh, strict=True))
        },
        "properties": [],
        **changes,
    }


def make_items(images, dataset="", **options):
    options = {
        "find_size": {}.get,
        "score_threshold": 0.0,
        "tag": "",
        "review_names": set(),
        "skip_counts": Counter(),
        **options,
    }
    identities = upload_plan.identify_all(images, dataset)
    return upload_plan.make_items(images, identities, **options)


@pytest.mark.parametrize(
    ("name", "dataset", "expected"),
    [
        ("street/1.jpg", "", ("street", "1.jpg")),
        ("street/left/1.jpg", "", ("street", "left/1.jpg")),
        ("1.jpg", "street", ("street", "1.jpg")),
        ("street/1.jpg", "street", ("street", "1.jpg")),
        ("left/1.jpg", "street", ("street", "left/1.jpg")),
        ("사진/1.jpg", DECOMPOSED, (DECOMPOSED, "1.jpg")),
    ],
)
def test_the_dataset_and_the_key_of_an_image(name, dataset, expected):
    assert upload_plan.identify(annotated(name), dataset) == expected


def test_images_without_a_dataset_or_with_the_same_names_are_refused():
    with pytest.raises(InputError, match="'1.jpg' is unknown.*set --dataset"):
        upload_plan.identify_all([annotated("1.jpg")], "")
    images = [annotated("street/1.jpg"), annotated("1.jpg")]
    with pytest.raises(InputError, match="duplicate image '1.jpg' of dataset 'street'"):
        upload_plan.identify_all(images, "street")


def test_items_hold_boxes_and_tags():
    counts = Counter()
    images = [
        annotated(
            "ds/a.jpg",
            (" car", (1, 2, 4, 6), 0.5),
            ("car", (1, 2, 4, 6), 0.9),
            ("person", (5, 5, 9, 9)),
            ("person", (0, 0, 9, 9), 0.49),
        ),
        annotated("ds/b.jpg"),
    ]
    review_names = {"ds/b.jpg", "ds/other.jpg"}
    first, second = make_items(
        images,
        score_threshold=0.5,
        tag="train",
        review_names=review_names,
        skip_counts=counts,
    )
    assert (first.dataset, first.key, first.size) == ("ds", "a.jpg", (64, 48))
    boxes = [("car", (1, 2, 3, 4)), ("person", (5, 5, 4, 4))]
    assert list(first.boxes.values()) == boxes
    ids = [upload_plan.object_id("ds", "a.jpg", *box) for box in boxes]
    assert list(first.boxes) == ids
    assert (first.tags, second.tags) == ({"train"}, {"train", "review"})
    assert second.boxes == {} and second.name == "ds/b.jpg"
    assert counts == {
        "boxes below the score threshold": 1,
        "duplicate boxes": 1,
        "images of review.csv that are not in the annotations": 1,
    }


def test_boxes_of_an_image_of_unknown_size_are_clipped_to_its_file():
    images = [annotated("ds/a.jpg", ("car", (-9, 5, 99, 20)), size=None)]
    sizes = {("ds", "a.jpg"): (64, 48)}
    (item,) = make_items(images, find_size=sizes.get)
    assert item.size == (64, 48)
    assert list(item.boxes.values()) == [("car", (0, 5, 64, 15))]
    (item,) = make_items(images)
    assert item.size is None and not item.boxes


def test_ids_are_uuids_of_image_class_and_position():
    box = ("ds", "a.jpg", "car", (1, 2, 3, 4))
    first = upload_plan.object_id(*box)
    assert str(uuid.UUID(first)) == first and uuid.UUID(first).version == 5
    assert first == upload_plan.object_id("ds", "a.jpg", "car", (1.0, 2.0, 3.0, 4.0))
    others = [
        ("d", "a.jpg", "car", (1, 2, 3, 4)),
        ("ds", "b.jpg", "car", (1, 2, 3, 4)),
        ("ds", "a.jpg", "bus", (1, 2, 3, 4)),
        ("ds", "a.jpg", "car", (1, 2, 3, 4.5)),
    ]
    assert len({first, *(upload_plan.object_id(*other) for other in others)}) == 5
    composed = upload_plan.object_id("사진", "a.jpg", "car", (1, 2, 3, 4))
    assert composed == upload_plan.object_id(DECOMPOSED, "a.jpg", "car", (1, 2, 3, 4))


def test_ids_of_earlier_versions_stay_valid():
    """Boxes in projects have ids of this form; another form would duplicate them."""
    box = ("street", "left/1.jpg", "사람", (1, 2.5, 30, 4))
    assert upload_plan.object_id(*box) == "05be7ba1-8264-5191-aedc-a01dd7b19e77"


def test_a_box_that_somebody_has_edited_is_not_ours():
    item = Item("ds", "a.jpg", None, {}, set())
    box = stored_box(item, "car", (1, 2, 3, 4))
    assert upload_plan.is_ours(box, "ds", "a.jpg")
    assert not upload_plan.is_ours(box, "ds", "b.jpg")
    moved = {"coord": {"x": 1, "y": 2, "width": 3, "height": 5}}
    for change in (
        {"annotation": moved},
        {"class_name": "bus"},
        {"properties": [{"type": "radio"}]},
        {"annotation_type": "polygon"},
        {"annotation": {}},
        {"annotation": None},
        {"id": str(uuid.uuid4())},
        {"id": 7},
    ):
        assert not upload_plan.is_ours({**box, **change}, "ds", "a.jpg")


@pytest.mark.parametrize(
    ("replace", "kept", "added"),
    [
        ("ours", ["theirs", "same", "corrected"], ["new"]),
        ("all", ["same"], ["corrected", "new"]),
        ("none", ["theirs", "same", "corrected", "outdated"], []),
    ],
)
def test_which_objects_stay_and_which_boxes_are_added(replace, kept, added):
    item = Item("ds", "a.jpg", None, {}, set())
    boxes = {
        "same": ("car", (1, 2, 3, 4)),
        "corrected": ("car", (5, 5, 9, 9)),
        "outdated": ("car", (8, 8, 2, 2)),
        "new": ("person", (1, 2, 3, 4)),
    }
    ids = {n: upload_plan.object_id("ds", "a.jpg", *box) for n, box in boxes.items()}
    item.boxes.update({ids[n]: boxes[n] for n in ("same", "corrected", "new")})
    moved = {"coord": {"x": 5, "y": 5, "width": 9, "height": 9.5}}
    stored = {
        "theirs": stored_box(item, "car", (1, 1, 1, 1), id=str(uuid.uuid4())),
        "same": stored_box(item, *boxes["same"]),
        "corrected": stored_box(item, *boxes["corrected"], annotation=moved),
        "outdated": stored_box(item, *boxes["outdated"]),
    }
    kept_objects, new_boxes = upload_plan.merge_objects(
        item, list(stored.values()), replace
    )
    assert kept_objects == [stored[name] for name in kept]
    assert new_boxes == {ids[name]: boxes[name] for name in added}
    # An empty label gets all boxes, whatever is to be replaced.
    assert upload_plan.merge_objects(item, [], replace) == ([], item.boxes)


def test_the_first_images_of_a_review_csv(tmp_path):
    path = tmp_path / "review.csv"
    text = "rank,file_name\n1,ds/사진.jpg\n2,ds\\b.jpg\n3,ds/c.jpg\n"
    # With the byte order mark of Excel, and with decomposed names as on macOS.
    for content in (
        text.encode("utf-8-sig"),
        unicodedata.normalize("NFD", text).encode(),
    ):
        path.write_bytes(content)
        assert upload_plan.read_review(path, 2) == {"ds/사진.jpg", "ds/b.jpg"}
        assert len(upload_plan.read_review(path, 99)) == 3
    path.write_bytes(text.encode("cp949"))
    with pytest.raises(InputError, match="expected a CSV file in UTF-8"):
        upload_plan.read_review(path, 2)
    path.write_text("rank,name\n1,a.jpg\n")
    with pytest.raises(InputError, match="a column file_name, got rank, name"):
        upload_plan.read_review(path, 2)
    path.write_text("")
    assert upload_plan.read_review(path, 2) == set()
