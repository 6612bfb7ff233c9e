"""What an image is: judged by the first bytes of a file, the same in all steps.

Reading the first bytes of a file in a zip takes about as long as opening it, so the
name decides first: a file with the extension of an image was meant to be one. If it is
not, whoever reads it says so. All other files are judged by their first bytes.
"""

import re

from yolov3_tf2.errors import InputError

# What `images.open_image` reads. Pillow knows more formats: some are programs, or call
# one.
READABLE = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF", "HEIF", "AVIF")

EXTENSIONS = frozenset(
    f".{name}"
    for name in (
        *("jpg", "jpeg", "jpe", "jfif", "mpo", "png", "apng", "bmp", "dib", "webp"),
        *("tif", "tiff", "gif", "heic", "heif", "hif", "avif"),
    )
)

# A HEIC or AVIF lists the standards that it follows at its start, four bytes each.
START_BYTES = 64

_KINDS = {
    "JPEG": rb"\xff\xd8\xff",
    "PNG": rb"\x89PNG\r\n\x1a\n",
    "GIF": rb"GIF8[79]a",
    "WEBP": rb"RIFF....WEBP",
    # Two letters alone start many texts too: the size of the next header follows.
    "BMP": rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0",
    "TIFF": rb"II[\x2a\x2b]\0|MM\0[\x2a\x2b]",
    "AVIF": rb"....ftyp(....)*?avi[fs]",
    "HEIF": rb"....ftyp(....)*?(hei[cxms]|hev[cx]|mif1|msf1)",
    # Images that nothing here reads: they are named, and not passed over.
    "JPEG 2000": rb"\0\0\0\x0cjP  \r\n|\xff\x4f\xff\x51",
    "JPEG XL": rb"\0\0\0\x0cJXL \r\n|\xff\x0a",
    "Photoshop": rb"8BPS\0",
    "OpenEXR": rb"\x76\x2f\x31\x01",
    "Canon raw": rb"....ftypcrx |II\x1a\0\0\0HEAPCCDR",
    "Fujifilm raw": rb"FUJIFILMCCD-RAW",
    "Olympus raw": rb"IIR[OS]|MMOR",
    "Panasonic raw": rb"IIU\0",
}
_KINDS = {kind: re.compile(start, re.DOTALL) for kind, start in _KINDS.items()}


def image_kind(start):
    """Returns the format of an image; an empty string for any other file.

    Args:
        start: the first `START_BYTES` bytes of the file.

    Returns:
        One of `READABLE`, or the name of a format that cannot be read.
    """
    if start[4:8] == b"ftyp":  # The list ends with its box, the file's first.
        start = start[: int.from_bytes(start[:4], "big")]
    return next((kind for kind, regex in _KINDS.items() if regex.match(start)), "")


def is_image_name(name):
    """Returns whether a file name ends like that of an image, in any case."""
    # pathlib would intern the parts of every path, in a table that only grows.
    stem, dot, extension = name.rpartition("/")[2].rpartition(".")
    return bool(stem) and dot + extension.lower() in EXTENSIONS


def split_images(archive):
    """Divides the files of an archive into images and others.

    Args:
        archive: the result of `archives.open_archive`.

    Returns:
        Two lists of names in the order of `archive.files`.
    """
    images, others = [], []
    for name in archive.files:
        (images if is_image(archive, name) else others).append(name)
    return images, others


def is_image(archive, name):
    """Returns whether a file of an archive is an image, or was meant to be one."""
    if is_image_name(name):
        return True
    try:
        return bool(image_kind(archive.read_start(name, START_BYTES)))
    except InputError:
        return True  # Whoever reads it says that it is damaged.


def is_image_file(path):
    """Returns whether a `pathlib.Path` is an image, or was meant to be one."""
    if is_image_name(path.name):
        return True
    with path.open("rb") as file:
        return bool(image_kind(file.read(START_BYTES)))
