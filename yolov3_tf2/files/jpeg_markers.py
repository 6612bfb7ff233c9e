"""Whether every decoder reads a JPEG, found out from its markers, without decoding it.

Decoders differ in what they forgive. The data between two markers never stops one: bits
that make no sense become wrong pixels. What stops one is a marker or a table that it
does not expect, wherever it stands, so those are what is checked.
"""

import functools
import re
from typing import NamedTuple

_SOF = {0xC0: "baseline", 0xC1: "baseline", 0xC2: "progressive"}
_DHT, _EOI, _SOS, _DQT, _DRI, _COM = 0xC4, 0xD9, 0xDA, 0xDB, 0xDD, 0xFE
_APP = range(0xE0, 0xF0)

# A marker that ends the data of a scan. In that data, 0xff is followed by 0, or is part
# of a restart marker, or precedes another 0xff.
_SCAN_END = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")

_MAX_BLOCKS = 10  # In the unit of a scan, of all its components together.
_MAX_DC_BITS = 15


class _Component(NamedTuple):
    """A colour channel: its sampling, horizontally and vertically, and its table."""

    across: int
    down: int
    quantization: int


class _Odd(Exception):
    """Something that not every decoder may read."""


def is_plain_jpeg(encoded):
    """Returns whether the markers and tables of a JPEG are those that cameras write.

    It is then grey or has three channels of 8 bits, is baseline or progressive, and is
    complete. For 170 kB this takes 0.08 ms on one core of an AMD EPYC; decoding, 2 ms.

    Args:
        encoded: the bytes of the file. After the end of the image, they may be any.
    """
    if encoded[:2] != b"\xff\xd8":
        return False
    walk, place = _Walk(), 2
    try:
        while True:
            # Any number of 0xff may precede a marker.
            while encoded[place] == 0xFF == encoded[place + 1]:
                place += 1
            marker, length = encoded[place + 1], encoded[place + 2 : place + 4]
            _require(encoded[place] == 0xFF)
            if marker == _EOI:
                return walk.is_complete()
            end = place + 2 + int.from_bytes(length, "big")
            _require(place + 4 <= end <= len(encoded))
            walk.read_segment(marker, encoded[place + 4 : end])
            place = end
            if marker == _SOS:
                scan_end = _SCAN_END.search(encoded, end)
                _require(scan_end)
                place = scan_end.start()
    except (_Odd, IndexError):
        return False


def _require(condition):
    if not condition:
        raise _Odd


class _Walk:
    """What the segments of a JPEG have defined so far."""

    def __init__(self):
        self._kind = None  # Of the frame, see `_SOF`.
        self._components = {}  # By their ids.
        self._quantization, self._huffman = set(), set()
        self._scanned = set()  # Ids of components that had a scan.

    def read_segment(self, marker, data):
        """Checks the data of a segment; raises `_Odd` if it is out of the ordinary."""
        if marker in _SOF:
            self._read_frame(_SOF[marker], data)
        elif marker == _DQT:
            self._read_quantization(data)
        elif marker == _DHT:
            self._read_huffman(data)
        elif marker == _SOS:
            self._read_scan(data)
        elif marker == _DRI:
            _require(len(data) == 2)
        else:
            _require(marker in _APP or marker == _COM)

    def is_complete(self):
        """Returns whether each component had a scan."""
        return bool(self._scanned) and self._scanned == self._components.keys()

    def _read_frame(self, kind, data):
        bits, number = data[0], data[5]
        height, width = data[1:3], data[3:5]
        _require(not self._kind and bits == 8 and any(height) and any(width))
        _require(number in (1, 3) and len(data) == 6 + 3 * number)
        for place in range(6, len(data), 3):
            name, sampling, table = data[place : place + 3]
            _require(name not in self._components and table < 4)
            across, down = divmod(sampling, 16)
            _require({across, down} <= {1, 2, 4})
            self._components[name] = _Component(across, down, table)
        self._kind = kind

    def _read_quantization(self, data):
        while data:
            precision, number = divmod(data[0], 16)
            size = 1 + 64 * (1 + precision)
            _require(precision < 2 and number < 4 and len(data) >= size)
            self._quantization.add(number)
            data = data[size:]

    def _read_huffman(self, data):
        self._huffman |= _huffman_tables(data)

    def _read_scan(self, data):
        number = data[0]
        _require(self._kind and len(data) == 4 + 2 * number)
        names = data[1 : 1 + 2 * number : 2]
        tables = data[2 : 2 + 2 * number : 2]
        _require(0 < len(set(names)) == number)
        _require(self._components.keys() >= set(names))
        components = [self._components[name] for name in names]
        _require(self._quantization >= {each.quantization for each in components})
        blocks = sum(each.across * each.down for each in components)
        _require(number == 1 or blocks <= _MAX_BLOCKS)
        has_dc, has_ac = self._read_progress(data[-3:], set(names))
        for each in tables:
            dc, ac = divmod(each, 16)
            _require(not has_dc or (0, dc) in self._huffman)
            _require(not has_ac or (1, ac) in self._huffman)
        self._scanned |= set(names)

    def _read_progress(self, data, names):
        """Returns whether a scan uses tables for DC, and for AC coefficients."""
        first, last = data[:2]
        high, low = divmod(data[2], 16)
        if self._kind == "baseline":
            # After the last component, decoders expect the end.
            _require((first, last, high, low) == (0, 63, 0, 0))
            _require(not names & self._scanned)
            return True, True
        _require(high in (0, low + 1) and low <= 13)
        if first == 0:
            _require(last == 0)
            return high == 0, False
        # Before its AC coefficients, a component needs its DC coefficients.
        _require(first <= last <= 63 and len(names) == 1 and names <= self._scanned)
        return False, True


@functools.lru_cache(maxsize=64)  # Most images have the tables of the standard.
def _huffman_tables(data):
    """Returns the set of (is AC, number) of the Huffman tables in a segment."""
    tables = set()
    while data:
        is_ac, number = divmod(data[0], 16)
        counts, symbols = data[1:17], data[17 : 17 + sum(data[1:17])]
        _require(is_ac < 2 and number < 4 and len(counts) == 16)
        _require(len(symbols) == sum(counts) <= 256)
        _require(is_ac or max(symbols, default=0) <= _MAX_DC_BITS)
        code = 0
        for bits, count in enumerate(counts, start=1):
            code = 2 * code + count
            _require(code <= 1 << bits)
        tables.add((is_ac, number))
        data = data[17 + len(symbols) :]
    return tables
