"""Ranks images by how much labelling them should help training.

    score = uncertainty + rarity + conflict + missed

The first three add up a value of each box or pair of boxes, the largest value first,
each weighted half as much as the one before: v1 + v2 / 2 + v3 / 4 + ... The values,
where s is the score of a box:

    uncertainty   1 - |2 s - 1|           each box
    rarity        s (1 - 1 / r)           each box; r is the repeat factor of its class
    conflict      min(s1, s2)             each pair of boxes of different classes with
                                          an IoU above 0.5
    missed        0.5 max(0, 1 - 2 s)     once; s is the highest score of the image, 0
                                          without boxes

`docs/review.md` has the reasons and sources.
"""

import csv
from typing import NamedTuple

import numpy as np

from yolov3_tf2.boxes import geometry

MIN_SCORE = 0.1  # Boxes of a lower score are mostly noise, and do not count.
CONFLICT_IOU = 0.5
MISSED = 0.5
DISCOUNT = 0.5
# Values from here on are named in the reason; a box is named as uncertain if its score
# is 0.15 to 0.85.
MIN_NAMED = 0.3


class Row(NamedTuple):
    """An image and how much labelling it should help; a row of the CSV without rank.

    Attributes:
        file_name: name of the image.
        score: sum of the four parts that follow, rounded to 4 digits like them.
        uncertainty, rarity, conflict, missed: see the module.
        boxes: number of boxes that are drawn.
        reason: the largest values in words, the largest part first.
    """

    file_name: str
    score: float
    uncertainty: float
    rarity: float
    conflict: float
    missed: float
    boxes: int
    reason: str


def class_rarity(class_names, train_boxes):
    """Returns how rare each class is in the training data, 1 - 1 / r.

    r = max(1, sqrt(mean / n)) is the repeat factor of a class with n boxes, where mean
    is that of all classes. One box is added to each class, so that n is never 0.

    Args:
        class_names: list of strings.
        train_boxes: dict from class name to number of boxes; None if unknown, which
            makes no class rare.

    Returns:
        `[classes]` float64 in [0, 1).

    Example:
        >>> class_rarity(["car", "book"], {"car": 27, "book": 3}).round(3).tolist()
        [0.0, 0.5]
    """
    if train_boxes is None:
        return np.zeros(len(class_names))
    numbers = np.array([train_boxes[name] for name in class_names], "float64") + 1
    return 1 - np.sqrt(np.minimum(1, numbers / numbers.mean()))


def rate_images(images, class_names, rarities):
    """Rates images, each independently of the others.

    Args:
        images: list of triples: the name of an image; its `detector.Detections`, with
            all boxes of a score above `MIN_SCORE`; the number of boxes that are drawn.
        class_names: list of strings.
        rarities: the result of `class_rarity`.

    Returns:
        A list of `Row`.
    """
    detections = [detected.above(MIN_SCORE) for _, detected, _ in images]
    conflicts = _find_conflicts(detections)
    return [
        _rate_image(name, detected, pairs, num_drawn, class_names, rarities)
        for (name, _, num_drawn), detected, pairs in zip(
            images, detections, conflicts, strict=True
        )
    ]


def rank_rows(rows):
    """Returns a list of `Row` sorted by score, highest first, then by name."""
    return sorted(rows, key=lambda row: (-row.score, row))


def write_csv(path, ranked):
    """Writes the result of `rank_rows` as CSV in UTF-8, with a header."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["rank", *Row._fields])
        for rank, row in enumerate(ranked, start=1):
            texts = [f"{v:.4f}" if isinstance(v, float) else v for v in row]
            writer.writerow([rank, *texts])


def _find_conflicts(detections):
    """Finds pairs of boxes that overlap and have different classes.

    Computes the IoU for all images in one call: a call takes far longer than its
    arithmetic.

    Args:
        detections: list of `detector.Detections`.

    Returns:
        A list with `[pairs, 2]` indices for each image.
    """
    pairs = [np.argwhere(np.triu(x.labels[:, None] != x.labels)) for x in detections]
    both = [x.boxes_px[own.T] for x, own in zip(detections, pairs, strict=True)]
    both = np.concatenate([np.zeros((2, 0, 4), "float32"), *both], axis=1)
    if not both.size:
        return pairs
    is_conflict = np.asarray(geometry.iou(*both)) > CONFLICT_IOU
    ends = np.cumsum([len(own) for own in pairs])[:-1]
    by_image = zip(pairs, np.split(is_conflict, ends), strict=True)
    return [own[is_conflict] for own, is_conflict in by_image]


def _rate_image(file_name, detected, pairs, num_drawn, class_names, rarities):
    """Returns the `Row` of one image.

    Args:
        file_name, num_drawn: see `rate_images`.
        detected: `detector.Detections` above `MIN_SCORE`.
        pairs: `[pairs, 2]` indices of boxes in conflict.
        class_names, rarities: see `rate_images`.
    """
    scores = detected.scores.astype("float64")
    best = scores.max(initial=0)
    values = {
        "uncertainty": 1 - np.abs(2 * scores - 1),
        "rarity": scores * rarities[detected.labels],
        "conflict": scores[pairs].min(axis=-1),
        "missed": np.array([MISSED * max(0, 1 - 2 * best)]),
    }
    parts = {name: _discounted_sum(each) for name, each in values.items()}
    total = round(sum(parts.values()), 4)

    def describe(name):
        if name == "missed":
            return (
                f"nothing found (highest score {best:.2f})" if best else "nothing found"
            )
        if name == "conflict":
            lead, shown = "two classes for one object", pairs[values[name].argmax()]
        else:
            lead = {"uncertainty": "uncertain", "rarity": "rare in training"}[name]
            shown = np.argsort(-values[name], kind="stable")[:2]
            shown = shown[values[name][shown] >= MIN_NAMED]
        boxes = [f"{class_names[detected.labels[i]]} {scores[i]:.2f}" for i in shown]
        return f"{lead}: {', '.join(boxes)}"

    named = [name for name in values if values[name].max(initial=0) >= MIN_NAMED]
    named.sort(key=parts.get, reverse=True)
    reason = "; ".join(map(describe, named)) or "confident in all detections"
    return Row(file_name, total, **parts, boxes=num_drawn, reason=reason)


def _discounted_sum(values):
    """Returns the sum of `[values]`, the largest first, each weighted half the last."""
    ordered = np.sort(values)[::-1]
    return round(float(ordered @ DISCOUNT ** np.arange(len(ordered))), 4)
