"""Label files of YOLO, and what describes a YOLO data set."""

from collections import Counter

import pytest

from yolov3_tf2.errors import InputError
from yolov3_tf2.files import yolo_config
from yolov3_tf2.files.yolo_annotations import YoloBox, is_yolo, read_yolo

WHERE = "data.zip: labels/a.txt"


def read(text, num_classes=3, **options):
    report = Counter()
    content = text if isinstance(text, bytes) else text.encode()
    return read_yolo(content, WHERE, num_classes, report, **options), report


@pytest.mark.parametrize(
    "text",
    [
        "1 0.5 0.25 0.5 0.25\n0 .5 .5 1 1",
        "\ufeff1 0.5 0.25 0.5 0.25\r\n\r\n0 .5 .5 1 1\r\n",
        "\n 1.0\t5e-1 0.25  0.5 0.25 \n\n0 +.5 .5 1 1.\n\n",
    ],
)
def test_boxes(text):
    boxes, report = read(text)
    assert boxes == [YoloBox(1, (0.25, 0.125, 0.75, 0.375)), YoloBox(0, (0, 0, 1, 1))]
    assert not report


@pytest.mark.parametrize("text", ["", "\n\n", "\ufeff", " \r\n"])
def test_no_boxes(text):
    assert read(text) == ([], {})


def test_scores_are_not_truth():
    assert read("0 .5 .5 .1 .1 .9\n0 .5 .5 .5 .5") == (
        [YoloBox(0, (0.25, 0.25, 0.75, 0.75))],
        {"boxes of a model (with a score)": 1},
    )


def test_polygons():
    text = "2 .1 .2 .5 .2 .5 .8\n1 .1 .1 .3 .1 .3 .4 .1 .4"
    assert read(text) == ([], {"polygons": 2})
    boxes, report = read(text, polygons_as_boxes=True)
    assert not report
    assert boxes == [
        YoloBox(2, (0.1, 0.2, 0.5, 0.8), True),
        YoloBox(1, (0.1, 0.1, 0.3, 0.4), True),
    ]


def test_keypoints():
    # Two keypoints of x, y and visibility: as many numbers as a polygon has.
    text = "0 .5 .5 .5 .5 .1 .1 2 .2 .2 0"
    assert read(text, keypoints=6)[0] == [YoloBox(0, (0.25, 0.25, 0.75, 0.75))]
    assert read("0 .5 .5 1 1", keypoints=6)[0] == [YoloBox(0, (0, 0, 1, 1))]


def test_swapped_corners():
    assert read("0 .5 .5 -.5 .5") == (
        [YoloBox(0, (0.25, 0.25, 0.75, 0.75))],
        {"boxes with negative width or height: corners swapped": 1},
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("3 .5 .5 .1 .1", "line 1: expected the index of a class, 0 to 2, got 3"),
        ("\n-1 .5 .5 .1 .1", "line 2: expected the index of a class, 0 to 2, got -1"),
        ("0.5 .5 .5 .1 .1", "line 1: expected the index of a class"),
        ("0 12.5 30 100 40.25", "line 1: expected fractions of the image, 0 to 1, got"),
        ("0 .5 .5 .1", "line 1: expected a class, centre, width and height"),
        ("0 .5 .5 .1 .1 .1 .1 .1", "five numbers, got 8 numbers"),
        ("0 .5 .5 .1 nan", "line 1: expected numbers, got '0 .5 .5 .1 nan'"),
        ("0 .5 .5 .1 1_0", "line 1: expected numbers"),
        ("0 .5 .5 .1 ١", "line 1: expected numbers"),
        ("cat .5 .5 .1 .1", "line 1: expected numbers"),
        (b"0 .5 .5 .1 .1 \xff", "got byte 0xff at 14"),
    ],
)
def test_what_cannot_be_used_is_named(text, words):
    with pytest.raises(InputError) as error:
        read(text)
    assert words in str(error.value) and WHERE in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"0 .5 .5 .1 .1", True),
        (b"\xef\xbb\xbf\r\n0 .5 .5 .1 .1\r\nwhatever", True),
        (b"", False),
        (b"Exported by a program on 1 2 3 4 5", False),
        (b"2007_000027 -1", False),
        (b"cat\ndog", False),
    ],
)
def test_recognition(content, expected):
    assert is_yolo(content) is expected


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("names: [valve, gauge]", ["valve", "gauge"]),
        ("names:\n  1: gauge\n  0: valve", ["valve", "gauge"]),
        # YAML itself would read false, 1.1 and null.
        ("names: [no, 1.10, 'null']", ["no", "1.10", "null"]),
        # Nothing is run.
        ("names: !!python/object/apply:os.system [valve]", ["valve"]),
        ("\ufeffnames:\r\n- \uace0\uc591\uc774\r\n", ["\uace0\uc591\uc774"]),
    ],
)
def test_names_of_a_yaml(text, names):
    value = yolo_config.load_yaml(text.encode(), "data.yaml")
    assert yolo_config.read_names(value["names"], "data.yaml") == names


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("names: [a, a]", "expected each class name once, got a"),
        ("names: {0: a, 2: b}", "expected the indices 0 to 1, got 0, 2"),
        ("names: {0: a, x: b}", "expected the indices 0 to 1"),
        ("names: []", "expected a list of class names"),
        ("names: 3", "expected a list of class names"),
        ("names: [[a]]", "class 0: expected one line of text"),
        ("a: &a [x]\nnames: [*a, *a]", "an alias, which no data set needs"),
        ("names: [a", "malformed YAML"),
        ("[" * 5000, "malformed YAML"),
    ],
)
def test_yamls_that_cannot_be_used(text, words):
    with pytest.raises(InputError) as error:
        value = yolo_config.load_yaml(text.encode(), "data.yaml")
        yolo_config.read_names(value["names"], "data.yaml")
    assert words in str(error.value) and "\n" not in str(error.value)


def test_darknet_data():
    text = b"classes= 2\r\ntrain  = data/train.txt\n# names = x\nnames = obj.names\n"
    assert yolo_config.read_data(text, "") == {
        "classes": "2",
        "train": "data/train.txt",
        "names": "obj.names",
    }
