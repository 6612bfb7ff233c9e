"""Whether the file of an image is complete, without decoding it where possible."""

import io

from PIL import Image

_JPEG_END = b"\xff\xd9"
_PNG_END = b"IEND\xaeB`\x82"  # with its checksum


def has_end(encoded, kind):
    """Returns whether a JPEG or PNG has its end, whatever programs add after it.

    Args:
        encoded: the bytes of the file.
        kind: `jpeg` or `png`.
    """
    if kind == "png":
        return _PNG_END in encoded
    # Search after the start of the pixels: a thumbnail in the metadata has an end too.
    place = 2
    while encoded[place : place + 2] != b"\xff\xda":
        length = encoded[place + 2 : place + 4]
        if len(length) < 2:
            return False
        # Any number of 0xff may precede a marker.
        is_fill = encoded[place + 1] == 0xFF
        place += 1 if is_fill else 2 + int.from_bytes(length, "big")
    return encoded.rfind(_JPEG_END, place) > 0  # Usually the last two bytes.


def open_jpeg_without_end(encoded):
    """Decodes a JPEG whose end marker is missing, if all of its pixels are there.

    Pillow cannot tell the two cases apart: without the marker it refuses both, with a
    marker added it fills missing pixels and hides libjpeg's warning. So the image is
    decoded with two different paddings: only where pixels are missing do they differ.

    Raises:
        OSError: pixels are missing.
    """
    pixels = encoded.rstrip(b"\xff")  # This may be half of the marker.
    plain, padded = (
        Image.open(io.BytesIO(pixels + padding + _JPEG_END), formats=["JPEG"])
        for padding in (b"", b"\xaa" * 64)
    )
    # 64 zeros at the end are no pixels either: the file system has filled a gap.
    if plain.tobytes() != padded.tobytes() or encoded.endswith(bytes(64)):
        raise OSError("its end is missing")
    return plain
