"""The error for what a user can cause, and shorter messages of TensorFlow errors."""

import errno
import os
import re
import unicodedata
from contextlib import contextmanager

# Control characters, separators of lines and paragraphs, and halves of surrogate pairs.
_NOT_IN_LINES = ("Cc", "Zl", "Zp", "Cs")


class InputError(ValueError):
    """An input or parameter that cannot be used.

    The message says where, what was expected, what was found and the likely cause. It
    is one line, see `one_line`, whatever names are in it. A step prints only the
    message and exits with status 1. Any other exception is a defect of the program and
    keeps its traceback.
    """

    def __init__(self, message=""):
        super().__init__(one_line(str(message)))


def one_line(text):
    """Returns a text with its line ends and control characters as escapes.

    A name can have them, and must neither break a line of the log nor, as escape
    sequences of a terminal, change what is shown.

    Example:
        >>> one_line("a\\nb\\x1b[2J")
        'a\\\\nb\\\\x1b[2J'
    """
    if text.isprintable():
        return text
    return "".join(
        c.encode("unicode_escape").decode()
        if unicodedata.category(c) in _NOT_IN_LINES
        else c
        for c in text
    )


# What a full, limited or read-only disk answers. The error of a file that is already
# open does not name the file.
_WRITE_ERRORS = [
    getattr(errno, name)
    for name in ("ENOSPC", "EDQUOT", "EFBIG", "EROFS")
    if hasattr(errno, name)
]


def list_first(items, separator="; ", number=10):
    """Returns the first of many texts as one line, with the number of the others.

    Example:
        >>> list_first(["a.", "b", "c"], ", ", 2)
        'a, b, and 1 more'
    """
    first = separator.join(str(each).rstrip(".") for each in items[:number])
    more = len(items) - number
    return f"{first}{separator}and {more} more" if more > 0 else first


@contextmanager
def collecting(messages):
    """Context that appends the message of an `InputError` to a list, and continues."""
    try:
        yield
    except InputError as error:
        messages.append(str(error))


def raise_collected(messages, what):
    """Raises one `InputError` for all messages of `collecting`, if there are any.

    Args:
        messages: list of strings.
        what: what they are about, with the beginning of a sentence: `a.zip: labels`.
    """
    messages = list(dict.fromkeys(messages))
    if len(messages) == 1:
        raise InputError(messages[0])
    if messages:
        number = len(messages)
        raise InputError(f"{what}, {number} cannot be used: {list_first(messages)}.")


@contextmanager
def writing(path):
    """Context that turns a TensorFlow error on writing `path` into an `OSError`.

    Its number is `EIO` where TensorFlow's words are not those of the system.
    """
    import tensorflow as tf

    try:
        yield
    except tf.errors.OpError as error:
        # The name of a temporary file is before the semicolon.
        cause = reason(error).rpartition("; ")[2]
        numbers = {os.strerror(number): number for number in _WRITE_ERRORS}
        number = numbers.get(cause, errno.EIO)
        raise OSError(number, cause, str(path)) from error


@contextmanager
def naming(path):
    """Context that makes an `OSError` name the file that is written in it.

    The error of an open file on a full disk does not.
    """
    try:
        yield
    except OSError as error:
        if error.strerror and not error.filename:
            error.filename = str(path)
        raise


def is_write_error(error):
    """Whether an `OSError` is about writing, whatever the file."""
    return error.errno in _WRITE_ERRORS


def describe(error):
    """Returns the message of an exception as one line, without staging folders.

    Files are written to folders named `.partial…` and then moved to their places. A
    message names the place, as the folder no longer exists when it is read.

    Example:
        >>> describe(OSError(28, "No space left", "outputs/.partial-x7f3/model.json"))
        'outputs/model.json cannot be written: No space left'
    """
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        names = (error.filename, error.filename2)
        names = [one_line(str(name)) for name in names if name]
        subject = " to ".join(names) or ("a file" if is_write_error(error) else "")
        verb = " cannot be written" if is_write_error(error) else ""
        text = f"{subject}{verb}: {error.strerror}" if subject else error.strerror
    text = without_staging(text)
    # Those of this project are one line, with the spaces of the names in them.
    return text if isinstance(error, InputError) else one_line(" ".join(text.split()))


def without_staging(text):
    """Returns a text without the staging folders in its paths, see `describe`."""
    return re.sub(r"[/\\]\.partial[\w-]*", "", text)


def reason(error):
    """Returns the message of a TensorFlow error without its graph and source lines."""
    noise = (
        # Where the operation was created in the source.
        r"Graph execution error:|^Detected at node .*|^ *File \".*\", line \d+.*"
        r"|<stack traces unavailable>"
        r"|\{\{[^}]*\}\}|\[Op:.*|\[\[.*|assertion failed:"
        r"|Error in user-defined function passed to \S+ transformation with iterator: "
        r"\S+"
    )
    message = re.sub(noise, "", error.message, flags=re.MULTILINE)
    return shorten(message).rstrip(".")


def shorten(message):
    """Returns a message of another package as one line of at most 500 characters."""
    return one_line(" ".join(str(message).split()))[:500]
