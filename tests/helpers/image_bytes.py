"""Image files byte by byte, for what Pillow and OpenCV do not write."""

import struct
import zlib

# Channels and colour types of a PNG.
PNG_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
PALETTE = 3


def png(values, colour_type=None, depth=None, **chunks):
    """A PNG.

    Args:
        values: `[height, width, channels]` uint8 or uint16.
        colour_type: of the PNG; that of the number of channels if None.
        depth: bits per channel; those of the values if None. With fewer than 8, the
            width must fill whole bytes.
        **chunks: the content of chunks before the pixels, such as `tRNS`.
    """
    height, width, channels = values.shape
    colour_type = PNG_TYPES[channels] if colour_type is None else colour_type
    depth = depth or values.dtype.itemsize * 8
    if depth < 8:
        per_byte = 8 // depth
        parts = [
            values[:, n::per_byte, 0] << (8 - depth * (n + 1)) for n in range(per_byte)
        ]
        values = sum(parts).astype("uint8")
    rows = values.astype(values.dtype.newbyteorder(">"))
    pixels = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    parts = {"IHDR": header, **chunks, "IDAT": zlib.compress(pixels), "IEND": b""}
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        _chunk(name.encode(), data) for name, data in parts.items()
    )


def _chunk(name, data):
    checksum = zlib.crc32(name + data)
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", checksum)


def tiff(values, order="<", sample_format=1, photometric=1, extra=None):
    """An uncompressed TIFF of `[height, width, channels]` in the values' type."""
    height, width, channels = values.shape
    data = values.astype(values.dtype.newbyteorder(order)).tobytes()
    entries = {
        256: ("I", [width]),
        257: ("I", [height]),
        258: ("H", [values.dtype.itemsize * 8] * channels),
        259: ("H", [1]),
        262: ("H", [photometric]),
        273: ("I", [0]),
        277: ("H", [channels]),
        278: ("I", [height]),
        279: ("I", [len(data)]),
        339: ("H", [sample_format] * channels),
        **({} if extra is None else {338: ("H", [extra])}),
    }
    end, tail = 8 + 2 + 12 * len(entries) + 4, b""
    for kind, numbers in entries.values():
        packed = struct.pack(f"{order}{len(numbers)}{kind}", *numbers)
        tail += packed if len(packed) > 4 else b""
    entries[273] = ("I", [end + len(tail)])
    directory, place = b"", end
    for tag, (kind, numbers) in sorted(entries.items()):
        packed = struct.pack(f"{order}{len(numbers)}{kind}", *numbers)
        directory += struct.pack(
            f"{order}HHI", tag, 3 if kind == "H" else 4, len(numbers)
        )
        if len(packed) > 4:
            directory += struct.pack(f"{order}I", place)
            place += len(packed)
        else:
            directory += packed.ljust(4, b"\0")
    head = struct.pack(f"{order}HIH", 42, 8, len(entries))
    return (
        (b"II" if order == "<" else b"MM") + head + directory + bytes(4) + tail + data
    )
