"""What a model is: the content of `model.json`, which each step takes from there."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from yolov3_tf2.errors import InputError
from yolov3_tf2.names import normalise_name
from yolov3_tf2.network.model import PARTS
from yolov3_tf2.network.variants import VARIANTS, Variant

FILE = "model.json"
# Of models of which the best one is not known, as of weights files.
DEFAULT_SCORE_THRESHOLD = 0.25


@dataclass(frozen=True)
class ModelInfo:
    """The content of `model.json`. A key that is missing there means the default.

    Attributes:
        variant: a `variants.Variant`, with the anchors of the model.
        class_names: list of strings in the order of the class logits.
        size: width and height of the network's input, pixels.
        train_boxes: dict from class name to the number of boxes that the model was
            trained on; None where that is unknown, as for a weights file.
        parts: the parts of the network that are trained, names from `model.PARTS`. The
            others of a backbone file are random.
        score_threshold: the score of the best F1 on the validation images; None if
            unknown.
        max_boxes: number of boxes per image that the model's data needs; None if
            unknown.
        gray_range: the (black, white) values of the 16-bit images that it was trained
            on, which are scaled to 0 and 255; None if there were none.
    """

    variant: Variant
    class_names: list[str]
    size: int
    train_boxes: dict[str, int] | None = None
    parts: tuple[str, ...] = PARTS
    score_threshold: float | None = None
    max_boxes: int | None = None
    gray_range: tuple[int, int] | None = None

    @property
    def shown_threshold(self):
        """The score from which on a person wants to see a box."""
        if self.score_threshold is None:
            return DEFAULT_SCORE_THRESHOLD
        return self.score_threshold


def write_model_info(folder, info):
    """Writes `model.json` into a folder; optional values that are unknown are not."""
    values = {
        "variant": info.variant.name,
        "classes": list(info.class_names),
        "size": int(info.size),
        "anchors": info.variant.anchors,
    }
    if tuple(info.parts) != PARTS:
        values["parts"] = list(info.parts)
    for key in ("train_boxes", "score_threshold", "max_boxes", "gray_range"):
        if getattr(info, key) is not None:
            values[key] = getattr(info, key)
    text = json.dumps(values, ensure_ascii=False, indent=1)
    (Path(folder) / FILE).write_text(text + "\n", encoding="utf-8")


def read_model_info(path):
    """Reads a `model.json`.

    Returns:
        `ModelInfo`.

    Raises:
        InputError: it has missing or wrong values.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        variant, class_names, size = (values[k] for k in ("variant", "classes", "size"))
        _require(isinstance(variant, str), "variant must be a string")
        _require(isinstance(class_names, list), "classes must be a list")
        _require(
            type(size) is int and size >= 32 and not size % 32,
            f"size must be a multiple of 32 pixels, got {size!r}",
        )
        class_names = [normalise_name(str(name)) for name in class_names]
        optional = {
            key: check(values[key], class_names)
            for key, check in _OPTIONAL.items()
            if values.get(key) is not None
        }
        if variant in VARIANTS:
            variant = _with_anchors(VARIANTS[variant], values.get("anchors"))
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: expected JSON with variant, classes and size, got an error: "
            f"{error!r}; was the file written by another program?"
        ) from error
    if isinstance(variant, str):
        raise InputError(
            f"{path}: expected a variant of {', '.join(VARIANTS)}, got {variant!r}; "
            "was the file written by another program?"
        )
    return ModelInfo(variant, class_names, size, **optional)


def _require(condition, message):
    if not condition:
        raise TypeError(message)


def _is_number(value):
    return type(value) in (int, float)


def _with_anchors(variant, anchors):
    """Returns a variant with anchors per scale; with its own for None."""
    if anchors is None:
        return variant
    _require(
        isinstance(anchors, list)
        and [len(scale) for scale in anchors] == [len(s) for s in variant.anchors]
        and all(
            len(anchor) == 2 and all(_is_number(v) and 0 < v < 1e5 for v in anchor)
            for scale in anchors
            for anchor in scale
        ),
        f"anchors must be {len(variant.anchors)} lists of (width, height) above 0",
    )
    scales = tuple(tuple(tuple(anchor) for anchor in scale) for scale in anchors)
    return replace(variant, anchors=scales)


def _check_train_boxes(value, class_names):
    message = "train_boxes must have a number of boxes for each class"
    _require(isinstance(value, dict), message)
    value = {normalise_name(name): count for name, count in value.items()}
    are_counts = all(type(count) is int and count >= 0 for count in value.values())
    _require(value.keys() == set(class_names) and are_counts, message)
    return value


def _check_parts(value, _):
    _require(
        isinstance(value, list) and set(value) <= set(PARTS),
        f"parts must be a list of {', '.join(PARTS)}",
    )
    return tuple(part for part in PARTS if part in value)


def _check_score_threshold(value, _):
    message = "score_threshold must be a number from 0 to 1"
    _require(_is_number(value) and 0 <= value <= 1, message)
    return float(value)


def _check_max_boxes(value, _):
    _require(type(value) is int and value >= 1, "max_boxes must be a number above 0")
    return value


def _check_gray_range(value, _):
    _require(
        isinstance(value, list)
        and [type(each) for each in value] == [int, int]
        and 0 <= value[0] < value[1] < 2**16,
        "gray_range must be two integers, black below white, from 0 to 65535",
    )
    return tuple(value)


_OPTIONAL = {
    "train_boxes": _check_train_boxes,
    "parts": _check_parts,
    "score_threshold": _check_score_threshold,
    "max_boxes": _check_max_boxes,
    "gray_range": _check_gray_range,
}
