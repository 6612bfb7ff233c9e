"""The ids of uploaded boxes, by which a later upload recognises them.

An id is a UUID that holds where its box was put, to 0.05 pixels, and a hash of its
image and class. What the Suite does to a number when it stores it, such as rounding to
one decimal or to whole pixels, leaves the box where its id says; what people do to a
box moves it further. `is_ours` compares the two.
"""

import hashlib
import json
import math
import unicodedata
import uuid

from superbai.upload.stored_label import read_box

# The first characters of all ids, and of those of the first versions of this project,
# which hold a hash of the exact position.
_PREFIX, _EXACT_PREFIX = "05be7c", "05be7ba1"
# The position is stored in steps of 0.05 pixels, rounded down: rounding any number
# between two steps to tenths or to whole pixels gives the same.
_STEPS_PER_PIXEL = 20
_COORD_BITS, _HASH_BITS, _NUMBER_BITS = 20, 16, 2
_MAX_STEPS = (1 << _COORD_BITS) - 1  # 52,428 pixels.
MAX_EQUAL = 1 << _NUMBER_BITS
# More than the error of numbers stored in 32 bits, and less than a tenth of a step.
_SLACK = 0.004


def make_id(dataset, key, class_name, xywh, number=0):
    """Returns the id of an uploaded box, a UUID.

    Args:
        dataset, key: names of its image, in any Unicode form.
        class_name: in any Unicode form.
        xywh: (x, y, width, height) in pixels.
        number: which of up to `MAX_EQUAL` boxes of this class and position it is.
    """
    payload = int(_PREFIX, 16) << _HASH_BITS | _hash(dataset, key, class_name)
    payload = payload << _NUMBER_BITS | number
    for pixels in xywh:
        steps = round(_to_step(pixels) * _STEPS_PER_PIXEL)
        payload = payload << _COORD_BITS | steps
    # 48 bits, the version, 12 bits, the variant, 62 bits.
    value = payload >> 74 << 80 | 5 << 76 | (payload >> 62 & 0xFFF) << 64
    return str(uuid.UUID(int=value | 0b10 << 62 | payload & (1 << 62) - 1))


def make_exact_id(dataset, key, class_name, xywh):
    """Returns the id that the first versions of this project gave a box."""
    names = [unicodedata.normalize("NFC", each) for each in (dataset, key, class_name)]
    digest = _digest([*names, *map(float, xywh)]).hex()
    prefixed = uuid.UUID(_EXACT_PREFIX + digest[:24])
    return str(uuid.UUID(bytes=prefixed.bytes, version=5))


def is_ours(stored, dataset, key):
    """Tells whether an object of the Suite is an uploaded box that nobody has edited.

    A box that somebody has given another class or a property, which an upload never
    sets, counts as edited like one that was moved.

    Args:
        stored: the object as the Suite has stored it, a dict.
        dataset, key: of its image.
    """
    box = read_box(stored)
    if box is None or stored.get("properties"):
        return False
    class_name, xywh = box
    box_id = stored_id(stored)
    if box_id.startswith(_EXACT_PREFIX):
        return box_id == make_exact_id(dataset, key, class_name, xywh)
    found = _decode(box_id)
    if found is None or found[0] != _hash(dataset, key, class_name):
        return False
    return is_same_place(xywh, found[1])


def is_exact(box_id):
    """Whether an id is one of the first versions of this project."""
    return box_id.startswith(_EXACT_PREFIX)


def stored_id(stored):
    """Returns the id of an object of the Suite, for comparing ids."""
    return str(stored.get("id")).lower()


def is_same_place(stored_xywh, sent_xywh):
    """Tells whether stored numbers are what became of those that were sent.

    They may have been rounded, or cut, to tenths or to whole pixels; or their edges
    rounded.

    Args:
        stored_xywh: (x, y, width, height) as stored.
        sent_xywh: the same as sent, or rounded down to steps of 0.05 pixels.

    Example:
        >>> is_same_place((12, 7, 30, 4), (12.4, 6.9, 30.3, 4.1))
        True
        >>> is_same_place((13, 7, 30, 4), (12.4, 6.9, 30.3, 4.1))
        False
    """
    unit = min(map(_unit, stored_xywh))
    lows = tuple(map(_to_step, sent_xywh))
    pairs = list(zip(stored_xywh, lows, strict=True))
    if all(_is_rounded(*pair, unit) for pair in pairs):
        return True
    if not unit:
        return False
    if all(_is_cut(*pair, unit) for pair in pairs):
        return True
    # The right and the lower edge are sums of two numbers, each rounded down.
    edges = zip(_far_edges(stored_xywh), _far_edges(lows), strict=True)
    return all(_is_rounded(*pair, unit) for pair in pairs[:2]) and all(
        _is_rounded(*pair, unit, num_steps=2) for pair in edges
    )


def _far_edges(xywh):
    return xywh[0] + xywh[2], xywh[1] + xywh[3]


def _unit(number):
    """Returns the unit that a number may have been rounded to: 1, 0.1, or 0."""
    for unit, scale in ((1, 1), (0.1, 10)):
        if abs(number * scale - round(number * scale)) < _SLACK:
            return unit
    return 0


def _is_rounded(stored, low, unit, num_steps=1):
    """Whether a number from `low` to some steps above is `stored` when rounded."""
    # Half a unit is a multiple of a step, so the last step's is not reached.
    high = low + num_steps / _STEPS_PER_PIXEL + (unit / 2 - _SLACK if unit else _SLACK)
    # Beyond the last step, any place is possible.
    is_last = low >= _MAX_STEPS / _STEPS_PER_PIXEL
    return low - unit / 2 - _SLACK <= stored and (stored <= high or is_last)


def _is_cut(stored, low, unit):
    """Whether a number from `low` to below the next step is `stored` when cut."""
    return abs(stored - math.floor(low / unit + _SLACK) * unit) < _SLACK


def _to_step(pixels):
    """Returns a number of pixels, rounded down to a step."""
    steps = math.floor(float(pixels) * _STEPS_PER_PIXEL + _SLACK)
    return min(max(steps, 0), _MAX_STEPS) / _STEPS_PER_PIXEL


def _decode(box_id):
    """Returns the hash and the (x, y, width, height) of an id; None if it has none."""
    try:
        value = uuid.UUID(box_id).int
    except ValueError:
        return None
    payload = value >> 80 << 74 | (value >> 64 & 0xFFF) << 62 | value & (1 << 62) - 1
    if uuid.UUID(int=value).version != 5 or payload >> 98 != int(_PREFIX, 16):
        return None
    steps = [payload >> _COORD_BITS * i & _MAX_STEPS for i in (3, 2, 1, 0)]
    names = payload >> 4 * _COORD_BITS + _NUMBER_BITS & (1 << _HASH_BITS) - 1
    return names, tuple(number / _STEPS_PER_PIXEL for number in steps)


def _hash(dataset, key, class_name):
    names = [unicodedata.normalize("NFC", each) for each in (dataset, key, class_name)]
    return int.from_bytes(_digest(names)[: _HASH_BITS // 8])


def _digest(value):
    # A name that JSON can hold is not always one that UTF-8 can.
    text = json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
    return hashlib.sha256(text).digest()
