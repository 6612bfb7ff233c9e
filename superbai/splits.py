"""Splits labelled pictures into those for training and those for testing."""

import hashlib
from itertools import compress
from operator import not_

from yolov3_tf2.errors import InputError
from yolov3_tf2.files.packed_list import PackedList

TRAIN_TAGS = {"train"}
TEST_TAGS = {"test", "validation", "valid", "val"}


def split_items(items, test_fraction, name):
    """Splits items into training and test by their tags, or by their names.

    Where a picture carries a tag `test`, `validation` or `train`, the tags decide, and
    a picture without one is for training. Where none does, `test_fraction` of them
    are taken by a hash of their names: the same ones in every run.

    Args:
        items: sequence of `export.Item`.
        test_fraction: the share for testing where no tag decides, 0 to 1.
        name: what to call the labels in an error.

    Returns:
        A dict of `PackedList`: `train` and `test`, in the order of `items`; and a
        sentence on how they were split.

    Raises:
        InputError: a picture has tags of both, or a split is left empty.
    """
    in_test, are_tagged = bytearray(), False
    for item in items:
        if item.tags & TEST_TAGS and item.tags & TRAIN_TAGS:
            raise InputError(
                f"{name}: {item.meta_name}: {item.source_id} has the tags "
                f"{', '.join(sorted(item.tags))}; keep either 'train' or 'test'."
            )
        in_test.append(bool(item.tags & TEST_TAGS))
        are_tagged |= bool(item.tags & (TRAIN_TAGS | TEST_TAGS))
    how = "split by the tags of the pictures"
    if not are_tagged:
        hashes = [hashlib.sha256(i.source_id.encode()).digest() for i in items]
        number = max(1, min(round(test_fraction * len(items)), len(items) - 1))
        for index in sorted(range(len(items)), key=hashes.__getitem__)[:number]:
            in_test[index] = True
        how = (
            f"no picture is tagged 'train' or 'test': {test_fraction:.0%} taken for "
            "testing by a hash of their names"
        )
    splits = {
        "train": PackedList(compress(items, map(not_, in_test))),
        "test": PackedList(compress(items, in_test)),
    }
    if len(items) == 1:
        raise InputError(
            f"{name}: {items[0].source_id} is the only picture that can be used; "
            "expected one for training and one for testing at least."
        )
    for split, members in splits.items():
        if not members:
            raise InputError(
                f"{name}: no pictures left for {split} (of {len(items)}, {how}); tag "
                f"some '{split}' in the Suite, or remove all 'train' and 'test' tags."
            )
    return splits, how
