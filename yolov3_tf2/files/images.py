"""Image files: which files are images, opening one, decoding it as upright RGB."""

import io
import struct

import numpy as np
from PIL import Image

from yolov3_tf2.errors import InputError
from yolov3_tf2.files.complete_images import has_end, open_jpeg_without_end

EXTENSIONS = (
    ".jpg",
    ".jpeg",
    ".jfif",
    ".png",
    ".bmp",
    ".webp",
    ".tif",
    ".tiff",
    ".gif",
)
# Decoding takes three bytes a pixel, in some steps six.
MAX_PIXELS = 160_000_000
Image.MAX_IMAGE_PIXELS = None  # Pillow's own limit warns at half of it.

# Pillow knows more formats: some are programs, or call one.
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF")
_ORIENTATION = 0x0112  # EXIF tag; 1 is upright, 2 to 8 are mirrored or rotated.

# How to make each EXIF orientation upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# What Pillow raises for damaged files, depending on where the damage is.
DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    MemoryError,
)


def is_image_name(name):
    """Returns whether a file name ends like that of an image, in any case."""
    # pathlib would intern the parts of every path, in a table that only grows.
    stem, dot, extension = name.rpartition("/")[2].rpartition(".")
    return bool(stem) and dot + extension.lower() in EXTENSIONS


def open_image(encoded, where):
    """Opens an image without decoding its pixels.

    Args:
        encoded: the bytes of the file.
        where: what to call the image in an error.

    Returns:
        A `PIL.Image.Image`.

    Raises:
        InputError: the bytes are not an image, or it has too many pixels.
    """
    try:
        image = Image.open(io.BytesIO(encoded), formats=_FORMATS)
    except Image.UnidentifiedImageError as error:
        # Pillow's own message names only the object that holds the bytes.
        raise unreadable(where, encoded, "none of " + ", ".join(_FORMATS)) from error
    except DAMAGE as error:
        raise unreadable(where, encoded, error) from error
    if image.width * image.height > MAX_PIXELS:
        raise InputError(
            f"{where} has {image.width}x{image.height} pixels; expected at most "
            f"{MAX_PIXELS:,}."
        )
    return image


def load_rgb(encoded, where):
    """Decodes an image as RGB, upright according to its EXIF orientation.

    Raises:
        InputError: the bytes are not an image, or it is incomplete.
    """
    image = open_image(encoded, where)
    try:
        if image.format in ("JPEG", "MPO") and not has_end(encoded, "jpeg"):
            image = open_jpeg_without_end(encoded)
        transpose = _UPRIGHT.get(read_orientation(image, encoded, where))
        if image.format == "TIFF":
            transpose = None  # Pillow rotates it while it decodes.
        if image.mode.startswith("I;16") or (image.mode, image.format) == ("I", "PNG"):
            # The upper 8 of 16 bits; Pillow's conversion clips at 255.
            values = np.asarray(image)
            image = Image.fromarray((values >> 8).astype("uint8"))
        elif image.mode in ("I", "F"):
            raise ValueError("32 bits per channel; expected 8 or 16")
        if transpose is not None:
            image = image.transpose(transpose)
        return image.convert("RGB")
    except DAMAGE as error:
        raise unreadable(where, encoded, error) from error


def read_orientation(image, encoded, where):
    """Returns the EXIF orientation of an opened image, 1 where it has none."""
    if image.format == "PNG" and "exif" not in image.info:
        return 1  # Pillow would decode all pixels to look for EXIF after them.
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except DAMAGE as error:
        raise unreadable(where, encoded, error) from error
    # Some cameras write 0; undefined values rotate nothing.
    return orientation if orientation in range(2, 9) else 1


def unreadable(where, encoded, error):
    """Returns the `InputError` for bytes that cannot be decoded."""
    return InputError(
        f"{where}: expected an image, got {len(encoded):,} bytes starting with "
        f"{encoded[:12]!r} ({error}); is it incomplete, or another kind of file?"
    )
