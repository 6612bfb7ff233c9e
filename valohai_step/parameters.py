"""TODO docstring."""

import difflib
import math
import sys

import valohai

from yolov3_tf2.errors import InputError


def read_parameters(declared, inputs):
    """Returns the values of the step's parameters, checked against their declaration.

    Args:
        declared: the dict that the script gave to `valohai.prepare`.
        inputs: the dict of inputs that it gave.

    Returns:
        A dict from name to value.

    Raises:
        InputError: a value is of the wrong type, out of its range or none of its
            choices, or the command line has a name that the step does not know.
    """
    _check_arguments(declared, inputs)
    values = {}
    for name, spec in declared.items():
        value, default = valohai.parameters(name).value, spec["default"]
        if value is None:  # Switched off in Valohai's form.
            value = default
        if isinstance(default, float) and isinstance(value, int):
            value = float(value)
        if type(value) is not type(default):
            raise InputError(
                f"--{name}: expected {type(default).__name__}, got {value!r}."
            )
        if "choices" in spec and value not in spec["choices"]:
            raise InputError(
                f"--{name}: expected one of {', '.join(spec['choices'])}, "
                f"got {value!r}."
            )
        low, high = spec.get("min", -math.inf), spec.get("max", math.inf)
        # Written so that NaN fails it too.
        if isinstance(value, int | float) and not low <= value <= high:
            raise InputError(
                f"--{name}: expected a value from {low:g} to {high:g}, got {value:g}."
            )
        values[name] = value
    return values


def _check_arguments(declared, inputs):
    """Raises an `InputError` for an argument that valohai-utils would only warn of."""
    known = [*declared, *inputs]
    follows_input, follows_parameter = False, None
    for argument in sys.argv[1:]:
        name, _, value = argument.removeprefix("--").partition("=")
        if argument.startswith("--") and name not in known:
            raise InputError(
                f"{argument}: there is no parameter or input '{name}' "
                f"({did_you_mean(name, known)})."
            )
        if argument.startswith("--"):
            may_be_empty = name in declared and declared[name]["default"] == ""
            if "=" in argument and not value and not may_be_empty:
                raise InputError(f"{argument}: expected a value behind it, got none.")
            follows_input = name in inputs and not value
            follows_parameter = name if name in declared and not value else None
            if name in declared and value:
                _check_flag(name, declared[name], value)
        elif follows_parameter:
            _check_flag(follows_parameter, declared[follows_parameter], argument)
            follows_parameter = None
        elif not follows_input:
            raise InputError(
                f"{argument}: expected an option before it, as in "
                f"--{next(iter(inputs))} {argument}."
            )


def _check_flag(name, spec, value):
    """Raises an `InputError` where valohai-utils would take any word for true."""
    if isinstance(spec["default"], bool) and value.lower() not in ("true", "false"):
        raise InputError(f"--{name}: expected true or false, got {value!r}.")


def did_you_mean(name, known):
    """A hint at the name that was meant, or a list of those that there are."""
    close = difflib.get_close_matches(name, known, 1)
    return f"did you mean --{close[0]}?" if close else f"known: {', '.join(known)}"


def check_size(size):
    """Raises an `InputError` unless `size` suits the network's strides."""
    if size % 32:
        raise InputError(
            f"--size: expected a multiple of 32, got {size}; "
            f"{size // 32 * 32 or 32} and {(size // 32 + 1) * 32} are the nearest."
        )


def check_size_range(text):
    """Returns the sizes of `416`, or of a range such as `320-608`, smallest first.

    Raises:
        InputError: it is neither, or an end is no multiple of 32 from 32 to 4096.
    """
    ends = text.split("-")
    if len(ends) > 2 or not all(end.strip().isdecimal() for end in ends):
        raise InputError(
            f"--size: expected a number of pixels or a range such as 320-608, "
            f"got {text!r}."
        )
    low, high = int(ends[0]), int(ends[-1])
    for end in (low, high):
        if not 32 <= end <= 4096:
            raise InputError(f"--size: expected 32 to 4096 pixels, got {end}.")
        check_size(end)
    if low > high:
        raise InputError(f"--size: expected the smaller end first, got {text}.")
    return list(range(low, high + 1, 32))
