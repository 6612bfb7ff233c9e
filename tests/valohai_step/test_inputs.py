"""Class files and patterns; inputs as a user gives them are in tests/test_steps.py."""

import unicodedata

import pytest

from valohai_step.inputs import glob_paths, read_class_names
from yolov3_tf2.errors import InputError


def test_class_names_are_compared_in_one_form(tmp_path):
    path = tmp_path / "classes.txt"
    composed, decomposed = (
        unicodedata.normalize(form, "고양이 café") for form in ("NFC", "NFD")
    )
    assert composed != decomposed
    path.write_text(f" {decomposed}\n\ndog\t\n", encoding="utf-8")
    assert read_class_names(path) == [composed, "dog"]
    path.write_text(f"{decomposed}\n{composed}\n", encoding="utf-8")
    with pytest.raises(InputError, match=f"got {composed} more than once"):
        read_class_names(path)


def test_a_path_comes_before_a_pattern(tmp_path):
    for name in ("a[1].jpg", "a1.jpg", "b.jpg"):
        (tmp_path / name).write_text(name)
    assert glob_paths(str(tmp_path / "a[1].jpg")) == [tmp_path / "a[1].jpg"]
    assert [path.name for path in glob_paths(str(tmp_path / "[ab]*.jpg"))] == [
        "a1.jpg",
        "a[1].jpg",
        "b.jpg",
    ]
    assert glob_paths(str(tmp_path / "c*")) == []
