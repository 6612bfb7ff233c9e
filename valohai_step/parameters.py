"""Options of the steps: splitting a command line, typing the values, checking them.

The step scripts (`--name value`, `--name=value`) and the local runner
(`--node.name=value`) both use it, so the same values are accepted everywhere, and
rejected in the same words.
"""

import ast
import difflib
import math
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import valohai
from absl import logging

from valohai_step import option_help
from valohai_step.config_files import check_config_files
from yolov3_tf2.errors import InputError, describe

# Renamed options, from the former name to the present one. Both are accepted.
FORMER_NAMES = {"review_pictures": "review_images"}
_RENAMED = "--%s is now called --%s"

# The types of parameters as valohai.yaml names them: Python's, and what errors say.
_TYPES = {
    "flag": (bool, "true or false"),
    "integer": (int, "an integer"),
    "float": (float, "a number"),
    "string": (str, "a text"),
}


class Option(NamedTuple):
    """An option of a command line.

    Attributes:
        name: without the dashes.
        values: list of texts; empty where the option has none.
    """

    name: str
    values: list[str]


def split_options(arguments):
    """Splits the arguments of a command line into options and their values.

    Returns:
        A list of `Option`, in the order of the arguments.

    Raises:
        InputError: a value follows no option, or one that has its value behind a `=`.

    Example:
        >>> split_options(["--image", "a.jpg", "b.jpg", "--size=416"])[0]
        Option(name='image', values=['a.jpg', 'b.jpg'])
    """
    options, takes_values = [], False
    for argument in arguments:
        if argument.startswith("--"):
            name, equals, value = argument[2:].partition("=")
            options.append(Option(name, [value] if equals else []))
            takes_values = not equals
        elif takes_values:
            options[-1].values.append(argument)
        else:
            raise _unexpected_value(argument)
    return options


def read_option(name):
    """Returns the values of an option of this program's command line, a list."""
    options = split_options(sys.argv[1:])
    return [value for each in options if each.name == name for value in each.values]


@contextmanager
def without_command_line():
    """Hides the command line from `valohai.prepare`, which runs in the block.

    It also ends the step with one line if a config file of Valohai is damaged.

    valohai-utils would exit with its own usage message if a number is malformed, take
    any word for true, and only warn of unknown options. `read_parameters` reads the
    command line instead.
    """
    try:
        check_config_files()
    except InputError as error:
        # This runs before `run_step`, which prints errors.
        sys.exit(f"error: {describe(error)}")
    arguments, sys.argv[1:] = sys.argv[1:], []
    try:
        yield
    finally:
        sys.argv[1:] = arguments


def read_parameters(declared, inputs):
    """Returns the values of the step's parameters, checked against their declaration.

    The command line comes first, then Valohai's config files, then the defaults.

    Args:
        declared: the dict of parameters that the script passes to `valohai.prepare`.
        inputs: the dict of inputs that it passes.

    Returns:
        A dict from name to value.

    Raises:
        InputError: a value has the wrong type, is out of range or not among the
            choices, or the command line has an option that the step does not have.
    """
    if {"-h", "--help"} & set(sys.argv[1:]):
        _print_help(declared, inputs)
        sys.exit()
    of_command_line = _read_command_line(declared, inputs)
    values = {}
    for name, spec in declared.items():
        value = of_command_line.get(name)
        if value is None:
            value = _read_config_file(name)
        if value is None:  # Switched off in Valohai's web form.
            value = spec["default"]
        values[name] = check_value(name, spec, value)
    return values


def _print_help(declared, inputs):
    script = Path(sys.argv[0])
    docstring = ast.get_docstring(ast.parse(script.read_text(encoding="utf-8")))
    usage = f"python {script.name}"
    print(option_help.format_step_help(usage, docstring, declared, inputs))


def _read_command_line(declared, inputs):
    """Returns the parameters that this program's command line sets, by name."""
    options = {}
    for option in split_options(sys.argv[1:]):
        name = current_name(option.name, declared)
        if name not in declared and name not in inputs:
            raise unknown_option(option.name, [*declared, *inputs])
        if name in inputs:
            check_not_empty(name, option.values)
            continue
        check_one_name(options.get(name, option).name, option.name)
        options[name] = option  # The last one counts where an option is repeated.
    values = {}
    for name, option in options.items():
        values[name] = parse_value(option.name, declared[name], option.values)
        if name != option.name:
            logging.warning(_RENAMED, option.name, name)
    return values


def _read_config_file(name):
    """Returns a parameter of Valohai's config file, or else its default."""
    for former, present in FORMER_NAMES.items():
        value = valohai.parameters(former).value if present == name else None
        if value is not None:
            logging.warning(_RENAMED, former, name)
            return value
    return valohai.parameters(name).value


def check_one_name(name, other):
    """Raises an `InputError` if an option has both its former and its present name."""
    if name != other:
        raise InputError(
            f"--{name} and --{other} are the same option: expected only one of them, "
            "got both."
        )


def current_name(name, declared):
    """Returns the name under which a parameter is declared, for a former name too."""
    return name if name in declared else FORMER_NAMES.get(name, name)


def parse_value(option, spec, texts):
    """Turns what a command line has for a parameter into its value, checked.

    Args:
        option: name of the option, for errors, such as `epochs` or `train.epochs`.
        spec: dict with the parameter's `default` or `type`, and with its `choices`,
            `min` and `max` where it has them, as `valohai.prepare` takes it.
        texts: list of the texts that follow the option.

    Raises:
        InputError: there is not exactly one text, or it is not a valid value.
    """
    type_name = _type_name(spec)
    if type_name == "flag" and not texts:
        return True
    is_empty = texts == [""] == [spec.get("default")]
    text = "" if is_empty else only_value(option, texts)
    convert, expected = _TYPES[type_name]
    try:
        if type_name == "flag":
            value = {"true": True, "false": False}[text.lower()]
        else:
            value = convert(text)
    except (ValueError, KeyError):
        raise InputError(f"--{option}: expected {expected}, got {text!r}.") from None
    return check_value(option, spec, value)


def check_value(option, spec, value):
    """Checks the type, the choices and the range of a value; returns it.

    Args:
        option: see `parse_value`.
        spec: see `parse_value`.
        value: a bool, int, float or str. An int is turned into a float where the
            parameter is one.

    Raises:
        InputError: the value is not valid.
    """
    type_name = _type_name(spec)
    expected_type, expected = _TYPES[type_name]
    if type_name == "float" and type(value) is int:
        try:
            value = float(value)
        except OverflowError:  # An integer of more than 308 digits.
            value = math.inf
    if type(value) is not expected_type:
        raise InputError(f"--{option}: expected {expected}, got {value!r}.")
    if spec.get("choices") and value not in spec["choices"]:
        choices = ", ".join(map(str, spec["choices"]))
        raise InputError(f"--{option}: expected one of {choices}, got {value!r}.")
    low, high = spec.get("min", -math.inf), spec.get("max", math.inf)
    # Written so that NaN fails it too.
    if type_name in ("integer", "float") and not low <= value <= high:
        low, high, value = map(_format_number, (low, high, value))
        raise InputError(
            f"--{option}: expected a value from {low} to {high}, got {value}."
        )
    # A multiple of 32 is what no range can say.
    if option.rpartition(".")[2] == "size":
        check = parse_sizes if type_name == "string" else _check_size
        check(value, option)
    return value


def _format_number(number):
    return f"{number:g}" if isinstance(number, float) else str(number)


def _type_name(spec):
    """Returns the type of a parameter as valohai.yaml names it."""
    if "type" in spec:
        return spec["type"]
    names = {python_type: name for name, (python_type, _) in _TYPES.items()}
    return names[type(spec["default"])]


def _check_size(size, option):
    """Raises an `InputError` unless the network's strides divide a size in pixels."""
    if size % 32:
        raise InputError(
            f"--{option}: expected a multiple of 32, got {size}; the nearest are "
            f"{size // 32 * 32 or 32} and {(size // 32 + 1) * 32}."
        )


def parse_sizes(text, option="size"):
    """Returns the sizes of `416`, or of a range such as `320-608`, smallest first.

    Raises:
        InputError: it is neither, or an end is not a multiple of 32 from 32 to 4096.

    Example:
        >>> parse_sizes("320-384")
        [320, 352, 384]
    """
    ends = text.split("-")
    if len(ends) > 2 or not all(end.strip().isdecimal() for end in ends):
        raise InputError(
            f"--{option}: expected a number of pixels or a range such as 320-608, "
            f"got {text!r}."
        )
    low, high = int(ends[0]), int(ends[-1])
    for end in (low, high):
        if not 32 <= end <= 4096:
            raise InputError(f"--{option}: expected 32 to 4096 pixels, got {end}.")
        _check_size(end, option)
    if low > high:
        raise InputError(f"--{option}: expected the smaller end first, got {text}.")
    return list(range(low, high + 1, 32))


def only_value(option, values):
    """Returns the value of an option that takes exactly one.

    Raises:
        InputError: it has none, an empty one, or several.
    """
    check_not_empty(option, values)
    if len(values) > 1:
        raise InputError(f"--{option}: expected one value, got {' '.join(values)}.")
    return values[0]


def check_not_empty(option, values):
    """Raises an `InputError` where an option has no value, or an empty one."""
    if not values or not all(values):
        raise InputError(f"missing value for --{option}")


def unknown_option(name, known, prefix=""):
    """Returns the `InputError` for an option that does not exist.

    Args:
        name: of the option, without its prefix.
        known: list of the names that exist.
        prefix: what stands before each name, such as `train.`.
    """
    message = f"unknown option --{prefix}{name}"
    if known:
        message += f"; {suggest_name(name, known, f'--{prefix}')}"
    return InputError(message)


def suggest_name(name, known, prefix=""):
    """Returns a hint at the known name that is closest, or at all of them."""
    close = difflib.get_close_matches(name, known, 1)
    if close:
        return f"did you mean {prefix}{close[0]}?"
    return f"expected one of {', '.join(f'{prefix}{each}' for each in known)}."


def _unexpected_value(value):
    return InputError(f"unexpected value {value!r}: expected an option before it.")
