"""What the step scripts share: parameters, outputs, metadata, readable errors."""

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

# Before TensorFlow is imported. Its C++ code calls errors what is none, such as a
# slower way that it takes; what fails is raised in Python.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


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
        logger.log(**finite_values(values))
    sys.stdout.flush()


def finite_values(values):
    """Returns a dict without the numbers that are not finite, all Python's own."""
    clean = {}
    for name, value in values.items():
        if not isinstance(value, str):
            value = int(value) if float(value).is_integer() else float(value)
            if not math.isfinite(value):
                continue
        clean[name] = value
    return clean


def progress_bar(iterable=None, **options):
    """A tqdm bar: live on a terminal, a line every ten seconds in a log."""
    interval = 0.1 if sys.stderr.isatty() else 10
    return tqdm(iterable, mininterval=interval, dynamic_ncols=True, **options)
