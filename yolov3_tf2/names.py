"""Compares names: when the names of two classes, datasets or files are equal."""

import unicodedata


def normalise_name(name):
    """Returns a name in the one form in which names are compared.

    Unicode NFC, without surrounding white space: macOS writes `é` as two characters,
    most other systems as one, and both are the same name.

    Example:
        >>> normalise_name(" cafe\\u0301 ") == "caf\\u00e9"
        True
    """
    return unicodedata.normalize("NFC", name).strip()


def unicode_forms(name):
    """Returns a name in both Unicode forms that files have, NFC first; one if equal.

    For tables that look names up as bytes and cannot normalise them.

    Example:
        >>> [len(form) for form in unicode_forms("caf\\u00e9")]
        [4, 5]
    """
    forms = (unicodedata.normalize(form, name) for form in ("NFC", "NFD"))
    return list(dict.fromkeys(forms))


def normalise_path(path):
    """Returns a path in NFC with forward slashes, no leading ones, no double ones.

    Example:
        >>> normalise_path("/a\\\\b//c.jpg")
        'a/b/c.jpg'
    """
    return normalise_slashes(unicodedata.normalize("NFC", path))


def normalise_slashes(path):
    """Returns a path like `normalise_path`, in the Unicode form that it has."""
    return "/".join(part for part in path.replace("\\", "/").split("/") if part)
