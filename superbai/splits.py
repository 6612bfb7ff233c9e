"""Splits labelled images into those for training, for validation and for testing."""

import hashlib
from typing import NamedTuple

from superbai import groups
from superbai.summary import format_number
from yolov3_tf2.errors import InputError

SPLITS = ("train", "validation", "test")
SPLIT_OF_TAG = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
}


class SplitSource(NamedTuple):
    """Where the tags of items come from, in the words of messages.

    Attributes:
        method: how they split, a sentence.
        without: that there are none, a sentence.
        belongs: the verb between an image and its tags.
        advice: what helps if a split has no images, with `{split}` for its name.
    """

    method: str
    without: str
    belongs: str
    advice: str


SPLIT_BY_TAGS = SplitSource(
    method="split by the tags of the images",
    without="no image is tagged 'train', 'validation' or 'test'",
    belongs="has the tags",
    advice="tag some '{split}' in the Suite, or remove all tags 'train', 'validation' "
    "and 'test'",
)


def split_items(
    items,
    test_fraction,
    name,
    group_by="",
    count_boxes=None,
    source=SPLIT_BY_TAGS,
):
    """Splits items by their tags, or by a hash of their names.

    If any image has a tag `train`, `validation` (or `valid`, `val`) or `test`, the tags
    decide, and images without such a tag are for training. If none is for testing,
    those for validation are: other steps need images for testing.

    Without such tags, a hash of their names selects `test_fraction` of the images, the
    same ones in every run; see `groups.choose_groups` for images that are to stay
    together.

    Args:
        items: list of `export.Item`.
        test_fraction: share for testing where there are no tags, 0 to 1.
        name: what to call the labels in an error.
        group_by: which images stay together, see `groups.find_groups`; empty for none.
        count_boxes: a function from an item to a Counter of its labels, by which the
            groups are balanced.
        source: the `SplitSource` of the tags.

    Returns:
        A dict of lists, by `SPLITS`, each in the order of `items`, of which that for
        validation may be empty; and a sentence on how they were split.

    Raises:
        InputError: an image has tags of several splits, or there is none for training
            or for testing; or `group_by` does not fit the names.
    """
    if len(items) == 1:
        raise InputError(
            f"{name}: {items[0].source_id} is the only usable image; expected at least "
            "one for training and one for testing."
        )
    tagged = [_tagged_split(item, name, source) for item in items]
    if any(tagged):
        split_of_items, method = _split_by_tags(tagged, group_by, source)
    elif group_by:
        is_test, method = groups.choose_test_items(
            items, test_fraction, group_by, count_boxes
        )
    else:
        is_test = _choose_by_hash(items, test_fraction)
        method = (
            f"{test_fraction:.0%} of the images are for testing, selected by a hash of "
            "their names"
        )
    if not any(tagged):
        method = f"{source.without}: {method}"
        split_of_items = ["test" if each else "train" for each in is_test]
    by_split = {split: [] for split in SPLITS}
    for item, split in zip(items, split_of_items, strict=True):
        by_split[split].append(item)
    for split in ("train", "test"):
        if not by_split[split]:
            raise InputError(
                f"{name}: no images left for {split} (of {len(items)}, {method}); "
                f"{source.advice.format(split=split)}."
            )
    return by_split, method


def join_splits(splits_of, where, name, notes):
    """Makes one of the splits that have the same images.

    It is that for training if that is among them, else that for testing.

    Args:
        splits_of: dict from each image to the set of its splits.
        where: what to call the source of the splits in an error.
        name: a function from an image to what to call it there.
        notes: `Notes` to add to.

    Returns:
        A dict from each image to the set of its split, empty where it has none.

    Raises:
        InputError: two splits share some images and not all.
    """
    kinds, chosen = dict.fromkeys(map(frozenset, splits_of.values())), {}
    for kind in kinds:
        chosen[kind] = set(kind)
        if len(kind) < 2:
            continue
        names = [split for split in SPLITS if split in kind]
        if any(other & kind for other in kinds if other != kind):
            images = [image for image, each in splits_of.items() if each == kind]
            raise InputError(
                f"{where}: expected each image in one split, got "
                f"{format_number(len(images), 'images')} in {' and '.join(names)}, "
                f"e.g. {name(images[0])}; name each image once."
            )
        chosen[kind] = {"train" if "train" in kind else "test"}
        notes.assumed[
            f"{' and '.join(names)} name the same images: taken as one split, "
            f"{min(chosen[kind])}"
        ] += 1
    return {image: chosen[frozenset(each)] for image, each in splits_of.items()}


def _tagged_split(item, name, source):
    """Returns the split that the tags of an item name; None without such a tag."""
    splits = {SPLIT_OF_TAG[tag] for tag in item.tags & SPLIT_OF_TAG.keys()}
    if len(splits) > 1:
        raise InputError(
            f"{name}: {item.meta_name}: {item.source_id} {source.belongs} "
            f"{', '.join(sorted(item.tags))}; keep one of "
            f"{', '.join(repr(split) for split in SPLITS if split in splits)}."
        )
    return splits.pop() if splits else None


def _split_by_tags(tagged, group_by, source):
    """Returns the split of each item, and a sentence on it; see `split_items`."""
    split_of_items = [split or "train" for split in tagged]
    method = source.method
    if "test" not in split_of_items and "validation" in split_of_items:
        split_of_items = [
            "test" if split == "validation" else split for split in split_of_items
        ]
        method += (
            "; no image is for testing, so those for validation are: "
            "the best epoch is chosen on the images whose AP is reported"
        )
    if group_by:
        method += "; group_by has no effect on splits that are given"
    return split_of_items, method


def _choose_by_hash(items, test_fraction):
    """Returns for each item whether it is for testing."""
    hashes = [hashlib.sha256(i.source_id.encode()).digest() for i in items]
    num_test = max(1, min(round(test_fraction * len(items)), len(items) - 1))
    chosen = set(sorted(range(len(items)), key=hashes.__getitem__)[:num_test])
    return [index in chosen for index in range(len(items))]
