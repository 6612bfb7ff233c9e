"""A labelled image as a record, whatever the format of its labels."""

from typing import NamedTuple

from superbai.notes import Notes
from yolov3_tf2.files import pixel_boxes
from yolov3_tf2.files.images import SIXTEEN_BITS
from yolov3_tf2.files.prepared_image import prepare_image

# Training cannot learn from a thinner box.
_MIN_SIDE_PX = 1

# What `Notes` count as changed.
AROUND = "boxes drawn around polygons and rotated boxes"


class Record(NamedTuple):
    """One labelled image, as a TFRecord holds it.

    Attributes:
        source_id: the identity of the image: `<dataset>/<data_key>` in the Suite, its
            path in any other data set.
        encoded: bytes of a JPEG or PNG.
        format: `jpeg` or `png`.
        width, height: pixels.
        boxes_px: list of xyxy in pixels.
        labels: list of indices into the class names.
        gray_range: the (black, white) values of its file, if it had 16 bits per
            channel; else None.
    """

    source_id: str
    encoded: bytes
    format: str
    width: int
    height: int
    boxes_px: list[tuple[float, float, float, float]]
    labels: list[int]
    gray_range: tuple[int, int] | None = None


class GrayRangeUnknown(Exception):
    """An image has 16 bits per channel, and the range of their values is not known."""


def read_image(item, gray_range):
    """Returns the `PreparedImage` of an item.

    Args:
        item: has `archive`, `entry` and `labelled_size`.
        gray_range: the (black, white) values of images with 16 bits per channel; None
            if they are not known yet.

    Raises:
        InputError: the image cannot be used.
        GrayRangeUnknown: it has 16 bits per channel.
    """
    image = prepare_image(
        item.archive.read(item.entry),
        f"{item.archive.name}: {item.entry}",
        item.labelled_size,
        gray_range,
    )
    if SIXTEEN_BITS in image.changes and gray_range is None:
        raise GrayRangeUnknown
    return image


def build_record(source_id, image, boxes, gray_range, notes):
    """Returns the `Record` of an image and its boxes.

    Args:
        source_id: the identity of the image.
        image: the result of `read_image`.
        boxes: list of (xyxy, label), the result of `fit_boxes`.
        gray_range: the one given to `read_image`.
        notes: `Notes` to add what was changed and assumed to.
    """
    notes.changed.update(image.changes)
    if image.is_guess:
        notes.assumed[
            "rotated images (EXIF) whose labelled size fits both orientations or "
            "is unknown: boxes assumed to be drawn on the upright image"
        ] += 1
    return Record(
        source_id,
        image.encoded,
        image.format,
        image.width,
        image.height,
        [xyxy for xyxy, _ in boxes],
        [label for _, label in boxes],
        gray_range if SIXTEEN_BITS in image.changes else None,
    )


def fit_boxes(boxes, size):
    """Clips boxes to an image.

    Args:
        boxes: list of `label_json.Box`.
        size: (width, height) in pixels.

    Returns:
        A list of (xyxy, label), and `Notes` on these boxes.
    """
    fitted, notes = [], Notes()
    for box in boxes:
        xyxy, outside = pixel_boxes.clip_box(box.xyxy, size)
        notes.far_outside += outside > pixel_boxes.TOLERANCE_PX
        if pixel_boxes.shorter_side(xyxy) < _MIN_SIDE_PX:
            notes.left_out["boxes under one pixel or outside their image"] += 1
            continue
        fitted.append((xyxy, box.label))
        # Adding up a `Counter` for each box would take longer than all the rest.
        for is_changed, reason in (
            (box.is_swapped, pixel_boxes.SWAPPED),
            (box.is_around, AROUND),
            (outside > 0, "boxes clipped to their image"),
        ):
            if is_changed:
                notes.changed[reason] += 1
    return fitted, notes
