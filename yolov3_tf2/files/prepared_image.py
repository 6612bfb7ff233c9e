"""Images in the form that TFRecord files hold: JPEG or PNG, upright, complete."""

import io
from typing import NamedTuple

from PIL import Image

from yolov3_tf2.errors import InputError
from yolov3_tf2.files.complete_images import has_end
from yolov3_tf2.files.images import (
    DAMAGE,
    FIRST_FRAME,
    PNG_DEPTH,
    TRANSPARENT,
    decode_image,
    has_more_frames,
    open_image,
    read_orientation,
    unreadable,
)
from yolov3_tf2.files.jpeg_markers import is_plain_jpeg
from yolov3_tf2.files.sixteen_bits import FULL_RANGE

# What tf.io.decode_image reads itself. MPO is a JPEG with more images after it.
_KINDS = {"JPEG": "jpeg", "MPO": "jpeg", "PNG": "png"}
# Formats of photographs, which are large as a PNG.
_LOSSY = ("HEIF", "AVIF", "WEBP")

# How to undo the upright rotation of an EXIF orientation that swaps the sides.
_BACK = {
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


class PreparedImage(NamedTuple):
    """An image as a record holds it: upright, without an EXIF orientation.

    Attributes:
        encoded: bytes of a JPEG or PNG.
        format: `jpeg` or `png`.
        width, height: pixels.
        is_guess: whether it was rotated without knowing that its boxes are, too.
        changes: what else differs from the file; see `images.DecodedImage`.
    """

    encoded: bytes
    format: str
    width: int
    height: int
    is_guess: bool = False
    changes: tuple[str, ...] = ()


def prepare_image(encoded, where, labelled_size=None, gray_range=FULL_RANGE):
    """Returns an image as a record holds it.

    The bytes of an upright JPEG or PNG remain unchanged and are not decoded, except for
    a JPEG that a decoder may refuse, see `is_plain_jpeg`, and a PNG with transparency:
    that of a pixel shows in its decoded form only. Other formats become a JPEG if they
    were compressed with loss, as photographs are: a PNG of 12 megapixels would have
    some 20 MB. People draw boxes on what a browser shows, so an image with an EXIF
    orientation is made upright, unless `labelled_size` shows that the boxes belong to
    the stored pixels.

    Args:
        encoded: the bytes of the file.
        where: what to call the image in an error.
        labelled_size: (width, height) of the image when it was labelled, if known.
        gray_range: see `images.decode_image`.

    Returns:
        A `PreparedImage`.

    Raises:
        InputError: the bytes are not an image, it is incomplete, or its size differs
            from `labelled_size` in both orientations.
    """
    image = open_image(encoded, where)
    orientation = read_orientation(image, encoded, where)
    stored = upright = image.size
    if orientation in _BACK:
        if image.format == "TIFF":  # Pillow states its upright size.
            stored = stored[::-1]
        else:
            upright = upright[::-1]
    if labelled_size and labelled_size not in (stored, upright):
        raise InputError(
            f"{where} is {stored[0]}x{stored[1]}, but was labelled as "
            f"{labelled_size[0]}x{labelled_size[1]}: the images and labels do not "
            "belong together, or the images were resized."
        )
    kind = _KINDS.get(image.format)
    is_usual = is_plain_jpeg(encoded) if kind == "jpeg" else has_end(encoded, "png")
    can_stay = kind and orientation == 1 and is_usual
    if can_stay and kind == "png":
        _check_png(encoded, where)
        can_stay = encoded[PNG_DEPTH] <= 8
    if can_stay and not _may_be_transparent(image, encoded, where):
        changes = (FIRST_FRAME,) * has_more_frames(image)
        return PreparedImage(encoded, kind, *stored, changes=changes)
    decoded = decode_image(encoded, where, gray_range)
    if can_stay and TRANSPARENT not in decoded.changes:
        return PreparedImage(encoded, kind, *stored, changes=decoded.changes)
    # Also an upright JPEG that is out of the ordinary, as in CMYK or without its end:
    # other decoders may refuse it, or read other colours.
    rgb = decoded.rgb
    if labelled_size and labelled_size == stored != upright:
        rgb = rgb.transpose(_BACK[orientation])
    is_lossy = image.format in _LOSSY and not (
        image.format == "WEBP" and b"VP8L" in encoded[: encoded.find(b"VP8 ")]
    )
    kind = "jpeg" if kind == "jpeg" or is_lossy else "png"
    buffer = io.BytesIO()
    rgb.save(buffer, kind, **({"quality": 95} if kind == "jpeg" else {}))
    is_guess = orientation != 1 and (not labelled_size or stored == upright)
    return PreparedImage(buffer.getvalue(), kind, *rgb.size, is_guess, decoded.changes)


def _may_be_transparent(image, encoded, where):
    """Returns whether an image has an opacity or a transparent colour."""
    try:
        return image.has_transparency_data
    except DAMAGE as error:
        raise unreadable(where, encoded, error) from error


def _check_png(encoded, where):
    """Compares the checksums of a PNG, which needs no decoding."""
    try:
        open_image(encoded, where).verify()
    except DAMAGE as error:
        raise unreadable(where, encoded, error) from error
