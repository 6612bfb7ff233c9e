"""Reads COCO annotations: one JSON file of many images, as `detections.json` is.

Every number, id and name that a box needs is checked, and every reference to a
category. What no box uses is no reason to refuse a file: a category with the name or
the id of another one, or annotations of images that the file does not list.
"""

import math
from collections import Counter

from yolov3_tf2.errors import InputError, collecting, raise_collected
from yolov3_tf2.files import json_values
from yolov3_tf2.files.annotated_image import (
    AnnotatedImage,
    Box,
    ImageNameError,
    fit_box,
    image_name,
    image_size,
)
from yolov3_tf2.files.json_values import expect

WITHOUT_BBOX = "segmentations without a bbox"
_KEYS = ("images", "categories", "annotations")
_FORMAT = (
    "a COCO file with the lists 'images' (id, file_name, width, height), 'categories' "
    "(id, name) and 'annotations' (image_id, category_id, bbox)"
)


def read_coco(content, where, report, bad_names=None):
    """Returns a list of `AnnotatedImage` in the order of `images`.

    Args:
        content: the bytes of the file.
        where: what to call the file in an error.
        report: Counter of what was changed or left out, which is added to.
        bad_names: dict that gets the images whose names cannot be used, and the
            reasons; they are left out. If None, such a name is an error.

    Raises:
        InputError: the file is damaged, not COCO, or contradicts itself. The first ten
            annotations that cannot be used are named.
    """
    coco = load_coco(content, where)
    return read_images(coco, where, report, bad_names=bad_names)


def is_coco(value):
    """Returns whether a parsed JSON has the three lists of a COCO file."""
    return isinstance(value, dict) and all(
        isinstance(value.get(key), list) for key in _KEYS
    )


def load_coco(content, where):
    """Returns the parsed JSON of a COCO file, see `parse_coco`.

    Raises:
        InputError: it is damaged or not COCO.
    """
    coco = parse_coco(content, where)
    if isinstance(coco, list):
        raise InputError(
            f"{where}: expected {_FORMAT}, got a list, as COCO results are, which need "
            "the images and categories too; give the whole detections.json."
        )
    missing = [key for key in _KEYS if key not in coco]
    if missing:
        raise InputError(
            f"{where}: expected {_FORMAT}, got no {', no '.join(missing)}; is it "
            "another kind of JSON?"
        )
    return coco


def parse_coco(content, where):
    """Parses a JSON; of a segmentation with a bbox, only whether there is one remains.

    The polygons of COCO's train2017 take 2 GB as lists of numbers.
    """
    return json_values.parse_json(content, where, object_hook=_without_outline)


def _without_outline(thing):
    if thing.get("bbox") and "segmentation" in thing:
        thing["segmentation"] = bool(thing["segmentation"])
    return thing


def read_images(coco, where, report, *, fit=fit_box, unusable=None, bad_names=None):
    """Returns a list of `AnnotatedImage` in the order of `images`.

    Args:
        coco: the result of `load_coco`.
        where: what to call the file in an error.
        report: Counter of what was changed or left out, which is added to.
        fit: what makes a box valid, with the arguments and the result of `fit_box`.
        unusable: dict to which the message on an annotation that cannot be used is
            added, by the name of its image; None to raise them.
        bad_names: see `read_coco`.

    Raises:
        InputError: the file contradicts itself. The first ten annotations that cannot
            be used are named.
    """
    unnamed = {}
    images = _read_images(coco, where, None if bad_names is None else unnamed)
    class_names = _ClassNames(coco, where)
    boxes = {image_id: [] for image_id in images}
    annotations = _objects(coco, "annotations", where)
    errors, unlisted = [], []
    for number, annotation in enumerate(annotations, start=1):
        annotation_id = annotation.get("id", f"number {number}")
        place = f"{where}: annotation {annotation_id!s:.60}"
        image_id = annotation.get("image_id")
        if json_values.is_integer(image_id) and image_id not in images:
            unlisted.append((annotation, place))
            continue
        found = []
        with collecting(found):
            box = _read_box(annotation, images, class_names, place, report, fit)
            if box:
                boxes[image_id].append(box)
        if unusable is not None and json_values.is_integer(image_id):
            for message in found:
                unusable.setdefault(images[image_id].name, message)
        else:
            errors += found
    if unlisted and len(unlisted) == len(annotations):
        annotation, place = unlisted[0]
        _reference(annotation, "image_id", images, place)
    raise_collected(errors, f"{where}: of its annotations")
    class_names.check_used()
    # Of another part of a data set, whose file lists its images.
    report += Counter({"annotations of images that are not listed": len(unlisted)})
    if unnamed:
        bad_names |= {images[image_id].where: unnamed[image_id] for image_id in unnamed}
    return [
        image._replace(boxes=tuple(boxes[image_id]))
        for image_id, image in images.items()
        if image_id not in unnamed
    ]


def _read_images(coco, where, unnamed):
    """Returns a dict from image id to `AnnotatedImage` without boxes.

    `unnamed` gets the reasons why names cannot be used, by image id; see `read_coco`.
    """
    images = {}
    for number, image in enumerate(_objects(coco, "images", where), start=1):
        place = f"{where}: images number {number}"
        image_id = _read_id(image, place)
        expect(image_id not in images, "a unique id", image_id, f"{place}: id")
        place = f"{where}: image {image_id}"
        # null means unknown, as 0 does.
        sides = (0 if (v := image.get(k)) is None else v for k in ("width", "height"))
        sides = [json_values.as_number(side, f"{place}: size") for side in sides]
        name = ""
        try:
            name = image_name(image.get("file_name"), f"{place}: file_name")
        except ImageNameError as error:
            if unnamed is None:
                raise
            unnamed[image_id] = str(error)
        images[image_id] = AnnotatedImage(name, image_size(sides, place), (), place)
    return images


class _ClassNames:
    """The class names of the categories, of which only the used ones are checked."""

    def __init__(self, coco, where):
        self._where, self._names, self._repeated = where, {}, {}
        for number, category in enumerate(_objects(coco, "categories", where), start=1):
            category_id = _read_id(category, f"{where}: categories number {number}")
            if category_id in self._names:
                self._repeated[category_id] = number
            self._names.setdefault(category_id, category.get("name"))
        self._used = {}  # From id to the normalised name.

    def of(self, annotation, place):
        """Returns the class name of an annotation."""
        category_id = _reference(annotation, "category_id", self._names, place)
        if category_id not in self._used:
            number = self._repeated.get(category_id)
            where = f"{self._where}: categories number {number}: id"
            expect(number is None, "a unique id", category_id, where)
            where = f"{self._where}: category {category_id}: name"
            name = json_values.as_name(self._names[category_id], where)
            self._used[category_id] = name
        return self._used[category_id]

    def check_used(self):
        """Raises an `InputError` if two used categories have the same name."""
        seen = set()
        for category_id in filter(self._used.get, self._names):
            place = f"{self._where}: category {category_id}: name"
            name = self._used[category_id]
            expected = "a name that no other used category has, in any Unicode form"
            expect(name not in seen, expected, name, place)
            seen.add(name)


def _read_box(annotation, images, class_names, place, report, fit):
    """Returns the `Box` of an annotation; None, and counts why, where it has none."""
    image_id = _reference(annotation, "image_id", images, place)
    reason = _reason_without_box(annotation, place)
    if reason:
        report[reason] += 1
        return None
    class_name = class_names.of(annotation, place)
    score = _score(annotation.get("score"), f"{place}: score")
    xyxy = _bbox_to_xyxy(annotation.get("bbox"), f"{place}: bbox")
    xyxy = fit(xyxy, images[image_id].size, report)
    return Box(class_name, xyxy, score) if xyxy else None


def _objects(coco, key, where):
    return json_values.as_dicts(coco[key], f"{where}: {key}", "number")


def _read_id(thing, place):
    thing_id = thing.get("id")
    expect(json_values.is_integer(thing_id), "an integer", thing_id, f"{place}: id")
    return thing_id


def _reference(annotation, key, by_id, place):
    """Returns the id of an image or a category that an annotation refers to."""
    value = annotation.get(key)
    if not json_values.is_integer(value) or value not in by_id:
        listed = ", ".join(map(str, list(by_id)[:10])) + ", …" * (len(by_id) > 10)
        raise InputError(
            f"{place}: {key}: expected one that the file lists ({listed or 'none'}), "
            f"got {value!r:.60}; does it belong to another file?"
        )
    return value


def _reason_without_box(annotation, place):
    """Returns why an annotation has no box of one object, None if it has one."""
    crowd = annotation.get("iscrowd")
    expect(crowd in (None, 0, 1), "0 or 1", crowd, f"{place}: iscrowd")
    if crowd:
        return "crowd regions"
    if annotation.get("bbox") in (None, []) and annotation.get("segmentation"):
        return WITHOUT_BBOX
    return None


def _bbox_to_xyxy(bbox, place):
    """Returns the corners of a COCO bbox: left, top, width, height."""
    expected = "left, top, width and height in pixels, four finite numbers"
    is_bbox = isinstance(bbox, list) and len(bbox) == 4
    expect(is_bbox and all(map(json_values.is_number, bbox)), expected, bbox, place)
    left, top, width, height = map(float, bbox)
    xyxy = (left, top, left + width, top + height)
    expect(all(map(math.isfinite, xyxy)), expected, bbox, place)
    return xyxy


def _score(value, place):
    if value is None:
        return None
    score = json_values.as_number(value, place)
    expect(0 <= score <= 1, "0 to 1", value, place)
    return score
