"""What a YOLO data set says of itself: its YAML, darknet's `.data`, lists of names."""

import re
from collections import Counter

import yaml

from yolov3_tf2.errors import InputError
from yolov3_tf2.files.json_values import as_name

# Those with a thousand class names and a program to download the images have 100 kB.
MAX_YAML_BYTES = 2**20
MAX_LIST_BYTES = 256 * 2**20  # A list of images, a line for each.


class _Loader(yaml.BaseLoader):
    """Reads lists, maps and texts only: `no` and `1.10` are names of classes too."""

    def compose_node(self, parent, index):
        # A few lines of aliases of aliases stand for more text than any memory holds.
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("an alias, which no data set needs")
        return super().compose_node(parent, index)


def load_yaml(content, where):
    """Returns the parsed YAML, its numbers as texts.

    Raises:
        InputError: it is damaged.
    """
    try:
        return yaml.load(decode_text(content, where), _Loader)
    except (yaml.YAMLError, RecursionError) as error:
        message = " ".join(str(error).split())
        raise InputError(f"{where}: malformed YAML: {message:.200}.") from error


def read_names(value, where):
    """Returns the class names of a YAML's `names`, a list or a map from index to name.

    Raises:
        InputError: a name is missing or there twice, or the indices have gaps.
    """
    if isinstance(value, dict):
        names = {_as_index(key): name for key, name in value.items()}
        if sorted(names, key=str) != sorted(range(len(value)), key=str):
            raise InputError(
                f"{where}: names: expected the indices 0 to {len(value) - 1}, got "
                f"{', '.join(map(str, value))[:200]}."
            )
        value = [names[index] for index in range(len(names))]
    if not isinstance(value, list) or not value:
        raise InputError(f"{where}: names: expected a list of class names, got none.")
    return _checked_names(value, f"{where}: names")


def read_name_list(content, where):
    """Returns the class names of a text file, one a line; blank lines may follow them.

    Raises:
        InputError: it has none, or one twice, or a blank line between them: darknet
            counts it as a class, other programs do not.
    """
    lines = decode_text(content, where).rstrip().splitlines()
    if not lines:
        raise InputError(f"{where}: expected one class name a line, got none.")
    blank = next((n for n, line in enumerate(lines, 1) if not line.strip()), None)
    if blank:
        raise InputError(
            f"{where}: line {blank}: expected a class name, got a blank line, which "
            "darknet counts as a class; remove it, or write a name there."
        )
    return _checked_names(lines, where)


def read_data(content, where):
    """Returns the settings of darknet's `.data`, lines `names = data/obj.names`."""
    found = re.findall(r"^\s*(\w+)\s*=\s*(.*?)\s*$", decode_text(content, where), re.M)
    return dict(found)


def decode_text(content, where):
    """Returns the text of a file in UTF-8, or in UTF-16 with a byte order mark."""
    try:
        return content.decode(_encoding(content))
    except UnicodeDecodeError as error:
        raise InputError(
            f"{where}: expected a text in UTF-8, got byte "
            f"{content[error.start]:#04x} at {error.start:,}; save it as UTF-8."
        ) from error


def decode_start(content):
    """Returns the text of the first bytes of a file, which may end within a letter."""
    return content.decode(_encoding(content), "replace")


def _encoding(content):
    # The `>` of Windows PowerShell writes UTF-16.
    is_utf16 = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    return "utf-16" if is_utf16 else "utf-8-sig"


def _checked_names(names, where):
    names = [as_name(name, f"{where}: class {i}") for i, name in enumerate(names)]
    repeated = sorted(name for name, number in Counter(names).items() if number > 1)
    if repeated:
        raise InputError(
            f"{where}: expected each class name once, got {', '.join(repeated)[:200]} "
            "more than once."
        )
    return names


def _as_index(key):
    return (
        int(key) if isinstance(key, str) and re.fullmatch(r"[0-9]{1,9}", key) else key
    )
