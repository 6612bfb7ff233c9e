"""Boxes in pixels as annotation files hold them, made valid boxes inside their image.

These are tuples of four floats: left, top, right, bottom. `yolov3_tf2.boxes` works on
tensors in fractions of the image, and needs Keras; the readers of files do without it.
"""

# Annotation tools round to whole pixels and count from 0 or from 1: each explains one
# pixel. A box that reaches further over the edge of its image is a mistake.
TOLERANCE_PX = 2

SWAPPED = "boxes with negative width or height: corners swapped"


def order_corners(left, top, right, bottom):
    """Returns a box with left <= right and top <= bottom, and whether it was swapped.

    Example:
        >>> order_corners(30, 5, 20, 9)
        ((20, 5, 30, 9), True)
    """
    ordered = (min(left, right), min(top, bottom), max(left, right), max(top, bottom))
    return ordered, ordered != (left, top, right, bottom)


def clip_box(xyxy, size):
    """Returns the part of a box inside an image, and by how much it reached outside.

    Args:
        xyxy: left, top, right, bottom.
        size: (width, height) of the image.

    Returns:
        The clipped box, which may be empty, and the largest distance in pixels that an
        edge was moved.

    Example:
        >>> clip_box((-5, 1, 8, 9), (10, 10))
        ((0.0, 1, 8, 9), 5.0)
    """
    clipped = tuple(
        min(max(edge, 0.0), float(limit))
        for edge, limit in zip(xyxy, size * 2, strict=True)
    )
    outside = max(abs(a - b) for a, b in zip(xyxy, clipped, strict=True))
    return clipped, outside


def shorter_side(xyxy):
    """Returns the smaller one of width and height."""
    left, top, right, bottom = xyxy
    return min(right - left, bottom - top)
