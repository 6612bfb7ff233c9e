"""Images of 16 bits per channel: their values, and how these become 8 bits.

Most cameras with more than 8 bits use 12 or 14 of the 16, and thermal cameras only a
few hundred values in the middle. So the values that are really used are spread over the
256 levels; the same way for all images of a data set, as a level must mean the same in
all of them.

A gray range is the pair (black, white) of the values that become 0 and 255.
"""

import functools
import sys

import numpy as np
from PIL import Image

# The upper 8 bits, as all libraries for images return them.
FULL_RANGE = (0, 2**16 - 1)
# Images that use half of all values or more are not stretched any further.
_WIDE = 2**15
# A camera has a few dead pixels: so many, and this share, of the darkest and of the
# brightest pixels of each image do not count.
_DEAD_PIXELS, _DEAD_SHARE = 4, 1e-4
# Less than this many of the 256 levels is too little to see an object.
MIN_LEVELS = 16

# Pillow has no mode for 16 bits and several channels: it returns the upper byte of
# each. Told the other order of bytes, it returns the lower one.
_OTHER_ORDER = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
_GRAY_WITH_ALPHA = "LA;16B"
_COLOUR = ("RGB;16", "RGBA;16", "RGBX;16")
_SIGNED = 2  # A TIFF's sample format.
_BITS_PER_SAMPLE, _WHITE_IS_ZERO, _SAMPLE_FORMAT = 258, 262, 339  # Tags of a TIFF.


def is_16_bits(image):
    """Returns whether an opened image has 16 bits per channel, all of them readable.

    Of the rare CMYK images with 16 bits, Pillow returns the upper 8.
    """
    return (
        image.mode.startswith("I;16")
        or _is_signed(image)
        or any(_is_colour(tile) for tile in getattr(image, "tile", ()))
    )


def read_values(reopen):
    """Decodes an image of 16 bits per channel.

    Args:
        reopen: a function that returns the opened image, anew each time.

    Returns:
        A pair: `[height, width, 1 or 3]` uint16 grey or RGB, and the opacity
        `[height, width]` uint8, None where there is none.

    Raises:
        ValueError: it has negative values.
    """
    image = reopen()
    if image.mode.startswith("I"):
        return _read_gray(image)
    raw_mode = _raw_mode(image.tile[0])
    if raw_mode == _GRAY_WITH_ALPHA:
        values = _decode(image, "RGBA")  # [height, width, 4], two bytes each
        upper, lower = values[..., ::2], values[..., 1::2]
    else:
        upper = _decode(image, raw_mode)
        lower = _decode(reopen(), raw_mode[:-1] + _OTHER_ORDER[raw_mode[-1]])
    values = upper.astype("uint16") << 8 | lower
    if values.shape[-1] == 3:
        return values, _alpha_of_key(values, image)
    alpha = None if raw_mode.startswith("RGBX") else upper[..., -1]
    return values[..., :-1], alpha


def find_range(values, alpha=None):
    """Returns the gray range that an image uses; None if it has one value only.

    Args:
        values, alpha: the result of `read_values`.
    """
    seen = values.ravel() if alpha is None else values[alpha > 0].ravel()
    dead = min(_DEAD_PIXELS + int(_DEAD_SHARE * seen.size), seen.size // 100)
    if not seen.size:
        return None
    ends = (dead, seen.size - 1 - dead)
    black, white = np.partition(seen, ends)[[*ends]].tolist()
    return (black, white) if black < white else None


def join_ranges(ranges):
    """Returns the gray range that holds all of some; `FULL_RANGE` where it is wide.

    Args:
        ranges: iterable of gray ranges or None, which are not counted.
    """
    ranges = [each for each in ranges if each]
    if not ranges:
        return FULL_RANGE
    black, white = min(b for b, _ in ranges), max(w for _, w in ranges)
    return FULL_RANGE if white - black >= _WIDE else (black, white)


def to_8_bits(values, alpha, gray_range):
    """Returns an image of 16 bits as a `PIL.Image.Image` of 8, with its opacity.

    Args:
        values, alpha: the result of `read_values`.
        gray_range: (black, white); None for the range of this image alone.
    """
    levels = _levels(gray_range or join_ranges([find_range(values, alpha)]))[values]
    image = Image.fromarray(levels[..., 0] if levels.shape[-1] == 1 else levels)
    if alpha is not None:
        image.putalpha(Image.fromarray(alpha))
    return image


@functools.lru_cache(4)
def _levels(gray_range):
    """Returns the `[65536]` uint8 level of each value."""
    black, white = gray_range
    values = np.arange(2**16, dtype="int64")
    return np.clip((values - black) * 256 // (white + 1 - black), 0, 255).astype("u1")


def _read_gray(image):
    is_inverted = image.format == "TIFF" and image.tag_v2.get(_WHITE_IS_ZERO) == 0
    values = np.asarray(image)[..., np.newaxis]
    if values.min() < 0:
        raise ValueError("negative values in 16 bits; expected values from 0 to 65535")
    values = values.astype("uint16")
    if is_inverted:
        values = FULL_RANGE[1] - values
    return values, _alpha_of_key(values, image)


def _alpha_of_key(values, image):
    """Returns the opacity where one value of an image is transparent; or None."""
    key = image.info.get("transparency")
    if key is None:
        return None
    return np.where((values == key).all(axis=-1), 0, 255).astype("uint8")


def _is_signed(image):
    return (
        image.mode == "I"
        and image.format == "TIFF"
        and image.tag_v2.get(_BITS_PER_SAMPLE) == (16,)
        and image.tag_v2.get(_SAMPLE_FORMAT) == (_SIGNED,)
    )


def _is_colour(tile):
    raw_mode = _raw_mode(tile)
    return raw_mode == _GRAY_WITH_ALPHA or raw_mode[:-1] in _COLOUR


def _raw_mode(tile):
    """Returns how the pixels of a tile lie in its file, in Pillow's words."""
    arguments = tile.args
    raw_mode = arguments if isinstance(arguments, str) else (arguments or ("",))[0]
    return raw_mode if isinstance(raw_mode, str) else ""


def _decode(image, raw_mode):
    """Returns the `[height, width, channels]` uint8 that a raw mode reads."""

    def changed(tile):
        is_text = isinstance(tile.args, str)
        return tile._replace(args=raw_mode if is_text else (raw_mode, *tile.args[1:]))

    image.tile = [changed(tile) for tile in image.tile]
    return np.asarray(image)
