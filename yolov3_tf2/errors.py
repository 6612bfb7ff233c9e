"""The one error that a user can cause."""


class InputError(ValueError):
    """An input or parameter that cannot be used.

    The message says what and where, what was expected, what was found and the likely
    cause. A step prints it alone, without a traceback, and exits with status 1; any
    other exception is a defect of the program and keeps its traceback.
    """
