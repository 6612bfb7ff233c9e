"""The one error that a user can cause, and what TensorFlow calls errors."""

import re
from contextlib import contextmanager


class InputError(ValueError):
    """An input or parameter that cannot be used.

    The message says what and where, what was expected, what was found and the likely
    cause. A step prints it alone, without a traceback, and exits with status 1; any
    other exception is a defect of the program and keeps its traceback.
    """


@contextmanager
def writing(path):
    """Turns what TensorFlow raises where a file cannot be written into an `OSError`."""
    import tensorflow as tf

    try:
        yield
    except tf.errors.OpError as error:
        raise OSError(f"{path} cannot be written: {reason(error)}") from error


def reason(error):
    """The part of a TensorFlow error that says what is wrong, without its graph."""
    noise = (
        # Where in the program's source the failing operation was made.
        r"Graph execution error:|^Detected at node .*|^ *File \".*\", line \d+.*"
        r"|<stack traces unavailable>"
        r"|\{\{[^}]*\}\}|\[Op:.*|\[\[.*|assertion failed:"
        r"|Error in user-defined function passed to \S+ transformation with iterator: "
        r"\S+"
    )
    message = re.sub(noise, "", error.message, flags=re.MULTILINE)
    return " ".join(message.split())[:500].rstrip(".")
