"""Splits by tags and by names, on items with only these."""

import random
from typing import NamedTuple

import pytest

from superbai import splits
from yolov3_tf2.errors import InputError

NAME = "labels.zip"


class Item(NamedTuple):
    key: str
    tags: frozenset[str] = frozenset()
    dataset: str = "ds"

    @property
    def meta_name(self):
        return f"meta/{self.dataset}/{self.key}.json"

    @property
    def source_id(self):
        return f"{self.dataset}/{self.key}"


def items(*tags):
    """One item for each of `tags`, strings of words."""
    return [Item(f"{n}.jpg", frozenset(t.split())) for n, t in enumerate(tags)]


def names(by_split):
    return {split: [i.source_id for i in by_split[split]] for split in by_split}


@pytest.mark.parametrize("tag", ["test", "validation", "valid", "val"])
def test_tags_decide_and_the_rest_is_for_training(tag):
    by_split, how = splits.split_items(items("train", tag, "", "night"), 0.5, NAME)
    expected = {"train": ["ds/0.jpg", "ds/2.jpg", "ds/3.jpg"], "test": ["ds/1.jpg"]}
    assert names(by_split) == expected
    assert "tags" in how


def test_other_tags_do_not_decide():
    by_split, how = splits.split_items(items("night", "day", "rain", "sun"), 0.25, NAME)
    assert [len(by_split["train"]), len(by_split["test"])] == [3, 1]
    assert "25%" in how


def test_tags_of_both_are_refused():
    with pytest.raises(
        InputError,
        match=r"labels\.zip: meta/ds/1\.jpg\.json: ds/1\.jpg has the tags test, train",
    ):
        splits.split_items(items("train", "train test", "test"), 0.5, NAME)


@pytest.mark.parametrize(
    ("number", "fraction", "in_test"),
    [(10, 0.2, 2), (100, 0.25, 25), (3, 0.01, 1), (2, 0.5, 1), (10, 0.9, 9)],
)
def test_fraction_of_untagged_images(number, fraction, in_test):
    by_split, _ = splits.split_items(items(*[""] * number), fraction, NAME)
    assert len(by_split["test"]) == in_test
    assert len(by_split["train"]) == number - in_test


def test_fraction_takes_the_same_images_in_any_order():
    given = items(*[""] * 50)
    first, _ = splits.split_items(given, 0.2, NAME)
    shuffled = random.Random(0).sample(given, len(given))
    again, _ = splits.split_items(shuffled, 0.2, NAME)
    assert set(again["test"]) == set(first["test"])
    # Each split keeps the order of the items.
    in_train = set(again["train"])
    assert list(again["train"]) == [item for item in shuffled if item in in_train]
    assert names(splits.split_items(given, 0.2, NAME)[0]) == names(first)


def test_a_larger_fraction_keeps_the_images_of_a_smaller_one():
    given = items(*[""] * 50)
    small, _ = splits.split_items(given, 0.1, NAME)
    large, _ = splits.split_items(given, 0.3, NAME)
    assert set(small["test"]) < set(large["test"])


@pytest.mark.parametrize(
    ("tags", "empty", "number"),
    [(["test", "test"], "train", 2), (["train", ""], "test", 2)],
)
def test_an_empty_split_is_refused(tags, empty, number):
    with pytest.raises(InputError, match=f"no images left for {empty} .of {number}"):
        splits.split_items(items(*tags), 0.2, NAME)


def test_a_single_image_is_refused():
    with pytest.raises(InputError, match=r"labels\.zip: ds/0\.jpg is the only usable"):
        splits.split_items(items(""), 0.2, NAME)
