"""When two names are the same: of classes, of data sets and of files."""

import unicodedata


def normalise_name(name):
    """Returns a name as all parts of the project compare it.

    Unicode NFC, without white space around it: macOS writes `é` as two characters, most
    other systems as one, and both are the same name.

    Example:
        >>> normalise_name(" cafe\\u0301 ") == "caf\\u00e9"
        True
    """
    return unicodedata.normalize("NFC", name).strip()


def normalise_path(path):
    """Returns a path in one form: NFC, forward slashes, none of them leading or double.

    Example:
        >>> normalise_path("/a\\\\b//c.jpg")
        'a/b/c.jpg'
    """
    path = unicodedata.normalize("NFC", path.replace("\\", "/"))
    return "/".join(part for part in path.split("/") if part)
