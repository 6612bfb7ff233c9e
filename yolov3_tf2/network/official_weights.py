"""The official weights: where they are, their sizes and checksums.

The author publishes no checksums. These are the ones that other projects check the
files against after downloading them from his site: TensorFlow's model garden and
Alturos.Yolo have all three, Open Model Zoo has those of yolov3 and yolov3-tiny.
"""

import hashlib
from typing import NamedTuple


class OfficialFile(NamedTuple):
    """A weights file that the author of darknet trained on COCO.

    Attributes:
        urls: addresses of the file, in the order in which they are tried.
        num_bytes: its size.
        checksums: dict from the name of an algorithm of `hashlib` to the digest in
            hexadecimal digits.
    """

    urls: tuple[str, ...]
    num_bytes: int
    checksums: dict[str, str]


# The author's present and earlier address; the earlier one has been reported to serve a
# web page (https://github.com/pjreddie/darknet/issues/2655). Then a copy on GitHub.
_ADDRESSES = (
    "https://data.pjreddie.com/files/{}.weights",
    "https://pjreddie.com/media/files/{}.weights",
    "https://github.com/ultralytics/yolov3/releases/download/v8/{}.weights",
)


def _official_file(name, num_bytes, sha256):
    urls = tuple(address.format(name) for address in _ADDRESSES)
    return OfficialFile(urls, num_bytes, {"sha256": sha256})


OFFICIAL = {
    "yolov3": _official_file(
        "yolov3",
        248_007_048,
        "523e4e69e1d015393a1b0a441cef1d9c7659e3eb2d7e15f793f060a21b32f297",
    ),
    "yolov3-spp": _official_file(
        "yolov3-spp",
        252_209_544,
        "87a1e8c85c763316f34e428f2295e1db9ed4abcec59dd9544f8052f50de327b4",
    ),
    "yolov3-tiny": _official_file(
        "yolov3-tiny",
        35_434_956,
        "dccea06f59b781ec1234ddf8d1e94b9519a97f4245748a7d4db75d5b7080a42c",
    ),
}


def find_official(path):
    """Returns the variant whose official weights a file is; None for another file."""
    num_bytes = path.stat().st_size
    for variant_name, official in OFFICIAL.items():
        if num_bytes == official.num_bytes and _has_checksums(path, official.checksums):
            return variant_name
    return None


def _has_checksums(path, checksums):
    for algorithm, expected in checksums.items():
        with path.open("rb") as file:
            if hashlib.file_digest(file, algorithm).hexdigest() != expected:
                return False
    return True
