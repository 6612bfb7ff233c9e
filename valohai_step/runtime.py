"""TODO docstring."""

import os
import signal
import sys
import tempfile
from contextlib import contextmanager

from absl import flags, logging
from tqdm import tqdm

from yolov3_tf2.errors import InputError, reason

# The signals that tell a process to stop. Windows has no SIGHUP.
_STOPPING = [
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP")
    if hasattr(signal, name)
]


def run_step(main):
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
