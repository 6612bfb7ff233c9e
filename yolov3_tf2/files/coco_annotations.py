"""Reads COCO annotations: one JSON file of many images, as `detections.json` is.

Every number, id and name is checked, and every reference to an image or a category.
"""

import math

from yolov3_tf2.errors import InputError
from yolov3_tf2.files import json_values
from yolov3_tf2.files.annotated_image import (
    AnnotatedImage,
    Box,
    fit_box,
    image_name,
    image_size,
)
from yolov3_tf2.files.json_values import expect

_KEYS = ("images", "categories", "annotations")
_FORMAT = (
    "a COCO file with the lists 'images' (id, file_name, width, height), 'categories' "
    "(id, name) and 'annotations' (image_id, category_id, bbox)"
)


def read_coco(content, where, report):
    """Returns a list of `AnnotatedImage` in the order of `images`.

    Args:
        content: the bytes of the file.
        where: what to call the file in an error.
        report: Counter of what was changed or left out, which is added to.

    Raises:
        InputError: the file is damaged, not COCO, or contradicts itself.
    """
    coco = _load_coco(content, where)
    images = _read_images(coco, where)
    class_names = _read_class_names(coco, where)
    boxes = {image_id: [] for image_id in images}
    for number, annotation in enumerate(_objects(coco, "annotations", where), start=1):
        annotation_id = annotation.get("id", f"number {number}")
        place = f"{where}: annotation {annotation_id!s:.60}"
        image_id = _reference(annotation, "image_id", images, place)
        category_id = _reference(annotation, "category_id", class_names, place)
        reason = _reason_without_box(annotation, place)
        if reason:
            report[reason] += 1
            continue
        score = _score(annotation.get("score"), f"{place}: score")
        xyxy = _bbox_to_xyxy(annotation.get("bbox"), f"{place}: bbox")
        xyxy = fit_box(xyxy, images[image_id].size, report)
        if xyxy:
            boxes[image_id].append(Box(class_names[category_id], xyxy, score))
    return [
        image._replace(boxes=tuple(boxes[image_id]))
        for image_id, image in images.items()
    ]


def _load_coco(content, where):
    coco = json_values.parse_json(content, where)
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


def _read_images(coco, where):
    """Returns a dict from image id to `AnnotatedImage` without boxes."""
    images = {}
    for image_id, image in _by_id(coco, "images", where).items():
        place = f"{where}: image {image_id}"
        # null means unknown, as 0 does.
        sides = (0 if (v := image.get(k)) is None else v for k in ("width", "height"))
        sides = [json_values.as_number(side, f"{place}: size") for side in sides]
        name = image_name(image.get("file_name"), f"{place}: file_name")
        images[image_id] = AnnotatedImage(name, image_size(sides, place), (), place)
    return images


def _read_class_names(coco, where):
    """Returns a dict from category id to class name."""
    names = {}
    for category_id, category in _by_id(coco, "categories", where).items():
        place = f"{where}: category {category_id}: name"
        name = json_values.as_name(category.get("name"), place)
        expected = "a name that no other category has, in whatever Unicode form"
        expect(name not in names.values(), expected, name, place)
        names[category_id] = name
    return names


def _objects(coco, key, where):
    return json_values.as_dicts(coco[key], f"{where}: {key}", "number")


def _by_id(coco, key, where):
    """Returns a list of a COCO file as a dict by `id`."""
    by_id = {}
    for number, thing in enumerate(_objects(coco, key, where), start=1):
        place, thing_id = f"{where}: {key} number {number}: id", thing.get("id")
        expect(json_values.is_integer(thing_id), "an integer", thing_id, place)
        expect(thing_id not in by_id, "a unique id", thing_id, place)
        by_id[thing_id] = thing
    return by_id


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
        return "segmentations without a bbox"
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
