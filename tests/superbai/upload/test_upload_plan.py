"""What an upload sends: names, ids, boxes and tags."""

import unicodedata
from collections import Counter

import pytest

from superbai.upload import box_id, upload_plan
from yolov3_tf2.errors import InputError
from yolov3_tf2.files.annotations import AnnotatedImage, Box

DECOMPOSED = unicodedata.normalize("NFD", "사진")


def annotated(name, *boxes, size=(64, 48)):
    boxes = tuple(Box(class_name, xyxy, *score) for class_name, xyxy, *score in boxes)
    return AnnotatedImage(name, size, boxes, "c.json")


def make_items(images, dataset="", **options):
    options = {
        "find_size": {}.get,
        "score_threshold": 0.0,
        "tag": "",
        "review_names": set(),
        "skip_counts": Counter(),
        **options,
    }
    identities, problems = upload_plan.identify_all(images, dataset)
    return upload_plan.make_items(images, identities, problems=problems, **options)


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
    ids = [box_id.make_id("ds", "a.jpg", *box) for box in boxes]
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


def test_boxes_of_one_place_have_ids_of_their_own():
    counts = Counter()
    same = ("car", (1, 2, 4, 6))
    near = [("car", (1, 2, 4, 6 + number / 1000)) for number in range(6)]
    boxes = [same, same, *near, ("bus", (1, 2, 4, 6))]
    (item,) = make_items([annotated("ds/a.jpg", *boxes)], skip_counts=counts)
    # Four of a class in a place of 0.05 pixels are told apart.
    assert len(item.boxes) == 5 and counts == {"duplicate boxes": 4}
    (again,) = make_items([annotated("ds/a.jpg", *boxes)])
    assert again.boxes == item.boxes


def test_a_bad_name_is_a_problem_of_its_own_image():
    images = [annotated(n) for n in ("ds/a.jpg", "b.jpg", "ds/\ud800.jpg")]
    identities, problems = upload_plan.identify_all(images, "")
    assert identities == [("ds", "a.jpg"), ("", "b.jpg"), ("", "ds/\ud800.jpg")]
    assert "'b.jpg' is unknown" in problems["", "b.jpg"]
    assert r"'ds/\ud800.jpg' has half of a character" in problems["", "ds/\ud800.jpg"]
    good, *bad = make_items(images, tag="t")
    assert not good.problem and good.tags == {"t"}
    assert [each.problem for each in bad] == list(problems.values())
    assert bad[0].name == "b.jpg"


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
    path.write_text("\n\nrank,file_name\n\n1,a.jpg\n,\n2,b.jpg\n")
    assert upload_plan.read_review(path, 2) == {"a.jpg", "b.jpg"}
    path.write_text("rank,file_name\n")
    assert upload_plan.read_review(path, 2) == set()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a column file_name, got an empty file"),
        ("a,b\n1,2,3\n", "expected a column file_name, got a, b; is it"),
        ("rank;file_name\n1;a.jpg\n", "with commas between its values"),
        ('rank,file_name\n1,"a.jpg\n', "it cannot be read .*; was it cut off"),
        ("rank,file_name\n1\n", "line 2: expected 2 values, got 1; was it cut"),
        ("rank,file_name\n1,a.jpg\n\n2,b,c\n", "line 4: expected 2 values, got 3"),
    ],
)
def test_a_review_csv_that_cannot_be_read(tmp_path, text, message):
    path = tmp_path / "review.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        upload_plan.read_review(path, 2)
    assert str(path) in str(caught.value)
