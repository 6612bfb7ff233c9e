"""Checks the values of JSON and XML files: objects, lists, numbers and texts.

Each check returns the value, or raises an `InputError` that says where it is, what was
expected and what was found. `where` names the file and the place in it.
"""

import json
import math
import re

from yolov3_tf2.errors import InputError, one_line
from yolov3_tf2.names import normalise_name

# float() reads more: nan, 1_000, digits of other scripts.
_DECIMAL = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def parse_json(content, where, *, object_hook=None):
    """Parses the bytes of a JSON file in UTF-8, with or without a byte order mark.

    Args:
        content: the bytes.
        where: what to call the file in an error.
        object_hook: what replaces each object, see `json.loads`.
    """
    try:
        return json.loads(content.decode("utf-8-sig"), object_hook=object_hook)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{where}: expected JSON in UTF-8, got byte {content[error.start]:#04x} at "
            f"{error.start:,} ({error.reason}); was it saved in another encoding?"
        ) from error
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{where}: malformed JSON: {error}; is the file incomplete?"
        ) from error


def expect(is_met, expected, value, where):
    """Raises an `InputError` unless `is_met`; `expected` says what it should be."""
    if not is_met:
        raise InputError(f"{where}: expected {expected}, got {_show(value)}.")


def _show(value):
    return "null" if value is None else f"{value!r:.80}"


def as_dict(value, where, *, optional=False):
    """Returns an object; where `optional`, an empty one for null."""
    if optional and value is None:
        return {}
    expect(isinstance(value, dict), "an object", value, where)
    return value


def as_list(value, where, *, optional=False):
    """Returns a list; where `optional`, an empty one for null."""
    if optional and value is None:
        return []
    expect(isinstance(value, list), "a list", value, where)
    return value


def as_dicts(value, where, member, *, optional=False):
    """Returns a list of objects; `member` and a number name one of them in an error."""
    things = as_list(value, where, optional=optional)
    for number, thing in enumerate(things, start=1):
        if not isinstance(thing, dict):
            as_dict(thing, f"{where} {member} {number}")
    return things


def is_integer(value):
    """Returns whether a value is an integer; true and false are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value):
    """Returns whether a value is a finite number that fits a float."""
    if not (is_integer(value) or isinstance(value, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # An integer of more than 308 digits.
        return False


def as_number(value, where):
    """Returns a finite number as a float."""
    expect(is_number(value), "a finite number", value, where)
    return float(value)


def text_as_number(text, where):
    """Returns the decimal number of a text, of an XML for example, as a float."""
    text = text.strip()
    return as_number(float(text) if _DECIMAL.fullmatch(text) else text, where)


def is_one_line(value):
    """Returns whether a value is a text without line ends and control characters."""
    return isinstance(value, str) and one_line(value) == value


def as_text(value, where):
    """Returns a text of one line that is not blank."""
    is_met = is_one_line(value) and bool(value.strip())
    expect(is_met, "one line of text", value, where)
    return value


def as_name(value, where):
    """Returns a text of one line in the form of `normalise_name`."""
    return as_text(normalise_name(value) if isinstance(value, str) else value, where)
