"""Reads the boxes of other tools' annotation files: COCO and Pascal VOC.

COCO is one JSON of many pictures, as `detections.json` is; VOC is one XML a picture.
What a file is, its content tells. Numbers, ids and names are checked one by one, and
the entities of an XML are never expanded.
"""

import codecs
import json
import math
import re
import unicodedata
from collections import Counter
from contextlib import suppress
from pathlib import PurePosixPath
from typing import NamedTuple

from lxml import etree

from yolov3_tf2.errors import InputError
from yolov3_tf2.files import archives
from yolov3_tf2.names import normalise_path

# What has a thinner side is a line: detections.json rounds to three decimals.
MIN_SIDE_PX = 1e-3
# What another way to count pixels explains, and is no mistake.
_CARELESS_PX = 1
# The most bytes by ending; the labels of COCO's own train2017 have 450 MB.
_LIMITS = {".json": 2 * 2**30, ".xml": archives.MAX_ENTRY_BYTES}
_COCO_KEYS = ("images", "categories", "annotations")
_COCO = (
    "a COCO file with the lists 'images' (id, file_name, width, height), 'categories' "
    "(id, name) and 'annotations' (image_id, category_id, bbox)"
)
# Not all that float() reads: neither nan nor 1_000 nor digits of other scripts.
_DECIMAL = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)


class Box(NamedTuple):
    """One object of a picture.

    Attributes:
        class_name: its class, without blanks around it.
        xyxy: left, top, right, bottom; pixels, as the file has them, not rounded.
        score: in [0, 1]; None where the file has none.
    """

    class_name: str
    xyxy: tuple[float, float, float, float]
    score: float | None = None


class AnnotatedImage(NamedTuple):
    """One picture and its objects.

    Attributes:
        name: its file's name or path, see `normalise_path`.
        size: (width, height) in pixels; None where the file does not say it.
        boxes: tuple of `Box` in the file's order; empty where there is nothing.
        where: what to call it in an error.
    """

    name: str
    size: tuple[int, int] | None
    boxes: tuple[Box, ...]
    where: str


def read_annotations(paths, *, voc_first_pixel=1):
    """Reads annotation files, and those in zips and folders.

    Boxes are clipped to their picture where its file says the size; `clip` does it for
    the others. VOC objects that are marked `difficult` are objects as the others are.

    Args:
        paths: list of `pathlib.Path`: COCO JSON and VOC XML files, of any ending, and
            zips and folders of `.json`, `.xml` and other files.
        voc_first_pixel: number of a picture's first column and row in VOC files. They
            count from 1 and include `xmax` and `ymax`: VOC's annotations of version
            1.00 say "Top left pixel co-ordinates : (1, 1)", and the devkit's
            VOCevaldet.m has widths of xmax - xmin + 1. With 0, the numbers are edges,
            as some tools write them.

    Returns:
        A list of `Annotated`, each name once, and a Counter of what was left out,
        changed or not known, by reason.

    Raises:
        InputError: a file is damaged, none of the two, contradicts itself or another
            one, or there is none.
    """
    report, by_name, num_files = Counter(), {}, 0
    for path in paths:
        for where, content in _files(path, report):
            num_files += 1
            if _is_xml(content, where):
                found = [_read_voc(content, where, voc_first_pixel, report)]
            else:
                found = _read_coco(content, where, report)
            for picture in found:
                twin = by_name.setdefault(picture.name, picture)
                if twin is not picture:
                    raise InputError(
                        f"{picture.where} is '{picture.name}', and so is {twin.where}; "
                        "expected each picture once: was a file given twice, or do "
                        "pictures of two folders have one name?"
                    )
    if not num_files:
        raise InputError(
            f"no annotations in {', '.join(map(str, paths)) or 'no files'}; expected "
            "COCO (.json) or Pascal VOC (.xml) files, got "
            f"{report['other files']} others: are these the pictures?"
        )
    return list(by_name.values()), report


def clip_to_image(picture, size, report):
    """Clips the boxes of a picture whose size its file does not say.

    Args:
        picture: an `Annotated`.
        size: (width, height) in pixels; None where it stays unknown. Boxes that reach
            out on the left or above are then left out, as those that are out of the
            picture for certain, and how far is not known.
        report: the Counter of `read`, which is added to.

    Returns:
        An `Annotated` of this size.
    """
    if size is None:
        report["pictures of unknown size, boxes not clipped"] += 1
    boxes = []
    for box in picture.boxes:
        if size is None and min(box.xyxy[:2]) < -_CARELESS_PX:
            report["boxes that reach out of a picture of unknown size"] += 1
            continue
        clipped = _clip(box.xyxy, size or (math.inf, math.inf), report)
        if clipped:
            boxes.append(box._replace(xyxy=clipped))
    return picture._replace(size=size, boxes=tuple(boxes))


def _files(path, report):
    """Yields what to call a file, and its bytes; counts those of other endings."""
    if not archives.is_archive(path):
        yield str(path), path.read_bytes()
        return
    with archives.open_archive(path) as archive:
        for name in archive.files:
            limit = _LIMITS.get(PurePosixPath(name).suffix.lower())
            if limit is None:
                report["other files"] += 1
            else:
                yield f"{archive.name}: {name}", archive.read(name, limit)


def _is_xml(content, where):
    """Tells an XML from a JSON by how it starts."""
    start = content[:1024]
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        start = start.decode("utf-16", "ignore").encode()
    start = start.removeprefix(codecs.BOM_UTF8).lstrip()
    kinds = "a COCO JSON or a Pascal VOC XML"
    _expect(kinds, start[:1] in (b"<", b"{", b"["), content[:16], where)
    return start.startswith(b"<")


def _read_coco(content, where, report):
    """Returns a list of `Annotated`, in the order of `images`."""
    coco = _load_coco(content, where)
    pictures, boxes, names = {}, {}, {}
    for number, image in _by_id(coco, "images", where).items():
        place = f"{where}: image {number}"
        sides = (0 if (v := image.get(k)) is None else v for k in ("width", "height"))
        size = _size([_number(side, f"{place}: size") for side in sides], place)
        name = _picture_name(image.get("file_name"), f"{place}: file_name")
        pictures[number], boxes[number] = AnnotatedImage(name, size, (), place), []
    for number, category in _by_id(coco, "categories", where).items():
        place = f"{where}: category {number}: name"
        name = _text(category.get("name"), place).strip()
        _expect("one that no other has", name not in names.values(), name, place)
        names[number] = name
    for index, annotation in enumerate(_dicts(coco, "annotations", where), start=1):
        place = f"{where}: annotation {annotation.get('id', f'number {index}')!s:.60}"
        image = _reference(annotation, "image_id", pictures, place)
        name = names[_reference(annotation, "category_id", names, place)]
        reason = _reason_without_box(annotation, place)
        if reason:
            report[reason] += 1
            continue
        score = _score(annotation.get("score"), f"{place}: score")
        xyxy = _coco_xyxy(annotation.get("bbox"), f"{place}: bbox")
        clipped = _clip(xyxy, pictures[image].size, report)
        if clipped:
            boxes[image].append(Box(name, clipped, score))
    return [p._replace(boxes=tuple(boxes[number])) for number, p in pictures.items()]


def _load_coco(content, where):
    try:
        coco = json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InputError(
            f"{where}: expected JSON in UTF-8, got byte {content[error.start]:#04x} at "
            f"{error.start:,} ({error.reason}); was it saved in another encoding?"
        ) from error
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{where}: malformed JSON: {error}; is the file cut off?"
        ) from error
    if isinstance(coco, list):
        raise InputError(
            f"{where}: expected {_COCO}, got a list, as COCO results are, which need "
            "the images and categories beside them; give detections.json whole."
        )
    missing = [key for key in _COCO_KEYS if key not in coco]
    if missing:
        raise InputError(
            f"{where}: expected {_COCO}, got none called {' and '.join(missing)}; is "
            "it another kind of JSON?"
        )
    return coco


def _dicts(coco, key, where):
    """Returns a list of a COCO file, whose members are all objects."""
    things = coco[key]
    _expect("a list", isinstance(things, list), things, f"{where}: {key}")
    for index, thing in enumerate(things, start=1):
        place = f"{where}: {key} number {index}"
        _expect("an object", isinstance(thing, dict), thing, place)
    return things


def _by_id(coco, key, where):
    """Returns a list of a COCO file as a dict by `id`."""
    found = {}
    for index, thing in enumerate(_dicts(coco, key, where), start=1):
        place, number = f"{where}: {key} number {index}: id", thing.get("id")
        _expect("an integer", _is_integer(number), number, place)
        _expect("one that no other has", number not in found, number, place)
        found[number] = thing
    return found


def _reference(annotation, key, known, place):
    """Returns the id of something else in the file."""
    number = annotation.get(key)
    if not _is_integer(number) or number not in known:
        listed = ", ".join(map(str, list(known)[:10])) + ", …" * (len(known) > 10)
        raise InputError(
            f"{place}: {key}: expected one that the file lists ({listed or 'none'}), "
            f"got {number!r:.60}; is it of another file?"
        )
    return number


def _reason_without_box(annotation, place):
    """Says why an annotation has no box of one object, None if it has one."""
    crowd = annotation.get("iscrowd")
    _expect("0 or 1", crowd in (None, 0, 1), crowd, f"{place}: iscrowd")
    if crowd:
        return "crowd regions"
    if annotation.get("bbox") in (None, []) and annotation.get("segmentation"):
        return "segmentations without a bbox"
    return None


def _coco_xyxy(bbox, place):
    """Returns xyxy of a COCO bbox: left, top, width, height."""
    four = "left, top, width and height in pixels, four finite numbers"
    _expect(four, isinstance(bbox, list) and len(bbox) == 4, bbox, place)
    left, top, width, height = (_number(value, place, bbox) for value in bbox)
    _expect("a width and a height from 0", min(width, height) >= 0, bbox, place)
    xyxy = (left, top, left + width, top + height)
    _expect(four, all(map(math.isfinite, xyxy)), bbox, place)
    return xyxy


def _score(value, place):
    if value is None:
        return None
    score = _number(value, place)
    _expect("0 to 1", 0 <= score <= 1, value, place)
    return score


def _read_voc(content, where, first_pixel, report):
    """Returns an `Annotated`."""
    root = _parse_xml(content, where)
    _expect("a Pascal VOC <annotation>", root.tag == "annotation", root.tag, where)
    sides = (root.findtext(f"size/{side}", "0") for side in ("width", "height"))
    size = _size([_decimal(side, f"{where}: size") for side in sides], where)
    boxes = []
    for index, thing in enumerate(root.iterfind("object"), start=1):
        place = f"{where}: object {index}"
        name = _text(thing.findtext("name", "").strip(), f"{place}: name")
        # Of the object itself; its parts, such as a head, have boxes of their own.
        left, top, right, bottom = (
            _decimal(thing.findtext(f"bndbox/{edge}", ""), f"{place}: {edge} of bndbox")
            for edge in ("xmin", "ymin", "xmax", "ymax")
        )
        corners, place = (left, top, right, bottom), f"{place}: bndbox"
        is_upright = left <= right and top <= bottom
        _expect("xmin <= xmax and ymin <= ymax", is_upright, corners, place)
        edges = (left - first_pixel, top - first_pixel, right, bottom)
        clipped = _clip(edges, size, report)
        if clipped:
            boxes.append(Box(name, clipped))
    name = root.findtext("filename", "").strip()
    return AnnotatedImage(
        _picture_name(name, f"{where}: filename"), size, tuple(boxes), where
    )


class _WithoutDoctype(etree.TreeBuilder):
    """Builds a tree, and stops where a DTD starts: before any entity is defined."""

    where = ""

    def doctype(self, name, *ids):
        raise InputError(
            f"{self.where}: expected a Pascal VOC annotation, which has no DTD, got "
            f"<!DOCTYPE {name:.60}>, and nothing was read; is it a web page?"
        )

    def close(self):
        # What is damaged has no tree; the parser then says itself what is wrong.
        with suppress(etree.XMLSyntaxError):
            return super().close()


def _parse_xml(content, where):
    builder = _WithoutDoctype()
    builder.where = where
    parser = etree.XMLParser(
        target=builder,
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        huge_tree=False,
        recover=False,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        return etree.fromstring(content, parser)
    except etree.XMLSyntaxError as error:
        raise InputError(
            f"{where}: malformed XML: {error.msg}; is the file cut off?"
        ) from error


def _expect(expected, is_met, got, place):
    """Raises an `InputError` unless what was expected is met."""
    if not is_met:
        raise InputError(f"{place}: expected {expected}, got {got!r:.80}.")


def _is_integer(value):
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value, place, got=None):
    """Returns a JSON number as a float; `got` is shown where it is none."""
    if _is_integer(value) or isinstance(value, float):
        with suppress(OverflowError):  # An integer of more than 308 digits.
            if math.isfinite(value):
                return float(value)
    got = value if got is None else got
    raise InputError(f"{place}: expected finite numbers, got {got!r:.80}.")


def _decimal(text, place):
    """Returns the number that a text is, as a float."""
    text = text.strip()
    return _number(float(text) if _DECIMAL.fullmatch(text) else text, place)


def _text(value, place):
    """Returns a text of one line that is not blank."""
    is_line = isinstance(value, str) and not any(
        # Line ends and other control characters, and half a pair.
        unicodedata.category(c) in ("Cc", "Zl", "Zp", "Cs")
        for c in value
    )
    _expect("one line of text", is_line and value.strip(), value, place)
    return value


def _picture_name(value, place):
    return _text(normalise_path(_text(value, place)), place)


def _size(sides, place):
    """Returns (width, height); None where one is 0, as tools write what is unknown."""
    if 0 in sides:
        return None
    is_whole = min(sides) >= 1 and not any(side % 1 for side in sides)
    _expect("width and height in whole pixels", is_whole, sides, place)
    return tuple(map(int, sides))


def _clip(xyxy, size, report):
    """Returns the part of a box in its picture; None, and counts it, where none is."""
    if _is_thin(xyxy):
        report["boxes without area"] += 1
        return None
    if size is None:
        return xyxy
    clipped = tuple(
        min(max(edge, 0.0), float(limit))
        for edge, limit in zip(xyxy, size * 2, strict=True)
    )
    if _is_thin(clipped):
        report["boxes outside their picture"] += 1
        return None
    moved = max(abs(a - b) for a, b in zip(xyxy, clipped, strict=True))
    if moved > _CARELESS_PX:
        report["boxes clipped to their picture"] += 1
    return clipped


def _is_thin(xyxy):
    left, top, right, bottom = xyxy
    return min(right - left, bottom - top) < MIN_SIDE_PX
