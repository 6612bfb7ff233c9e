"""An image with its boxes, as the readers of COCO and Pascal VOC files return it."""

from typing import NamedTuple

from yolov3_tf2.errors import InputError
from yolov3_tf2.files import json_values, pixel_boxes
from yolov3_tf2.names import normalise_path

# A thinner box is a line: detections.json rounds to three decimals. (Training needs a
# whole pixel; labels that are uploaded do not.)
MIN_SIDE_PX = 1e-3


class Box(NamedTuple):
    """One object of an image.

    Attributes:
        class_name: normalised, see `yolov3_tf2.names`.
        xyxy: left, top, right, bottom in pixels, as in the file, not rounded.
        score: in [0, 1]; None where the file has none.
    """

    class_name: str
    xyxy: tuple[float, float, float, float]
    score: float | None = None


class AnnotatedImage(NamedTuple):
    """An image and its objects.

    Attributes:
        name: file name or path of the image, see `normalise_path`.
        size: (width, height) in pixels; None where the file does not state it.
        boxes: tuple of `Box` in the order of the file; empty without any object.
        where: what to call the annotations of this image in an error.
    """

    name: str
    size: tuple[int, int] | None
    boxes: tuple[Box, ...]
    where: str


class ImageNameError(InputError):
    """The name of an image's file cannot be used."""


def image_name(value, where):
    """Checks and normalises the name of an image's file.

    Raises:
        ImageNameError: it is not one line of text.
    """
    try:
        name = normalise_path(json_values.as_text(value, where))
        return json_values.as_text(name, where)
    except InputError as error:
        raise ImageNameError(str(error)) from None


def image_size(sides, where):
    """Returns (width, height); None where one is 0, which tools write for unknown."""
    if 0 in sides:
        return None
    is_whole = min(sides) >= 1 and not any(side % 1 for side in sides)
    json_values.expect(is_whole, "width and height in whole pixels", sides, where)
    return tuple(map(int, sides))


def fit_box(xyxy, size, report):
    """Orders the corners of a box and clips it to its image.

    Args:
        xyxy: four floats in pixels.
        size: (width, height) of the image; None if unknown: then nothing is clipped.
        report: Counter of what was changed or left out, which is added to.

    Returns:
        The box; None where nothing of it is left.
    """
    ordered, is_swapped = pixel_boxes.order_corners(*xyxy)
    if pixel_boxes.shorter_side(ordered) < MIN_SIDE_PX:
        report["boxes without area"] += 1
        return None
    clipped, outside = ordered, 0
    if size is not None:
        clipped, outside = pixel_boxes.clip_box(ordered, size)
    if pixel_boxes.shorter_side(clipped) < MIN_SIDE_PX:
        report["boxes outside their image"] += 1
        return None
    if is_swapped:
        report[pixel_boxes.SWAPPED] += 1
    if outside > pixel_boxes.TOLERANCE_PX:
        report["boxes clipped to their image"] += 1
    return clipped
