"""Reads the boxes in annotation files of other tools: COCO and Pascal VOC.

The content of a file tells its format, not its name. `coco_annotations` and
`voc_annotations` read one file each; this module finds the files and joins the images.
"""

import codecs
import math
from collections import Counter
from pathlib import PurePosixPath

from yolov3_tf2.errors import InputError, collecting, raise_collected
from yolov3_tf2.files import archives
from yolov3_tf2.files.annotated_image import (
    AnnotatedImage,
    Box,
    ImageNameError,
    fit_box,
)
from yolov3_tf2.files.archive_entries import describe_nested
from yolov3_tf2.files.coco_annotations import read_coco
from yolov3_tf2.files.json_values import expect
from yolov3_tf2.files.pixel_boxes import TOLERANCE_PX
from yolov3_tf2.files.voc_annotations import read_voc

__all__ = ["AnnotatedImage", "Box", "clip_to_image", "read_annotations"]

# The most bytes by ending; the labels of COCO's own train2017 have 450 MB.
_LIMITS = {".json": 2 * 2**30, ".xml": archives.MAX_ENTRY_BYTES}


def read_annotations(paths, *, voc_first_pixel=1, bad_names=None):
    """Reads annotation files, also those in zips and folders.

    Boxes are clipped to their image where its file states the size; use `clip_to_image`
    for the others. VOC objects that are marked `difficult` are read like all others.

    Args:
        paths: list of `pathlib.Path`: COCO JSON and VOC XML files with any extension,
            and zips and folders of `.json`, `.xml` and other files.
        voc_first_pixel: number of the first column and row of an image in VOC files.
            They count from 1 and include `xmax` and `ymax`: VOC's annotations of
            version 1.00 say "Top left pixel co-ordinates : (1, 1)", and the devkit's
            VOCevaldet.m computes widths as xmax - xmin + 1. With 0, the numbers are
            edges, as some tools write them.
        bad_names: dict that gets the images whose names cannot be used, and the
            reasons; they are left out. If None, such a name is an error.

    Returns:
        A list of `AnnotatedImage` with unique names, and a Counter of what was left
        out, changed or unknown, by reason.

    Raises:
        InputError: a file is damaged, in neither format, or contradicts itself or
            another file; or there are no files. Of several damaged files, the first ten
            are named.
    """
    report, by_name, num_files, errors, others = Counter(), {}, 0, [], []
    for path in paths:
        for where, content in _read_files(path, others):
            num_files += 1
            images = []
            with collecting(errors):
                if not _is_xml(content, where):
                    images = read_coco(content, where, report, bad_names)
                else:
                    try:
                        images = [read_voc(content, where, voc_first_pixel, report)]
                    except ImageNameError as error:
                        if bad_names is None:
                            raise
                        bad_names[where] = str(error)
            for image in images:
                twin = by_name.setdefault(image.name, image)
                if twin is not image:
                    raise InputError(
                        f"{image.where} is '{image.name}', and so is {twin.where}; "
                        "expected each image once: was a file given twice, or do "
                        "images in two folders have the same name?"
                    )
    raise_collected(errors, f"of {num_files} annotation files")
    if others:
        report["other files"] += len(others)
    if not num_files:
        others_found = f"{len(others)} others: are these the images?"
        found = describe_nested(others) or others_found
        raise InputError(
            f"no annotations in {', '.join(map(str, paths)) or 'no files'}; expected "
            f"COCO (.json) or Pascal VOC (.xml) files, got {found}"
        )
    return list(by_name.values()), report


def clip_to_image(annotated, size, report):
    """Clips the boxes of an image whose size its annotation file does not state.

    Args:
        annotated: an `AnnotatedImage`.
        size: (width, height) in pixels; None if it remains unknown. Boxes that reach
            over the left or upper edge are then left out: nobody can tell how far they
            reach over the others.
        report: the Counter of `read_annotations`, which is added to.

    Returns:
        An `AnnotatedImage` of this size.
    """
    if size is None:
        report["images of unknown size, boxes not clipped"] += 1
    boxes = []
    for box in annotated.boxes:
        if size is None and min(box.xyxy[:2]) < -TOLERANCE_PX:
            report["boxes that reach out of an image of unknown size"] += 1
            continue
        xyxy = fit_box(box.xyxy, size or (math.inf, math.inf), report)
        if xyxy:
            boxes.append(box._replace(xyxy=xyxy))
    return annotated._replace(size=size, boxes=tuple(boxes))


def _read_files(path, others):
    """Yields what to call a file, and its bytes; lists files of other endings."""
    if not archives.is_archive(path):
        yield str(path), path.read_bytes()
        return
    with archives.open_archive(path) as archive:
        for name in archive.files:
            limit = _LIMITS.get(PurePosixPath(name).suffix.lower())
            if limit is None:
                others.append(name)
            else:
                yield f"{archive.name}: {name}", archive.read(name, limit)


def _is_xml(content, where):
    """Distinguishes XML from JSON by the first characters."""
    start = content[:1024]
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        start = start.decode("utf-16", "ignore").encode()
    start = start.removeprefix(codecs.BOM_UTF8).lstrip()
    formats = "a COCO JSON or a Pascal VOC XML"
    expect(start[:1] in (b"<", b"{", b"["), formats, content[:16], where)
    return start.startswith(b"<")
