"""What holds for the files of every archive: their names and their sizes."""

import re
from contextlib import suppress

from yolov3_tf2.errors import InputError

# An uncompressed image of 100 megapixels is larger than this, but hardly anyone labels
# such a file in a browser.
MAX_ENTRY_BYTES = 256 * 2**20
# Labels compress to a twentieth of their size, only an archive made to fill the memory
# to a thousandth.
MAX_GROWTH = 200
_SMALL_BYTES = 2**30  # Archives that unpack to less than this may grow by any factor.

_HIDDEN = {
    "__MACOSX",
    ".DS_Store",
    "Thumbs.db",
    "desktop.ini",
    "@eaDir",  # Small copies of the images of its folder.
    ".git",
    ".ipynb_checkpoints",
}


def is_hidden(name):
    """Returns whether a path is a file that a system or an editor left behind."""
    return any(part.startswith("._") or part in _HIDDEN for part in name.split("/"))


def leaves_archive(name):
    """Returns whether the path of an entry reaches outside its archive."""
    return bool(re.match(r"/|[A-Za-z]:/", name)) or ".." in name.split("/")


def decode_name(raw):
    """Returns a name whose encoding is not declared: UTF-8 or Korean; None if neither.

    Args:
        raw: its bytes.
    """
    for encoding in ("utf-8", "cp949"):
        with suppress(UnicodeDecodeError):
            return raw.decode(encoding)
    return None


def check_size(archive, name, size, limit):
    """Raises an `InputError` if a file has more bytes than a limit."""
    if size > limit:
        raise InputError(
            f"{archive}: '{name}' has {size:,} bytes; expected at most {limit:,}."
        )


def check_growth(archive, packed_bytes, unpacked_bytes):
    """Raises an `InputError` if an archive unpacks to far more than its size."""
    if unpacked_bytes > max(_SMALL_BYTES, MAX_GROWTH * packed_bytes):
        raise InputError(
            f"{archive}: its {packed_bytes:,} bytes would unpack to "
            f"{unpacked_bytes:,}; expected at most {MAX_GROWTH} times as many."
        )


def refuse_entry(archive, name, reason):
    """Returns the `InputError` for an archive with an entry that is not safe."""
    return InputError(f"{archive}: '{name}' {reason}. Nothing was read from it.")
