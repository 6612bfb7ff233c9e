"""Opens images, and decodes them as upright RGB."""

import functools
import io
import struct
from typing import NamedTuple

from PIL import Image

from yolov3_tf2.errors import InputError
from yolov3_tf2.files import sixteen_bits
from yolov3_tf2.files.complete_images import has_end, open_jpeg_without_end
from yolov3_tf2.files.image_kinds import READABLE, START_BYTES, image_kind

# Decoding takes three bytes a pixel, in some steps six.
MAX_PIXELS = 160_000_000
Image.MAX_IMAGE_PIXELS = None  # Pillow's own limit warns at half of it.

_ORIENTATION = 0x0112  # EXIF tag; 1 is upright, 2 to 8 are mirrored or rotated.
PNG_DEPTH = 24  # Offset of the bits per channel in a PNG.

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
    RuntimeError,
    AssertionError,  # Of a palette that is missing.
)

# What `decode_image` changes, to be counted.
TRANSPARENT = "images with transparent pixels, drawn on white"
SIXTEEN_BITS = "images of 16 bits per channel, scaled to 8"
FIRST_FRAME = "images with several frames or pages, of which only the first is used"

# Tags of a TIFF: whether its first page is a small copy, and the version of Adobe's
# camera raw.
_SUBFILE, _DNG = 254, 50706


class DecodedImage(NamedTuple):
    """A decoded image.

    Attributes:
        rgb: a `PIL.Image.Image` in RGB, upright.
        changes: tuple of what differs from the file: `TRANSPARENT`, `SIXTEEN_BITS`,
            `FIRST_FRAME`.
    """

    rgb: Image.Image
    changes: tuple[str, ...]


def open_image(encoded, where):
    """Opens an image without decoding its pixels.

    Args:
        encoded: the bytes of the file.
        where: what to call the image in an error.

    Returns:
        A `PIL.Image.Image`, the first one of the file.

    Raises:
        InputError: the bytes are not an image, or it has too many pixels.
    """
    kind = image_kind(encoded[:START_BYTES])
    if kind not in READABLE:
        reason = "none of " + ", ".join(READABLE)
        raise unreadable(where, encoded, f"{kind}, {reason}" if kind else reason)
    if kind == "HEIF":
        _register_heif()
    try:
        image = Image.open(io.BytesIO(encoded), formats=[kind])
    except Image.UnidentifiedImageError as error:
        # Pillow's own message names only the object that holds the bytes.
        raise unreadable(where, encoded, f"no {kind} that can be read") from error
    except DAMAGE as error:
        raise unreadable(where, encoded, error) from error
    if kind == "TIFF" and _is_camera_raw(image, encoded):
        raise InputError(
            f"{where}: the first page of this TIFF is a small copy, as in the raw "
            "files of cameras; expected the image itself: convert it to JPEG or PNG."
        )
    if image.width * image.height > MAX_PIXELS:
        raise InputError(
            f"{where} has {image.width}x{image.height} pixels; expected at most "
            f"{MAX_PIXELS:,}."
        )
    return image


def load_rgb(encoded, where):
    """Decodes an image as RGB; see `decode_image`, whose `rgb` it returns."""
    return decode_image(encoded, where).rgb


def decode_image(encoded, where, gray_range=sixteen_bits.FULL_RANGE):
    """Decodes an image as RGB, upright according to its EXIF orientation, on white.

    Args:
        encoded: the bytes of the file.
        where: what to call the image in an error.
        gray_range: the (black, white) values of an image with 16 bits per channel;
            None for those of this image alone. `sixteen_bits` describes it.

    Returns:
        A `DecodedImage`.

    Raises:
        InputError: the bytes are not an image, or it is incomplete.
    """
    image = open_image(encoded, where)
    changes = []
    try:
        if has_more_frames(image):
            changes.append(FIRST_FRAME)
        if image.format in ("JPEG", "MPO") and not has_end(encoded, "jpeg"):
            image = open_jpeg_without_end(encoded)
        transpose = _UPRIGHT.get(read_orientation(image, encoded, where))
        if image.format == "TIFF":
            transpose = None  # Pillow rotates it while it decodes.
        kind = image.format
        if sixteen_bits.is_16_bits(image):
            values = sixteen_bits.read_values(lambda: open_image(encoded, where))
            image = sixteen_bits.to_8_bits(*values, gray_range)
            changes.append(SIXTEEN_BITS)
        elif image.mode in ("I", "F"):
            raise ValueError("32 bits per channel; expected 8 or 16")
        if transpose is not None:
            image = image.transpose(transpose)
        if image.has_transparency_data:
            if kind == "PNG":
                _scale_key(image, encoded[PNG_DEPTH])
            image, is_transparent = _draw_on_white(image, kind)
            changes += [TRANSPARENT] * is_transparent
        return DecodedImage(image.convert("RGB"), tuple(changes))
    except DAMAGE as error:
        raise unreadable(where, encoded, error) from error


def find_gray_range(encoded, where):
    """Returns the gray range of an image with 16 bits per channel; None for others.

    Raises:
        InputError: the bytes are not an image, or it is incomplete.
    """
    image = open_image(encoded, where)
    if not sixteen_bits.is_16_bits(image):
        return None
    try:
        values = sixteen_bits.read_values(lambda: open_image(encoded, where))
    except DAMAGE as error:
        raise unreadable(where, encoded, error) from error
    return sixteen_bits.find_range(*values)


def has_more_frames(image):
    """Returns whether an opened file has images after its first one."""
    # The others of an MPO are small copies, or the depth of the first.
    return image.format != "MPO" and getattr(image, "is_animated", False)


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
        f"{encoded[:12]!r} ({str(error) or 'damaged'}); is it incomplete, or another "
        "kind of file?"
    )


@functools.cache
def _register_heif():
    import pi_heif  # Its libraries take time to load, and few images need them.

    # It turns images itself, and then says that they are upright.
    pi_heif.register_heif_opener()


def _is_camera_raw(image, encoded):
    is_canon = encoded[8:10] == b"CR"
    return is_canon or _DNG in image.tag_v2 or image.tag_v2.get(_SUBFILE, 0) & 1


def _scale_key(image, depth):
    """Scales the grey level that is transparent as Pillow scales the pixels."""
    key = image.info.get("transparency")
    if image.mode == "L" and depth < 8 and key is not None:
        image.info["transparency"] = key * 255 // (2**depth - 1)


def _draw_on_white(image, kind):
    """Returns an image on white, and whether it has a transparent pixel."""
    rgba = image.convert("RGBA")
    least, most = rgba.getchannel("A").getextrema()
    # Some programs leave the fourth byte of each pixel of a BMP empty.
    if least == 255 or (kind == "BMP" and most == 0):
        return rgba, False
    white = Image.new("RGBA", rgba.size, "white")
    return Image.alpha_composite(white, rgba), True
