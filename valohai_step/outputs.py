"""What a step writes: its output files, its metadata and its progress."""

import math
import os
import shutil
import sys
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path

import valohai
from absl import logging
from tqdm import tqdm

from valohai_step import runtime
from yolov3_tf2.errors import is_write_error, without_staging

# Set before TensorFlow is imported. Its C++ code logs harmless events as errors, such
# as the use of a slower implementation; real errors are raised in Python.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@contextmanager
def staged_outputs(quiet=False):
    """Yields a folder whose contents become the step's outputs if the block succeeds.

    Its files and folders are moved to the outputs at the end, each in one move, so a
    later step never sees a half-written one. If the block fails, nothing is left.

    Args:
        quiet: whether to log nothing.
    """
    root = Path(valohai.outputs().path(".keep", makedirs=False)).parent
    made = [folder for folder in (root, root.parent) if not folder.exists()]
    with writing_outputs(root):
        root.mkdir(parents=True, exist_ok=True)
        for left in root.glob(".partial-*"):
            shutil.rmtree(left)  # From a run that was killed.
        staging = Path(tempfile.mkdtemp(prefix=".partial-", dir=root))
    try:
        with writing_outputs(root, staging):
            yield staging
            _publish(staging, root)
        if not quiet:
            logging.info("written to %s", _short(root))
    except BaseException:
        with suppress(OSError):  # It would hide the error that is the cause.
            shutil.rmtree(staging)
        # The folders made above, if they are still empty.
        with suppress(OSError):
            for folder in made:
                folder.rmdir()
        raise


def check_outputs():
    """Raises an `OSError` if outputs cannot be written; leaves nothing behind.

    For steps that change more than their outputs before they write these.
    """

    class Checked(Exception):
        pass

    with suppress(Checked), staged_outputs() as folder:
        (folder / "file").write_bytes(b"0")
        raise Checked


def _publish(staging, root):
    """Moves the contents of `staging` to `root`, all of it or nothing."""
    # Replaced outputs are kept until the end, in case a move fails.
    before = Path(tempfile.mkdtemp(prefix=".partial-", dir=root))
    moved = []
    with runtime.signals_held():
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
def writing_outputs(root, staging=None):
    """Makes an `OSError` on writing name the outputs folder and what was written.

    Args:
        root: the folder of the step's outputs.
        staging: the folder in it where unfinished files are.
    """
    try:
        yield
    except OSError as error:
        what = _find_unwritten(error, root, staging)
        if what is None:  # It is about something else, such as an input.
            raise
        raise OSError(
            f"outputs folder {root}: {what} cannot be written: {error.strerror}; "
            "free space or allow writing there, or set VH_OUTPUTS_DIR to another "
            "folder."
        ) from error


def _find_unwritten(error, root, staging):
    """Returns the name of the output that an error is about; None if it is of none."""
    # Of a copy, the second name is that of the target.
    for name in filter(None, (error.filename2, error.filename)):
        path = Path(os.fsdecode(name))
        if path in (root, *root.parents):
            return "the folder"
        if path.is_relative_to(root):
            return _output_name(path, root)
    if error.filename or not is_write_error(error):
        return None
    # The error of an open file does not name it: it is the one written last.
    files = [path for path in (staging or root).rglob("*") if path.is_file()]
    newest = max(files, key=lambda path: path.stat().st_mtime_ns, default=root)
    return _output_name(newest, root)


def _output_name(path, root):
    """Returns the name of an output, without the staging folder that it is still in."""
    name = without_staging(f"/{path.relative_to(root).as_posix()}").strip("/.")
    return name or "a file"


def outputs_folder():
    """Creates the folder of the step's outputs; returns its path."""
    root = Path(valohai.outputs().path(".keep", makedirs=False)).parent
    with writing_outputs(root):
        root.mkdir(parents=True, exist_ok=True)
    return root


def _short(path):
    """Returns a path relative to the current folder, if it is below it."""
    with suppress(ValueError):
        return path.resolve().relative_to(Path.cwd())
    return path


def log_metadata(**values):
    """Prints one JSON line of metadata, without values that are not finite."""
    with valohai.logger() as logger:
        logger.log(**finite_values(values))
    sys.stdout.flush()


def finite_values(values):
    """Returns a dict with its numbers as Python's, without those that are not finite.

    NumPy's numbers would be printed as strings, and NaN is no valid JSON.
    """
    clean = {}
    for name, value in values.items():
        if not isinstance(value, str):
            value = int(value) if float(value).is_integer() else float(value)
            if not math.isfinite(value):
                continue
        clean[name] = value
    return clean


def progress_bar(iterable=None, **options):
    """Returns a tqdm bar: live on a terminal, a line every ten seconds in a log."""
    interval = 0.1 if sys.stderr.isatty() else 10
    return _Bar(iterable, mininterval=interval, dynamic_ncols=True, **options)


class _Bar(tqdm):
    """A bar that stays hidden during its `delay`, also while lines are logged."""

    def refresh(self, *args, **options):
        delay = getattr(self, "delay", 0)  # Versions before 4.56 have none.
        # As `tqdm.close` decides whether to end the line of the bar.
        if not delay or self.last_print_t >= self.start_t + delay:
            super().refresh(*args, **options)
