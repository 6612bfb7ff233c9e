"""Splits by tags and by names, on items with only these."""

import random
from collections import Counter
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


@pytest.mark.parametrize(
    ("tag", "split"),
    [
        ("test", "test"),
        ("validation", "validation"),
        ("valid", "validation"),
        ("val", "validation"),
    ],
)
def test_tags_decide_and_the_rest_is_for_training(tag, split):
    tags = ("train", tag, "", "night", "test")
    by_split, how = splits.split_items(items(*tags), 0.5, NAME)
    expected = {"train": ["ds/0.jpg", "ds/2.jpg", "ds/3.jpg"], "validation": []}
    expected |= {"test": ["ds/4.jpg"]}
    expected[split] = ["ds/1.jpg", *expected[split]]
    assert names(by_split) == expected
    assert how == "split by the tags of the images"


def test_images_for_validation_are_for_testing_where_there_are_no_others():
    by_split, how = splits.split_items(items("train", "val", "valid", ""), 0.5, NAME)
    assert names(by_split) == {
        "train": ["ds/0.jpg", "ds/3.jpg"],
        "validation": [],
        "test": ["ds/1.jpg", "ds/2.jpg"],
    }
    assert "no image is for testing, so those for validation are" in how


def test_other_tags_do_not_decide():
    by_split, how = splits.split_items(items("night", "day", "rain", "sun"), 0.25, NAME)
    assert [len(by_split["train"]), len(by_split["test"])] == [3, 1]
    assert "25%" in how


@pytest.mark.parametrize(
    ("tags", "kept"),
    [
        ("train test", "'train', 'test'"),
        ("validation test", "'validation', 'test'"),
        ("train val", "'train', 'validation'"),
        ("train val test", "'train', 'validation', 'test'"),
    ],
)
def test_tags_of_several_splits_are_refused(tags, kept):
    with pytest.raises(InputError) as error:
        splits.split_items(items("train", tags, "test"), 0.5, NAME)
    assert str(error.value) == (
        "labels.zip: meta/ds/1.jpg.json: ds/1.jpg has the tags "
        f"{', '.join(sorted(tags.split()))}; keep one of {kept}."
    )


def test_tags_that_mean_the_same_split_agree():
    by_split, _ = splits.split_items(items("train", "val valid", "test"), 0.5, NAME)
    assert [len(by_split[s]) for s in splits.SPLITS] == [1, 1, 1]


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


def test_the_images_chosen_by_hash_stay_those_of_earlier_versions():
    by_split, _ = splits.split_items(items(*[""] * 12), 0.25, NAME)
    assert names(by_split)["test"] == ["ds/0.jpg", "ds/8.jpg", "ds/11.jpg"]
    assert by_split["validation"] == []


def test_groups_stay_together():
    given = [Item(f"cam{n % 7}/{n:03d}.jpg") for n in range(70)]
    labels = {item: Counter({int(item.key[3]) % 2: 1}) for item in given}
    by_split, how = splits.split_items(given, 0.3, NAME, "folder", labels.get)
    folders = {s: {i.key.split("/")[0] for i in by_split[s]} for s in by_split}
    assert not folders["train"] & folders["test"]
    assert [len(folders[s]) for s in splits.SPLITS] == [5, 0, 2]
    # One folder of each class, and no more than that.
    assert {int(name[3]) % 2 for name in folders["test"]} == {0, 1}
    assert "2 of 7 groups (group_by folder) are for testing, with 29%" in how


def test_tags_come_before_groups():
    given = items("train", "test", "train")
    by_split, how = splits.split_items(given, 0.3, NAME, "folder", None)
    assert len(by_split["test"]) == 1
    assert how.endswith("; group_by has no effect on splits that are given")


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
