"""Long lists that take little memory."""

import pickle
import zlib
from collections.abc import Sequence
from copy import copy
from itertools import islice

_CHUNK = 1024


class PackedList(Sequence):
    """A list that cannot be changed, pickled and compressed: names and places of files
    take a tenth of what they take as objects.

    Going through it unpacks a few of its values at a time; a slice shares them.
    """

    def __init__(self, values):
        """Takes an iterable of what can be pickled."""
        values = iter(values)
        self._chunks, number = [], 0
        while chunk := list(islice(values, _CHUNK)):
            self._chunks.append(zlib.compress(pickle.dumps(chunk), 1))
            number += len(chunk)
        self._numbers = range(number)

    def __len__(self):
        return len(self._numbers)

    def __iter__(self):
        place = None
        for number in self._numbers:
            if number // _CHUNK != place:
                place = number // _CHUNK
                chunk = self._unpack(place)
            yield chunk[number % _CHUNK]

    def __getitem__(self, index):
        if isinstance(index, slice):
            part = copy(self)
            part._numbers = self._numbers[index]
            return part
        number = self._numbers[index]
        return self._unpack(number // _CHUNK)[number % _CHUNK]

    def _unpack(self, place):
        return pickle.loads(zlib.decompress(self._chunks[place]))
