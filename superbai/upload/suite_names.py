"""The names of images in the Suite: which are equal, and which it can handle."""

import re
import unicodedata
from itertools import product

from yolov3_tf2.errors import InputError
from yolov3_tf2.names import normalise_path

# The SDK pastes names into its queries without escaping them.
_UNSAFE_IN_QUERY = re.compile(r'["\\\x00-\x1f\x7f\u2028\u2029\ud800-\udfff]')
# The SDK sends a file of this name.
_MAX_NAME_BYTES = 255


def check_names(dataset, key):
    """Checks that an image of these names can be uploaded.

    Raises:
        InputError: a name has a character that breaks the SDK's queries, or is too
            long.
    """
    unsafe = _UNSAFE_IN_QUERY.search(dataset) or _UNSAFE_IN_QUERY.search(key)
    if unsafe:
        raise InputError(
            f"{dataset}/{key}: the Suite's interface cannot handle the character "
            f"{unsafe.group()!r} in a name; rename the image or the dataset."
        )
    size = len(key.rpartition("/")[2].encode())
    if size > _MAX_NAME_BYTES:
        raise InputError(
            f"{dataset}/{key}: expected a file name of up to {_MAX_NAME_BYTES} bytes, "
            f"got {size}; rename the image."
        )


def spellings(dataset, key):
    """Yields the names that the Suite may have for an image, the likeliest first.

    macOS decomposes characters (NFD); other upload tools put a slash before keys.
    """
    datasets, keys = (
        [name, *(unicodedata.normalize(form, name) for form in ("NFC", "NFD"))]
        for name in (dataset, key)
    )
    keys = [*keys, *(f"/{key}" for key in keys)]
    return product(dict.fromkeys(datasets), dict.fromkeys(keys))


def normalise_names(names):
    """Returns a dataset and a key in the form in which they are compared."""
    return tuple(map(normalise_path, names))
