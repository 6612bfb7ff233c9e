"""The error for what a user can cause, and shorter messages of TensorFlow errors."""

import re
from contextlib import contextmanager


class InputError(ValueError):
    """An input or parameter that cannot be used.

    The message says where, what was expected, what was found and the likely cause. A
    step prints only the message and exits with status 1. Any other exception is a
    defect of the program and keeps its traceback.
    """


def list_first(messages, number=10):
    """Returns the first of many messages as one line, with the number of the others."""
    first = "; ".join(str(each).rstrip(".") for each in messages[:number])
    more = len(messages) - number
    return f"{first}; and {more} more" if more > 0 else first


@contextmanager
def collecting(messages):
    """Context that appends the message of an `InputError` to a list, and goes on."""
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
    """Context that turns a TensorFlow error on writing `path` into an `OSError`."""
    import tensorflow as tf

    try:
        yield
    except tf.errors.OpError as error:
        raise OSError(f"{path} cannot be written: {reason(error)}") from error


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
    return " ".join(message.split())[:500].rstrip(".")
