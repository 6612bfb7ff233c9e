"""`model.json`: every value survives, a missing key means the default."""

import dataclasses
import json

import pytest

from yolov3_tf2.errors import InputError
from yolov3_tf2.network.model import PARTS
from yolov3_tf2.network.model_info import FILE, ModelInfo, read_model_info
from yolov3_tf2.network.model_info import write_model_info as write
from yolov3_tf2.network.variants import VARIANTS

TINY = VARIANTS["yolov3-tiny"]
ANCHORS = (((5.5, 7), (8, 9), (10, 11)), ((1, 2), (3, 4), (5, 6)))


def test_every_value_is_read_as_it_was_written(tmp_path):
    info = ModelInfo(
        dataclasses.replace(TINY, anchors=ANCHORS),
        ["a", "가"],
        320,
        train_boxes={"a": 1, "가": 2},
        parts=("backbone",),
        score_threshold=0.25,
        max_boxes=300,
        gray_range=(7000, 7500),
    )
    write(tmp_path, info)
    assert read_model_info(tmp_path / FILE) == info


def test_a_missing_key_means_the_published_value(tmp_path):
    values = {"variant": "yolov3-tiny", "classes": ["a"], "size": 416}
    (tmp_path / FILE).write_text(json.dumps(values))
    info = read_model_info(tmp_path / FILE)
    assert info == ModelInfo(TINY, ["a"], 416)
    assert info.parts == PARTS and info.score_threshold is info.max_boxes is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("anchors", [[[1, 2], [3, 4], [5, 6]]]),
        ("anchors", [[[1, 2], [3, 4], [5, 6]], [[1, 2], [3, 4], [5, 0]]]),
        ("anchors", [[[1, 2], [3, 4], [5, 6]], [[1, 2], [3, 4], [5, True]]]),
        ("anchors", "10,14"),
        ("parts", ["head"]),
        ("parts", "backbone"),
        ("score_threshold", 1.5),
        ("score_threshold", "0.5"),
        ("max_boxes", 0),
        ("max_boxes", 1.5),
        ("gray_range", [5, 5]),
        ("gray_range", [0, 65536]),
        ("gray_range", 3),
    ],
)
def test_a_wrong_value_is_refused_with_its_key(tmp_path, key, value):
    values = {"variant": "yolov3-tiny", "classes": ["a"], "size": 416, key: value}
    (tmp_path / FILE).write_text(json.dumps(values))
    with pytest.raises(InputError, match=key):
        read_model_info(tmp_path / FILE)
