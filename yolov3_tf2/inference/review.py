"""What to label next: pictures in the order of how much a person's look would teach.

A picture's score is the sum of four parts, each the lessons of one kind that it holds.
A lesson is worth 0 to 1; `s` is a box's score, the probability that it is right:

    uncertainty  1 - |2 s - 1| for each box: twice the probability that the nearer of
                 yes and no is wrong (least confident, section 3.1.1 of Settles, Active
                 Learning Literature Survey, 2009)
    rarity       s (1 - 1 / r) for each box: how probably it is an example of a class
                 that training has few of; r is the class's repeat factor (see `rarity`)
    conflict     the lower s of two boxes of different classes with an IoU over 0.5:
                 however sure of both, at most one is right
    missed       (1 - 2 s) / 2 once, with the highest s of the picture; 0 from 0.5 on

Uncertain boxes are those around a score of a half. So boxes under the threshold of what
is drawn count too, down to `FLOOR`; below it there is little but noise.

The lessons of a kind add up to the best, half of the second, a quarter of the third and
so on: to less than twice the best, so that a crowd of easy boxes is not worth more than
one hard one, while of two hard pictures the one with more to teach leads. (Their sum is
what Brust, Käding and Denzler, Active Learning for Deep Object Detection, 2019, found
to teach most a picture; labelling a crowd also takes most work. Discounts by rank are
those of Moffat and Zobel, Rank-Biased Precision, 2008.)

A picture in which nothing is found is worth 0.5: an object that was missed teaches as
much as any doubtful box, 1, and whether there is one is as open as a coin's fall. Such
pictures stand behind those with a real doubt, and before those with none.

A picture's score depends on no other picture.
"""

import csv
from typing import NamedTuple

import numpy as np

from yolov3_tf2.boxes import geometry

FLOOR = 0.1
CONFLICT_IOU = 0.5
# Nothing found: the value of an object that was missed, times the odds of one.
MISSED = 0.5
DISCOUNT = 0.5
# What a part is worth for the reason to speak of it: a box of a score of 0.15 or 0.85.
NAMED = 0.3


class Row(NamedTuple):
    """A picture and what it would teach, a line of the file without its rank.

    Attributes:
        file_name: the picture's name.
        score: the sum of the four parts after it, which are rounded.
        uncertainty, rarity, conflict, missed: see the module.
        boxes: number of boxes that were drawn.
        reason: the parts that are worth naming, the best first, in words.
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
    """Rates how rare each class is in training, from 0 to nearly 1.

    A class with the mean number of boxes or more has 0, one with a quarter of them 0.5,
    one without any nearly 1. It is 1 - 1 / r of the repeat factor
    r = max(1, sqrt(t / f)), by which Gupta, Dollar and Girshick (LVIS, 2019,
    https://arxiv.org/abs/1908.03195) show a class of frequency f more often; t is here
    the mean of all classes, and one box is added to each, so that classes without any
    are no exception.

    Args:
        class_names: list of strings.
        train_boxes: number of boxes of each class by its name; None where it is not
            known, and no class is rare then.

    Returns:
        `[classes]` float64.
    """
    if train_boxes is None:
        return np.zeros(len(class_names))
    numbers = np.array([train_boxes[name] for name in class_names], "float64") + 1
    return 1 - np.sqrt(np.minimum(1, numbers / numbers.mean()))


def rate_images(pictures, class_names, rarities):
    """Rates what a look at each of some pictures would teach.

    Args:
        pictures: list of triples: the picture's name; its `detector.Detections` down to
            a score of `FLOOR`, what is below is not looked at; the number of boxes that
            are drawn.
        class_names: list of strings.
        rarities: the result of `rarity`.

    Returns:
        A list of `Row`.
    """
    kept = [_over_floor(found) for _, found, _ in pictures]
    conflicts = _conflicts([boxes for boxes, _, _ in kept], [x for _, _, x in kept])
    return [
        _rate_image(name, scores, labels, pairs, drawn, class_names, rarities)
        for (name, _, drawn), (_, scores, labels), pairs in zip(
            pictures, kept, conflicts, strict=True
        )
    ]


def rank_rows(rows):
    """Returns a list of `Row`, the highest score first; ties are by name."""
    return sorted(rows, key=lambda row: (-row.score, row))


def write_csv(path, ranked):
    """Writes the result of `rank` as CSV, UTF-8 with a header."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["rank", *Row._fields])
        for number, row in enumerate(ranked, start=1):
            texts = [f"{v:.4f}" if isinstance(v, float) else v for v in row]
            writer.writerow([number, *texts])


def _over_floor(found):
    """Boxes `[boxes, 4]`, scores `[boxes]` float64 and labels `[boxes]` to look at."""
    kept = found.scores > np.float32(FLOOR)  # As TensorFlow compares them.
    return (
        found.boxes_px[kept],
        found.scores[kept].astype("float64"),
        found.labels[kept],
    )


def _conflicts(boxes, labels):
    """Pairs of boxes that lie over each other and are of different classes.

    The IoU of all pictures is computed at once: its calls take longer than its sums.

    Args:
        boxes: of each picture `[boxes, 4]` xyxy.
        labels: of each picture `[boxes]` class indices.

    Returns:
        Of each picture `[pairs, 2]` indices.
    """
    pairs = [np.argwhere(np.triu(x[:, None] != x)) for x in labels]
    both = [boxes[pairs.T] for boxes, pairs in zip(boxes, pairs, strict=True)]
    both = np.concatenate([np.zeros((2, 0, 4), "float32"), *both], axis=1)
    if not both.size:
        return pairs
    is_conflict = np.asarray(geometry.iou(*both)) > CONFLICT_IOU
    ends = np.cumsum([len(x) for x in pairs])[:-1]
    parts = zip(pairs, np.split(is_conflict, ends), strict=True)
    return [pairs[part] for pairs, part in parts]


def _rate_image(file_name, scores, labels, pairs, drawn, class_names, rarities):
    """The `Row` of one picture, of its boxes over the floor and pairs in conflict."""
    best = scores.max(initial=0)
    lessons = {
        "uncertainty": 1 - np.abs(2 * scores - 1),
        "rarity": scores * rarities[labels],
        "conflict": scores[pairs].min(axis=-1),
        "missed": np.array([MISSED * max(0, 1 - 2 * best)]),
    }
    parts = {name: _add(values) for name, values in lessons.items()}

    def describe(name):
        if name == "missed":
            return f"nothing found over {best:.2f}" if best else "nothing found"
        if name == "conflict":
            lead, shown = "two classes for one object", pairs[lessons[name].argmax()]
        else:
            lead = {"uncertainty": "unsure", "rarity": "rare in training"}[name]
            shown = np.argsort(-lessons[name], kind="stable")[:2]
            shown = shown[lessons[name][shown] >= NAMED]
        boxes = [f"{class_names[labels[i]]} {scores[i]:.2f}" for i in shown]
        return f"{lead}: {', '.join(boxes)}"

    named = [name for name in lessons if lessons[name].max(initial=0) >= NAMED]
    named.sort(key=parts.get, reverse=True)
    reason = "; ".join(map(describe, named)) or "sure of what it found"
    score = round(sum(parts.values()), 4)
    return Row(file_name, score, **parts, boxes=drawn, reason=reason)


def _add(lessons):
    """The sum of `[lessons]` values, each next lower one by half."""
    ordered = np.sort(lessons)[::-1]
    return round(float(ordered @ DISCOUNT ** np.arange(len(ordered))), 4)
