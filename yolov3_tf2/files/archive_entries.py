"""What holds for the files of every archive: their names and their sizes."""

import re

from yolov3_tf2.errors import InputError, list_first

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
# The endings that archives usually have, without those of other programs' files.
_ARCHIVE = re.compile(r"\.(zip|tar(?:\.\w+)?|t(?:gz|bz2?|xz|zst))$", re.IGNORECASE)


def is_hidden(name):
    """Returns whether a path is a file that a system or an editor left behind."""
    return any(part.startswith("._") or part in _HIDDEN for part in name.split("/"))


def leaves_archive(name):
    """Returns whether the path of an entry reaches outside its archive."""
    return bool(re.match(r"/|[A-Za-z]:/", name)) or ".." in name.split("/")


def check_size(archive, name, size, limit):
    """Raises an `InputError` if a file has more bytes than a limit."""
    if size > limit:
        raise InputError(
            f"{archive}: '{name}' has {size:,} bytes; expected at most {limit:,}."
        )


def check_growth(archive, packed_bytes, unpacked_bytes, find_largest):
    """Raises an `InputError` if an archive unpacks to far more than its size.

    Args:
        archive: what to call it in the error.
        packed_bytes, unpacked_bytes: its size, and that of what it holds.
        find_largest: function that returns the name and the size of its largest entry.
    """
    if unpacked_bytes > max(_SMALL_BYTES, MAX_GROWTH * packed_bytes):
        name, size = find_largest()
        raise InputError(
            f"{archive}: its {packed_bytes:,} bytes would unpack to "
            f"{max(unpacked_bytes, size):,}, and '{name}' alone to {size:,}; expected "
            f"at most {MAX_GROWTH} times as many."
        )


def describe_nested(names):
    """Returns what an archive with these files holds instead of them; "" if nothing.

    Archives inside an archive are not opened.

    Example:
        >>> describe_nested(["readme.txt", "camera 1.zip"])
        'the zip camera 1.zip; unpack it first, or give it directly'
    """
    nested = [name for name in names if _ARCHIVE.search(name)]
    if not nested:
        return ""
    kinds = {_ARCHIVE.search(name)[1].lower() for name in nested}
    kind = "zip" if kinds == {"zip"} else "archive" if "zip" in kinds else "tar"
    if len(nested) > 1:
        listed = list_first(nested, ", ", 3)
        return f"the {kind}s {listed}; unpack them first, or give them directly"
    return f"the {kind} {nested[0]}; unpack it first, or give it directly"


def refuse_entry(archive, name, reason):
    """Returns the `InputError` for an archive with an entry that is not safe."""
    return InputError(f"{archive}: '{name}' {reason}. Nothing was read from it.")
