"""Splits labelled images into those for training and those for testing."""

import hashlib

from yolov3_tf2.errors import InputError

TRAIN_TAGS = {"train"}
TEST_TAGS = {"test", "validation", "valid", "val"}


def split_items(items, test_fraction, name):
    """Splits items into training and test by their tags, or by a hash of their names.

    If any image has a tag `test`, `validation` or `train`, the tags decide, and images
    without such a tag are for training. Otherwise a hash of their names selects
    `test_fraction` of the images: the same ones in every run.

    Args:
        items: list of `export.Item`.
        test_fraction: share for testing where there are no tags, 0 to 1.
        name: what to call the labels in an error.

    Returns:
        A dict of lists, `train` and `test`, in the order of `items`; and a sentence on
        how they were split.

    Raises:
        InputError: an image has tags of both splits, or a split is empty.
    """
    is_test, are_tagged = [], False
    for item in items:
        if item.tags & TEST_TAGS and item.tags & TRAIN_TAGS:
            raise InputError(
                f"{name}: {item.meta_name}: {item.source_id} has the tags "
                f"{', '.join(sorted(item.tags))}; keep either 'train' or 'test'."
            )
        is_test.append(bool(item.tags & TEST_TAGS))
        are_tagged |= bool(item.tags & (TRAIN_TAGS | TEST_TAGS))
    method = "split by the tags of the images"
    if not are_tagged:
        hashes = [hashlib.sha256(i.source_id.encode()).digest() for i in items]
        num_test = max(1, min(round(test_fraction * len(items)), len(items) - 1))
        for index in sorted(range(len(items)), key=hashes.__getitem__)[:num_test]:
            is_test[index] = True
        method = (
            f"no image is tagged 'train' or 'test': {test_fraction:.0%} of the images "
            "are for testing, selected by a hash of their names"
        )
    if len(items) == 1:
        raise InputError(
            f"{name}: {items[0].source_id} is the only usable image; expected at least "
            "one for training and one for testing."
        )
    by_split = {"train": [], "test": []}
    for item, for_test in zip(items, is_test, strict=True):
        by_split["test" if for_test else "train"].append(item)
    for split, members in by_split.items():
        if not members:
            raise InputError(
                f"{name}: no images left for {split} (of {len(items)}, {method}); tag "
                f"some '{split}' in the Suite, or remove all 'train' and 'test' tags."
            )
    return by_split, method
