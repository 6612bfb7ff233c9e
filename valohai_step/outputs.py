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
    root.mkdir(parents=True, exist_ok=True)
    for left in root.glob(".partial-*"):
        shutil.rmtree(left)  # From a run that was killed.
    staging = Path(tempfile.mkdtemp(prefix=".partial-", dir=root))
    try:
        yield staging
        _publish(staging, root)
        if not quiet:
            logging.info("written to %s", _short(root))
    except BaseException:
        shutil.rmtree(staging)
        # The folders made above, if they are still empty.
        with suppress(OSError):
            for folder in made:
                folder.rmdir()
        raise


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


def outputs_folder():
    """Creates the folder of the step's outputs; returns its path."""
    return Path(valohai.outputs().path(".keep")).parent


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
        # As `tqdm.close` decides whether to end the line of the bar.
        if not self.delay or self.last_print_t >= self.start_t + self.delay:
            super().refresh(*args, **options)
