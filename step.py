"""What the step scripts share: parameters, outputs, metadata, readable errors."""

import difflib
import math
import os
import shutil
import signal
import sys
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path

# Before TensorFlow is imported. Its C++ code calls errors what is none, such as a
# slower way that it takes; what fails is raised in Python.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import valohai
from absl import flags, logging
from tqdm import tqdm

from yolov3_tf2.errors import InputError, reason

# The signals that tell a process to stop. Windows has no SIGHUP.
_STOPPING = [
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP")
    if hasattr(signal, name)
]


def run(main):
    """Runs a step's `main` and ends the process.

    With the status that `main` returns, 0 if none; 1 and one clear message where an
    input cannot be used; 128 and the number of the signal that stopped it.
    """
    flags.FLAGS(sys.argv[:1])  # absl writes a warning where its flags are not parsed.
    logging.use_absl_handler()
    logging.get_absl_handler().setFormatter(None)
    logging.get_absl_handler().addFilter(
        # TensorFlow's own notes, such as how long it took to shard a checkpoint.
        lambda record: record.levelno > 20 or "tensorflow" not in record.pathname
    )
    _write_above_bars(logging.get_absl_handler().python_handler)
    logging.set_verbosity(logging.INFO)
    received = exit_when_stopped()
    try:
        status = main() or 0
        for number in _STOPPING:
            # Too late: all is written, and TensorFlow takes its time to go.
            signal.signal(number, signal.SIG_IGN)
        sys.exit(status)
    except KeyboardInterrupt:
        _end_interrupted(received)
    except Exception as error:
        if received:
            # A signal in the midst of TensorFlow's C++ arrives as whatever it makes of
            # the exception, such as a SystemError.
            _end_interrupted(received)
        message = str(error)
        if type(error).__name__ == "ResourceExhaustedError":  # TensorFlow's.
            message = (
                f"out of memory: {reason(error)}; lower --batch_size or --size, or "
                "take a machine with more memory."
            )
        elif not isinstance(error, InputError | OSError):
            raise
        # An OSError is the machine's: a full disk, a folder that may not be written.
        logging.error("error: %s", message)
        sys.exit(1)


def _write_above_bars(handler):
    """Gives messages a line of their own, where a progress bar stands on the last."""
    emit = handler.emit

    def emit_above(record):
        with tqdm.external_write_mode(sys.stderr):
            emit(record)

    handler.emit = emit_above


def exit_when_stopped():
    """Lets a process that is told to stop clean up, as one that is interrupted does.

    Returns:
        A list to which the numbers of the signals are added that it receives.
    """
    received = []

    def stop(number, frame):
        received.append(number)
        raise KeyboardInterrupt

    for number in _STOPPING:
        signal.signal(number, stop)
    return received


def _end_interrupted(received):
    number = received[0] if received else signal.SIGINT
    logging.error("stopped by %s", signal.Signals(number).name)
    sys.exit(128 + number)


def import_tensorflow():
    """Imports TensorFlow without the lines on CPU features that its start prints.

    They come from C++ before any log level applies, six to each step, an "error" for
    every machine without a GPU among them. What a failing import has written is shown.
    """
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as hidden:
        os.dup2(hidden.fileno(), 2)
        try:
            import tensorflow

            # Looks for GPUs, and complains where there are none.
            tensorflow.config.list_physical_devices()
        except BaseException:
            hidden.seek(0)
            os.write(stderr, hidden.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def parameters(declared, inputs):
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


@contextmanager
def staged_outputs(quiet=False):
    """Gives a folder whose contents become the step's outputs when the block succeeds.

    Files and folders at its top move to the outputs under their names at the end, each
    in one move: no later step can take a half-written one for a whole one. Where the
    block fails, nothing of it is left.

    Args:
        quiet: say nothing in the log.
    """
    root = Path(valohai.outputs().path(".keep", makedirs=False)).parent
    made = [folder for folder in (root, root.parent) if not folder.exists()]
    root.mkdir(parents=True, exist_ok=True)
    for left in root.glob(".partial-*"):
        shutil.rmtree(left)  # Of a run that was killed.
    staging = Path(tempfile.mkdtemp(prefix=".partial-", dir=root))
    try:
        yield staging
        _publish(staging, root)
        if not quiet:
            logging.info("written to %s", _short(root))
    except BaseException:
        shutil.rmtree(staging)
        # The folders that a local run makes for its outputs, where still empty.
        with suppress(OSError):
            for folder in made:
                folder.rmdir()
        raise


def _publish(staging, root):
    """Moves what lies in `staging` to `root`, all of it or nothing."""
    # What was there before waits beside, in case that a move fails.
    before = Path(tempfile.mkdtemp(prefix=".partial-", dir=root))
    moved = []
    with signals_held():
        try:
            for path in sorted(staging.iterdir()):
                target = root / path.name
                if target.exists():
                    target.replace(before / path.name)
                moved.append(path.name)
                path.replace(target)
        except OSError:
            for name in moved:
                if (root / name).exists():
                    (root / name).replace(staging / name)
                if (before / name).exists():
                    (before / name).replace(root / name)
            raise
        finally:
            shutil.rmtree(before)
        staging.rmdir()


@contextmanager
def signals_held(told=None):
    """Lets the signals that stop a process wait for the end of the block.

    Args:
        told: a `SimpleQueue`; gets None at once for each that comes.
    """
    held = []

    def hold(number, frame):
        held.append(number)
        if told:
            told.put(None)

    handlers = {number: signal.signal(number, hold) for number in _STOPPING}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if held:  # Also where the block has failed.
            signal.raise_signal(held[0])


def outputs_folder():
    """Returns the folder that the step's outputs go to; makes it."""
    return Path(valohai.outputs().path(".keep")).parent


def _short(path):
    """A path as seen from here, where it lies below."""
    with suppress(ValueError):
        return path.resolve().relative_to(Path.cwd())
    return path


def log_metadata(**values):
    """Prints one JSON line of metadata; what is not finite is left out."""
    with valohai.logger() as logger:
        logger.log(**finite(values))
    sys.stdout.flush()


def finite(values):
    """Returns a dict without the numbers that are not finite, all Python's own."""
    clean = {}
    for name, value in values.items():
        if not isinstance(value, str):
            value = int(value) if float(value).is_integer() else float(value)
            if not math.isfinite(value):
                continue
        clean[name] = value
    return clean


def progress(iterable=None, **options):
    """A tqdm bar: live on a terminal, a line every ten seconds in a log."""
    interval = 0.1 if sys.stderr.isatty() else 10
    return tqdm(iterable, mininterval=interval, dynamic_ncols=True, **options)
