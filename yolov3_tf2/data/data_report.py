"""What is wrong with the data of a training run, as far as its boxes and bytes show it.

Each problem is one line that says what to do. Data without these problems has none.
"""

import math

import numpy as np

from yolov3_tf2.boxes import anchors as anchor_fit
from yolov3_tf2.errors import list_first

# The network hardly finds a box with a smaller side, the square root of its area. It
# finds most boxes with a side from which on they are as large as its finest cells.
SMALL_PX = 4
VISIBLE_PX = 8
# From these shares on small boxes matter: of all boxes, and of those of one class.
_SMALL_SHARE, _SMALL_SHARE_OF_CLASS = 0.1, 0.5
# COCO at size 416: 0.99 for yolov3, 0.92 for yolov3-tiny.
_POOR_RECALL = 0.9
_FEW_BOXES = 10
_LARGEST_SIZE = 4096
# Enough boxes to know the share that fits an anchor to a percent.
_SAMPLE = 100_000
_PERCENTILES = (5, 25, 50, 75, 95)
_KINDS = {"train": "training", "validation": "validation", "test": "test"}


def find_problems(splits, class_names, size, *, size_name=None, anchors=None):
    """Returns the problems of data sets as a list of lines, most of them of `train`.

    Args:
        splits: dict from `train`, `test` and, where there are such images,
            `validation` to `contents.Contents`.
        class_names: list of strings.
        size: side of the network's input, pixels.
        size_name: how the lines call that size.
        anchors: per output scale, the (width, height) of each anchor in pixels; None
            where the network is not known yet.
    """
    train = splits["train"]
    lines = []
    if len(train.labels):
        lines += _find_small_boxes(
            train, class_names, size, size_name or f"size {size}"
        )
        # A line on small boxes advises another size, which other boxes fit.
        if anchors and not lines:
            lines += _find_poor_anchors(train, size, anchors)
    else:
        lines.append(
            "no training image has a box: there is nothing to learn; put images with "
            "objects into the split train"
        )
    lines += _find_rare_classes(splits, class_names)
    lines += _find_copies(splits)
    return lines


def describe_contents(splits, class_names):
    """Returns counts and box sizes of each split, as `data.json` has them.

    Box sizes are percentiles of the sides of the boxes, the square root of their area,
    as a fraction of the longer side of their image.
    """
    return {
        split: {
            "images": len(contents.hashes),
            "boxes": contents.count_boxes(class_names),
            "max_boxes": contents.max_boxes,
            "box_sides": {
                str(percentile): round(float(side), 5)
                for percentile, side in zip(
                    _PERCENTILES,
                    np.percentile(contents.sides, _PERCENTILES),
                    strict=True,
                )
            }
            if len(contents.labels)
            else {},
        }
        for split, contents in splits.items()
    }


def _find_small_boxes(train, class_names, size, size_name):
    """Yields a line if many boxes, or most of a class, are too small to be found."""
    sides = train.sides * size
    is_small = sides < SMALL_PX
    subject = f"{is_small.mean():.0%} of the training boxes are"
    if is_small.mean() < _SMALL_SHARE:
        counts = np.bincount(train.labels, minlength=len(class_names))
        small = np.bincount(train.labels[is_small], minlength=len(class_names))
        of_class = np.flatnonzero(
            (counts >= _FEW_BOXES) & (small >= _SMALL_SHARE_OF_CLASS * counts)
        )
        if not len(of_class):
            return
        names = list_first([class_names[label] for label in of_class], ", ")
        subject = f"most training boxes of {names} are"
        sides = sides[np.isin(train.labels, of_class)]
    # Nine of ten boxes are visible when they are this many times larger.
    factor = VISIBLE_PX / max(np.quantile(sides, 0.1), 1e-3)
    parts, cells = (math.ceil(n - 0.01) for n in (factor, factor * size / 32))
    better = 32 * cells
    advice = f"cut the images into tiles of 1/{parts} of their longer side"
    if better <= _LARGEST_SIZE:
        advice = f"train with size {better}, or {advice}"
    yield (
        f"{subject} under {SMALL_PX} pixels at {size_name} (median "
        f"{np.median(sides):.1f}): the network hardly finds them; {advice}"
    )


def _find_poor_anchors(train, size, anchors):
    """Yields a line if the anchors do not fit the boxes that are large enough."""
    anchors = np.array([anchor for scale in anchors for anchor in scale], "float32")
    sizes = train.sizes[train.sides * size >= SMALL_PX]
    sizes = sizes[:: -(-len(sizes) // _SAMPLE) or 1]
    if not len(sizes):
        return
    recall = anchor_fit.best_possible_recall(sizes * size, anchors)
    if recall >= _POOR_RECALL:
        return
    others = sorted(range(160, 1281, 32), key=lambda other: abs(other - size))
    recalls = ((s, anchor_fit.best_possible_recall(sizes * s, anchors)) for s in others)
    better = next((pair for pair in recalls if pair[1] >= _POOR_RECALL), None)
    fit = float(np.max(anchor_fit.shape_iou(sizes * size, anchors), axis=-1).mean())
    yield (
        f"the anchors fit {recall:.0%} of the training boxes at size {size} (best "
        f"possible recall; mean best IoU {fit:.2f}): the others are over "
        f"{anchor_fit.FITTING_RATIO:.0f} times wider, narrower, higher or lower than "
        "every anchor; "
        + (
            f"train with size {better[0]}, where they fit {better[1]:.0%}"
            if better
            else "start from weights with anchors for them (input cfg of weights)"
        )
    )


def _find_rare_classes(splits, class_names):
    """Yields a line for classes with few boxes, and each split without some class."""
    counts = {
        split: np.bincount(contents.labels, minlength=len(class_names))
        for split, contents in splits.items()
    }
    train, total = counts["train"], sum(counts.values())
    few = np.flatnonzero((train < _FEW_BOXES) & ((train > 0) | (total == 0)))
    if len(few) and total.any():
        names = list_first(
            [f"{class_names[label]} ({train[label]})" for label in few], ", "
        )
        yield (
            f"classes with fewer than {_FEW_BOXES} training boxes: {names}; label more "
            "objects of them, or remove the classes"
        )
    for split, of_split in counts.items():
        kind = _KINDS[split]
        missing = np.flatnonzero((of_split == 0) & (total > 0))
        if not of_split.any():
            if split != "train":
                yield (
                    f"no {kind} image has a box: AP cannot be measured on them; put "
                    f"images with objects into the split {split}"
                )
        elif len(missing):
            names = list_first([class_names[label] for label in missing], ", ")
            effect = (
                "the network cannot learn them"
                if split == "train"
                else "their AP cannot be measured there"
            )
            yield (
                f"classes without a box in the {kind} images: {names}: {effect}; put "
                f"some images of them into the split {split}"
            )


def _find_copies(splits):
    """Yields a line for each two splits with equal images."""
    for first, second in (
        ("train", "validation"),
        ("train", "test"),
        ("validation", "test"),
    ):
        if first not in splits or second not in splits:
            continue
        copies = np.flatnonzero(np.isin(splits[second].hashes, splits[first].hashes))
        if not len(copies):
            continue
        copied = splits[second].hashes[copies[0]]
        original = np.flatnonzero(splits[first].hashes == copied)[0]
        names = splits[first].source_ids[original], splits[second].source_ids[copies[0]]
        yield (
            f"{len(copies)} of {len(splits[second].hashes)} {_KINDS[second]} images "
            f"are also {_KINDS[first]} images, byte for byte (such as "
            f"{' and '.join(sorted(set(names)))}): AP will be too high; remove the "
            "copies, or put them into the same split"
        )
