"""The encoding of file names in archives that do not declare one.

A zip of Windows has its names in the encoding of that Windows, and does not say which.
"""

from yolov3_tf2.names import normalise_path

# Without knowing any name, the first one in which all names are valid counts.
_DEFAULTS = ("utf-8", "cp949")
# Of Korean, Japanese, Chinese (simplified, traditional), Western, Central European and
# Cyrillic Windows: the ones with two encodings use the first of them in zips.
_ENCODINGS = (
    *_DEFAULTS,
    *("cp932", "cp936", "cp950", "cp437", "cp850", "cp1252"),
    *("cp852", "cp1250", "cp866", "cp1251"),
)


def decode_names(raw_names):
    """Returns names whose encoding is not declared, in one encoding if one fits all.

    Args:
        raw_names: list of bytes.

    Returns:
        A list of strings: all in UTF-8, or else all in Korean. If neither fits all,
        each name in the one that fits it, or as CP437, the encoding of the first zips.
    """
    for encoding in _DEFAULTS:
        names = _decode_all(raw_names, encoding)
        if names is not None:
            return names
    return list(map(_decode_alone, raw_names))


def decode_known_names(raw_names, known):
    """Returns names as the encoding has them in which most of them are known.

    Args:
        raw_names: list of bytes.
        known: the result of `known_parts`.

    Returns:
        A list of strings; that of `decode_names` if no encoding is better.
    """
    best = decode_names(raw_names)
    most = _count_known(best, known)
    for encoding in _ENCODINGS:
        names = _decode_all(raw_names, encoding)
        number = 0 if names is None else _count_known(names, known)
        if number > most:
            best, most = names, number
    return best


def known_parts(paths):
    """Returns the names of folders and files in paths that need an encoding, a set."""
    parts = (part for path in paths for part in normalise_path(path).split("/"))
    return {part for part in parts if not part.isascii()}


def _decode_alone(raw):
    for encoding in _DEFAULTS:
        names = _decode_all([raw], encoding)
        if names:
            return names[0]
    return raw.decode("cp437")  # Every byte is valid in it.


def _decode_all(raw_names, encoding):
    """Returns names in an encoding; None if one of them is not valid in it."""
    try:
        return [raw.decode(encoding) for raw in raw_names]
    except UnicodeDecodeError:
        return None


def _count_known(names, known):
    """Counts the parts of paths that are known, with or without an extension."""
    parts = (part for name in names for part in normalise_path(name).split("/"))
    return sum(
        part in known or part.rpartition(".")[0] in known
        for part in parts
        if not part.isascii()
    )
