"""Reads the labels of YOLO data sets: a text file for each image, a line for each box.

A line has the index of the class, and the centre, the width and the height of the box
as fractions of the image. More numbers are a score, the points of a polygon, or
keypoints: how many there are tells which.
"""

import math
from typing import NamedTuple

from yolov3_tf2.errors import InputError
from yolov3_tf2.files.pixel_boxes import SWAPPED, order_corners

# A million boxes have 60 MB; no image has so many.
MAX_LABEL_BYTES = 16 * 2**20
# Tools round, and boxes may reach over the edge of their image a little. Further away,
# the numbers are pixels.
_LEAST, _MOST = -0.5, 1.5

SCORED = "boxes of a model (with a score)"
POLYGONS = "polygons"


class YoloBox(NamedTuple):
    """A box of a label file.

    Attributes:
        label: the index of its class.
        xyxy: left, top, right, bottom as fractions of the image, not clipped.
        is_around: whether it is drawn around a polygon.
    """

    label: int
    xyxy: tuple[float, float, float, float]
    is_around: bool = False


def read_yolo(
    content, where, num_classes, report, *, polygons_as_boxes=False, keypoints=0
):
    """Returns a list of `YoloBox` in the order of the lines.

    Args:
        content: the bytes of the file.
        where: what to call the file in an error.
        num_classes: how many classes there are.
        report: Counter of what was changed or left out, which is added to.
        polygons_as_boxes: draw a box around each polygon; otherwise left out.
        keypoints: how many numbers of keypoints follow those of each box, 0 for none.

    Raises:
        InputError: a line cannot be used; the message has its number.
    """
    boxes = []
    for number, line in enumerate(_lines(content, where), start=1):
        here = f"{where}: line {number}"
        values = _numbers(line, here)
        if not values:
            continue
        label, place = values[0], values[1:]
        if label % 1 or not 0 <= label < num_classes:
            raise InputError(
                f"{here}: expected the index of a class, 0 to {num_classes - 1}, got "
                f"{label:g}; are the class names those of another data set?"
            )
        if len(place) in (4, 4 + keypoints):
            xyxy = _box_edges(*place[:4], here, report)
            boxes.append(YoloBox(int(label), xyxy))
        elif len(place) == 5:
            report[SCORED] += 1
        elif len(place) < 6 or len(place) % 2:
            raise InputError(
                f"{here}: expected a class, centre, width and height, five numbers, "
                f"got {len(values)} numbers."
            )
        elif not polygons_as_boxes:
            report[POLYGONS] += 1
        else:
            _check_fractions(place, here)
            xs, ys = place[::2], place[1::2]
            xyxy = (min(xs), min(ys), max(xs), max(ys))
            boxes.append(YoloBox(int(label), xyxy, is_around=True))
    return boxes


def _box_edges(x, y, width, height, where, report):
    """Returns the edges of a box; counts one whose corners are swapped."""
    _check_fractions((x, y, width, height), where)
    edges = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    ordered, is_swapped = order_corners(*edges)
    if is_swapped:
        report[SWAPPED] += 1
    return ordered


def _check_fractions(values, where):
    if not _LEAST <= min(values) <= max(values) <= _MOST:
        raise InputError(
            f"{where}: expected fractions of the image, 0 to 1, got {min(values):g} to "
            f"{max(values):g}; are these pixels?"
        )


def is_yolo(content):
    """Returns whether the first line of a text that is not blank is that of a box."""
    for line in content[:4096].decode("utf-8-sig", "replace").splitlines():
        if line.strip():
            try:
                return len(_numbers(line, "")) >= 5
            except InputError:
                return False
    return False


def _lines(content, where):
    try:
        return content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(
            f"{where}: expected lines of numbers, got byte "
            f"{content[error.start]:#04x} at {error.start:,}; is it a label file?"
        ) from error


def _numbers(line, where):
    """Returns the numbers of a line as a list of floats; none of a blank line."""
    try:
        values = list(map(float, line.split()))
        # float() reads 1_000 and digits of other scripts too.
        if line.isascii() and "_" not in line and all(map(math.isfinite, values)):
            return values
    except ValueError:
        pass
    raise InputError(f"{where}: expected numbers, got {line.strip()!r:.80}.")
