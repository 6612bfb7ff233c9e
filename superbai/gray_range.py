"""Which values of the 16-bit images of an export become black and white.

It is the range that they use together, so that a level means the same in all of them;
see `yolov3_tf2.files.sixteen_bits`. Finding these images means opening every file, so
it is done only once a first one is met: `Export.read` then raises `GrayRangeUnknown`.
"""

import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor

from absl import logging

from superbai import shards
from yolov3_tf2.errors import InputError
from yolov3_tf2.files import sixteen_bits
from yolov3_tf2.files.image_kinds import START_BYTES, image_kind
from yolov3_tf2.files.images import PNG_DEPTH, find_gray_range

# Processes take a while to start; an image of 640x512 pixels takes 10 ms.
_IMAGES_PER_PROCESS = 100
_CHUNK = 16

# What forked processes inherit from their parent.
_items = None


def measure_gray_range(export, processes=None):
    """Sets `export.gray_range` to the range that its 16-bit images use together.

    Reads the first bytes of every image, and decodes those of 16 bits, in as many
    processes as there are cores and work for them. Images that cannot be read are not
    counted here: writing them names them.

    Args:
        export: the open `export.Export`.
        processes: the most processes; the number of cores if None.
    """
    ranges = _find_ranges(export.items, processes or os.cpu_count())
    found = [
        (each, item.entry)
        for each, item in zip(ranges, export.items, strict=True)
        if each
    ]
    export.gray_range = sixteen_bits.join_ranges(each for each, _ in found)
    _check_spread(found, export.gray_range)


def _find_ranges(items, processes):
    """Returns the gray range of each item; None for images of 8 bits."""
    global _items
    number = min(processes, -(-len(items) // _IMAGES_PER_PROCESS))
    # As in `shards.py`, which says when a fork is safe.
    if number < 2 or sys.platform != "linux":
        return list(map(_find_range, items))
    _items = items
    context = multiprocessing.get_context("fork")
    arguments = (os.getpid(),)
    try:
        with ProcessPoolExecutor(
            number, context, shards.start_process, arguments
        ) as pool:
            numbers = range(len(items))
            return list(pool.map(_find_range_of_number, numbers, chunksize=_CHUNK))
    finally:
        _items = None


def _find_range_of_number(number):
    return _find_range(_items[number])


def _find_range(item):
    try:
        start = item.archive.read_start(item.entry, START_BYTES)
        kind, depth = image_kind(start), start[PNG_DEPTH : PNG_DEPTH + 1]
        # Any page of a TIFF may have 16 bits, and its header is anywhere.
        if kind != "TIFF" and not (kind == "PNG" and depth == b"\x10"):
            return None
        return find_gray_range(item.archive.read(item.entry), item.entry)
    except InputError:
        return None


def _check_spread(found, gray_range):
    """Warns if few images with unusual values leave the others without contrast."""
    black, white = gray_range
    least = sixteen_bits.MIN_LEVELS * (white + 1 - black) / 256
    narrow = [name for (low, high), name in found if high - low < least]
    if 2 * len(narrow) > len(found):
        logging.warning(
            "%d of %d images of 16 bits get fewer than %d of the 256 grey levels, as "
            "all together have values from %d (%s) to %d (%s): are these images of the "
            "same kind? Leave out those that are not.",
            len(narrow),
            len(found),
            sixteen_bits.MIN_LEVELS,
            *min((low, name) for (low, _), name in found),
            *max((high, name) for (_, high), name in found),
        )
