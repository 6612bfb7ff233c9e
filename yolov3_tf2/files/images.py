"""Picture files: open one, turn it upright, walk through files, zips and TFRecords."""

import io
import struct
from typing import NamedTuple

import numpy as np
from PIL import Image

from yolov3_tf2.errors import InputError

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


_ORIENTATION = 0x0112  # EXIF tag; 1 is upright, 2 to 8 are mirrored or turned


# Not all that Pillow knows: some formats are programs, or call one.
_READ = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF")


# What tf.io.decode_image reads itself. MPO is a JPEG with more pictures behind it.
_FORMATS = {"JPEG": "jpeg", "MPO": "jpeg", "PNG": "png"}


_JPEG_END = b"\xff\xd9"


_PNG_END = b"IEND\xaeB`\x82"  # with its checksum


_PNG_DEPTH = 24  # Where a PNG's first chunk tells its bits a channel.


# Decoding one takes three bytes a pixel, some steps twice that.
MAX_PIXELS = 160_000_000


Image.MAX_IMAGE_PIXELS = None  # Pillow's own limit warns at half of it.


# What an orientation asks for, and what undoes its turn.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


_BACK = {
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


# What Pillow raises for damaged files, depending on where the damage is.
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    MemoryError,
)


def is_image_name(name):
    """Tells whether a file's name ends as a picture's does, in any case."""
    # Not by pathlib, which interns the parts of every path: that table only grows.
    stem, dot, extension = name.rpartition("/")[2].rpartition(".")
    return bool(stem) and dot + extension.lower() in EXTENSIONS


def open_image(encoded, where):
    """Opens a picture without decoding its pixels.

    Args:
        encoded: the bytes of the file.
        where: what to call the picture in an error.

    Returns:
        A `PIL.Image.Image`.

    Raises:
        InputError: the bytes are no picture.
    """
    try:
        image = Image.open(io.BytesIO(encoded), formats=_READ)
    except Image.UnidentifiedImageError as error:
        # Whose message names the object that the bytes are in.
        raise _unreadable(where, encoded, "none of " + ", ".join(_READ)) from error
    except _DAMAGE as error:
        raise _unreadable(where, encoded, error) from error
    if image.width * image.height > MAX_PIXELS:
        raise InputError(
            f"{where} has {image.width}x{image.height} pixels; expected at most "
            f"{MAX_PIXELS:,}."
        )
    return image


def load_rgb(encoded, where):
    """Decodes a picture as RGB, upright as its EXIF orientation asks for.

    Raises:
        InputError: the bytes are no picture, or one that is cut off.
    """
    image = open_image(encoded, where)
    try:
        if image.format in ("JPEG", "MPO") and not _has_end(encoded, "jpeg"):
            image = _open_without_end(encoded)
        turn = _UPRIGHT.get(_orientation(image, encoded, where))
        if image.format == "TIFF":
            turn = None  # Pillow turns it while it decodes.
        if image.mode.startswith("I;16") or (image.mode, image.format) == ("I", "PNG"):
            # The upper eight of 16 bits, where Pillow would cut off at 255.
            values = np.asarray(image)
            image = Image.fromarray((values >> 8).astype("uint8"))
        elif image.mode in ("I", "F"):
            raise ValueError("32 bits a channel; expected 8 or 16")
        if turn is not None:
            image = image.transpose(turn)
        return image.convert("RGB")
    except _DAMAGE as error:
        raise _unreadable(where, encoded, error) from error


class PreparedImage(NamedTuple):
    """A picture as a record holds it: upright, without an EXIF orientation.

    Attributes:
        encoded: bytes of a JPEG or PNG.
        format: `jpeg` or `png`.
        width, height: pixels.
        is_guess: whether it was turned without knowing that its boxes were, too.
    """

    encoded: bytes
    format: str
    width: int
    height: int
    is_guess: bool = False


def prepare_image(encoded, where, labelled_size=None):
    """Makes a picture what a record holds: a JPEG or PNG, upright, without EXIF turns.

    The bytes of an upright JPEG or PNG stay as they are and are not decoded. Boxes
    are drawn on what a browser shows, so a picture with an EXIF orientation is turned
    as it asks, unless `labelled_size` says that the boxes belong to the unturned one.

    Args:
        encoded: the bytes of the file.
        where: what to call the picture in an error.
        labelled_size: (width, height) that the labels were drawn on, if known.

    Returns:
        A `Prepared`.

    Raises:
        InputError: the bytes are no picture, one that is cut off, or one of another
            size than `labelled_size` in either orientation.
    """
    image = open_image(encoded, where)
    orientation = _orientation(image, encoded, where)
    raw = turned = image.size
    if orientation in _BACK:
        if image.format == "TIFF":  # Whose size Pillow gives as it is shown.
            raw = raw[::-1]
        else:
            turned = turned[::-1]
    if labelled_size and labelled_size not in (raw, turned):
        raise InputError(
            f"{where} is {raw[0]}x{raw[1]}, but the export says "
            f"{labelled_size[0]}x{labelled_size[1]}: the pictures are of another "
            "project, or were resized."
        )
    kind = _FORMATS.get(image.format)
    if kind and orientation == 1 and _has_end(encoded, kind):
        if kind == "png":
            _check_png(encoded, where)
        if kind == "jpeg" or encoded[_PNG_DEPTH] <= 8:
            return PreparedImage(encoded, kind, *raw)
    # Written anew also where only the end is missing: other decoders are stricter.
    rgb = load_rgb(encoded, where)
    if labelled_size and labelled_size == raw != turned:
        rgb = rgb.transpose(_BACK[orientation])
    buffer = io.BytesIO()
    if kind == "jpeg":
        rgb.save(buffer, "JPEG", quality=95)
    else:
        kind = "png"
        rgb.save(buffer, "PNG")
    is_guess = orientation != 1 and (not labelled_size or raw == turned)
    return PreparedImage(buffer.getvalue(), kind, *rgb.size, is_guess)


def _has_end(encoded, kind):
    """Tells whether a JPEG or PNG has its end, whatever programs write behind it."""
    if kind == "png":
        return _PNG_END in encoded
    # From the pixels on: the pictures in a JPEG's notes have ends of their own.
    place = 2
    while encoded[place : place + 2] != b"\xff\xda":
        length = encoded[place + 2 : place + 4]
        if len(length) < 2:
            return False
        # A marker may have any number of 0xff in front.
        is_fill = encoded[place + 1] == 0xFF
        place += 1 if is_fill else 2 + int.from_bytes(length, "big")
    return encoded.rfind(_JPEG_END, place) > 0  # Mostly the last two bytes.


def _open_without_end(encoded):
    """Decodes a JPEG without its last marker.

    Where only that is missing, bytes in its place change nothing; where pixels are
    missing, they become some.

    Raises:
        OSError: pixels are missing.
    """
    pixels = encoded.rstrip(b"\xff")  # Which may be half of the marker.
    variants = [
        Image.open(io.BytesIO(pixels + added + _JPEG_END), formats=["JPEG"])
        for added in (b"", b"\xaa" * 64)
    ]
    for image in variants:
        image.load()
    if variants[0].tobytes() != variants[1].tobytes() or encoded.endswith(bytes(64)):
        raise OSError("its end is missing")
    return variants[0]


def _check_png(encoded, where):
    """Compares the checksums of a PNG, which takes no decoding."""
    try:
        open_image(encoded, where).verify()
    except _DAMAGE as error:
        raise _unreadable(where, encoded, error) from error


def _orientation(image, encoded, where):
    """The EXIF orientation of an opened picture, 1 where it has none."""
    if image.format == "PNG" and "exif" not in image.info:
        return 1  # Pillow would decode all of it to look behind the pixels too.
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except _DAMAGE as error:
        raise _unreadable(where, encoded, error) from error
    # Some cameras write 0; what is not defined turns nothing.
    return orientation if orientation in range(2, 9) else 1


def _unreadable(where, encoded, error):
    return InputError(
        f"{where}: expected a picture, got {len(encoded):,} bytes starting with "
        f"{encoded[:12]!r} ({error}); is it cut off, or another kind of file?"
    )
