"""The sections and options of darknet's `.cfg` files.

They are read as `parser.c` and `option_list.c` of darknet do: spaces mean nothing,
lines that begin with # or ; are comments, the first of two equal options counts, and
numbers may be followed by a comment.
"""

import re
from typing import NamedTuple

from yolov3_tf2.errors import InputError

_ALIASES = {"network": "net", "conv": "convolutional", "max": "maxpool"}
MAX_NUMBER = 1e9


class Section(NamedTuple):
    """A section of a cfg: its kind, the number of its line, and its options, a dict."""

    kind: str
    line: int
    options: dict[str, str]


def read_sections(path):
    """Reads the sections of a cfg; the first one is [net]."""
    # Comments are in any encoding, and all that counts is ASCII.
    text = path.read_bytes().removeprefix(b"\xef\xbb\xbf").decode("latin-1")
    sections = []
    for number, line in enumerate(re.split("\r\n|\r|\n", text), start=1):
        line = "".join(line.split())
        if line.startswith("["):
            kind = line.strip("[]")
            sections.append(Section(_ALIASES.get(kind, kind), number, {}))
        elif line and line[0] not in "#;":
            key, _, value = line.partition("=")
            if not sections:
                break
            if value:
                sections[-1].options.setdefault(key, value)
    if not sections or sections[0].kind != "net":
        start = text.strip()[:30]
        raise InputError(
            f"{path}: expected a darknet cfg, which begins with [net], got {start!r}; "
            "is it the .cfg that the weights were trained with?"
        )
    return sections


def read_number(path, section, key, default):
    """Returns an option as a number, an int where it is whole."""
    if key not in section.options:
        return default
    values = read_numbers(path, section, key)
    text = repr(section.options[key])
    require(values, path, section, f"a number in {key}=", text)
    return int(values[0]) if values[0] == int(values[0]) else values[0]


def read_numbers(path, section, key):
    """Returns the numbers of an option, separated by commas, as floats."""
    values = []
    for text in re.split("[#;]", section.options.get(key, ""))[0].split(","):
        if not text:
            continue  # A comma at the end.
        is_number = re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d)?", text, re.I)
        require(
            is_number and abs(float(text)) < MAX_NUMBER,
            *(path, section, f"a number in {key}=", repr(text)),
        )
        values.append(float(text))
    return values


def require(condition, path, section, expected, got):
    """Raises an `InputError` about a section unless a condition holds."""
    if not condition:
        raise InputError(
            f"{path}, line {section.line}, [{section.kind}]: expected {expected}, got "
            f"{got}."
        )
