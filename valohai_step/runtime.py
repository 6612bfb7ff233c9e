"""Running a step's `main`: logging, signals, exit status, importing TensorFlow."""

import logging as python_logging
import os
import signal
import sys
import tempfile
from contextlib import contextmanager

from absl import flags, logging
from tqdm import tqdm

from yolov3_tf2.errors import InputError, describe, one_line, reason

# Windows has no SIGHUP.
_STOP_SIGNALS = [
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP")
    if hasattr(signal, name)
]


def run_step(main):
    """Runs a step's `main` and exits.

    The exit status is what `main` returns, or 0 if that is None; 1 with one line for an
    `InputError` or `OSError`; 128 plus the number of the signal that stopped the step.
    """
    set_up_logging()
    received = exit_when_stopped()
    try:
        status = main() or 0
        for number in _STOP_SIGNALS:
            # Everything is written, but TensorFlow takes a while to exit.
            signal.signal(number, signal.SIG_IGN)
        sys.exit(status)
    except KeyboardInterrupt:
        _end_interrupted(received)
    except Exception as error:
        if received:
            # TensorFlow's C++ code can turn the KeyboardInterrupt into another
            # exception, such as a SystemError.
            _end_interrupted(received)
        message = describe(error)
        if type(error).__name__ == "ResourceExhaustedError":  # TensorFlow's.
            message = (
                f"out of memory: {reason(error)}; lower --batch_size or --size, or "
                "use a machine with more memory."
            )
        elif not isinstance(error, InputError | OSError):
            raise
        # An OSError comes from the machine, such as a full disk or a read-only folder.
        logging.error("error: %s", message)
        sys.exit(1)


def set_up_logging():
    """Makes absl's log one of plain lines, from the level of information on."""
    handler = logging.get_absl_handler()
    if isinstance(handler.python_handler.formatter, _StepFormatter):
        return
    flags.FLAGS(sys.argv[:1])  # absl warns if its flags are not parsed.
    logging.use_absl_handler()
    handler.setFormatter(_StepFormatter())
    handler.addFilter(
        # Hides TensorFlow's notes, such as how long it took to shard a checkpoint.
        lambda record: record.levelno > 20 or "tensorflow" not in record.pathname
    )
    _write_above_bars(handler.python_handler)
    logging.set_verbosity(logging.INFO)


class _StepFormatter(python_logging.Formatter):
    """Marks warnings as such; errors say so themselves.

    A message is one line, whatever names are in it, unless its format has line ends.
    """

    def format(self, record):
        message = super().format(record)
        if not record.exc_info and "\n" not in str(record.msg):
            message = one_line(message)
        is_warning = record.levelno == python_logging.WARNING
        return f"WARNING: {message}" if is_warning else message


def _write_above_bars(handler):
    """Makes a handler write its messages above a progress bar, not into it."""
    emit = handler.emit

    def emit_above(record):
        with tqdm.external_write_mode(sys.stderr):
            emit(record)

    handler.emit = emit_above


def exit_when_stopped():
    """Makes all stop signals raise a `KeyboardInterrupt`, so that cleanup code runs.

    Returns:
        A list to which the number of each received signal is added.
    """
    received = []

    def stop(number, frame):
        received.append(number)
        raise KeyboardInterrupt

    for number in _STOP_SIGNALS:
        signal.signal(number, stop)
    return received


def _end_interrupted(received):
    number = received[0] if received else signal.SIGINT
    logging.error("stopped by %s", signal.Signals(number).name)
    sys.exit(128 + number)


def import_tensorflow():
    """Imports TensorFlow without the messages that it prints when it starts.

    They come from C++ before any log level applies: CPU features, and "errors" on every
    machine without a GPU. If the import fails, its messages are shown.
    """
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as hidden:
        os.dup2(hidden.fileno(), 2)
        try:
            import tensorflow

            # Searches for GPUs, and complains if there are none.
            tensorflow.config.list_physical_devices()
        except BaseException:
            hidden.seek(0)
            os.write(stderr, hidden.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


@contextmanager
def signals_held(events=None):
    """Delays stop signals until the end of the block.

    Args:
        events: a `SimpleQueue`; None is put into it for each signal, immediately.
    """
    held = []

    def hold(number, frame):
        held.append(number)
        if events:
            events.put(None)

    handlers = {number: signal.signal(number, hold) for number in _STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if held:  # Also if the block has failed.
            signal.raise_signal(held[0])
