"""The state of a training as files, from which it goes on where it ended.

    epoch-0012.tf.index, epoch-0012.tf.data-…, epoch-0012.json    all of the last epoch
    best-0009.tf.index, best-0009.tf.data-…, best-0009.json       the best model so far

The names are unique, as Valohai delivers files flat. A set is whole when all its files
are there: the `.json` is written last, and what it replaces goes after that. Random
numbers are functions of the seed and the epoch, and so are no state of their own.
"""

import json
import shutil
from pathlib import Path

import tensorflow as tf

from yolov3_tf2.errors import InputError, writing
from yolov3_tf2.network import checkpoint

_SUFFIXES = (".tf.index", ".tf.data-00000-of-00001", ".json")


def save_best(folder, epoch, model_folder):
    """Copies the files of a saved model into `folder` as the best one so far.

    Returns:
        A list of the paths of the copies.
    """
    staging = _staging(folder)
    for source, suffix in zip(checkpoint.FILES, _SUFFIXES, strict=True):
        shutil.copyfile(Path(model_folder) / source, staging / f"best{suffix}")
    return _publish(folder, staging, "best", epoch)


def save_state(folder, epoch, variables, facts, keep_older=False):
    """Writes the state after an epoch.

    Args:
        folder: a `pathlib.Path`, made where it is missing.
        epoch: its number.
        variables: see `Trainer.state`.
        facts: what else is to be known when the training goes on, for JSON: a dict
            with `best_epoch` among others; that model is to be saved before.
        keep_older: leaves older sets of files where they are.

    Returns:
        A list of the paths of its files.
    """
    staging = _staging(folder)
    with writing(staging):
        tf.train.Checkpoint(**variables).write(str(staging / "epoch.tf"))
    text = json.dumps({"epoch": epoch, **facts}, ensure_ascii=False, indent=1)
    (staging / "epoch.json").write_text(text + "\n", encoding="utf-8")
    written = _publish(folder, staging, "epoch", epoch)
    keep = {_name("epoch", epoch), _name("best", facts["best_epoch"])}
    for path in folder.iterdir():
        if path.name.split(".")[0] not in keep and not keep_older:
            path.unlink()
    return written


def find_state(paths, may_be_partial=False):
    """Finds the newest whole state among files, with the best model that belongs to it.

    Args:
        paths: list of `pathlib.Path`.
        may_be_partial: whether some files of the newest ones may be missing, as where
            a machine was lost while it uploaded them.

    Returns:
        The path of its `.json`; None if there is none.

    Raises:
        InputError: a `.json` is damaged, or files are missing.
    """
    states = [p for p in paths if p.name.startswith("epoch-") and p.suffix == ".json"]
    for path in sorted(states, key=lambda path: path.name, reverse=True):
        best = _name("best", read_facts(path)["best_epoch"])
        names = [stem + suffix for stem in (path.stem, best) for suffix in _SUFFIXES]
        missing = [name for name in names if not path.with_name(name).is_file()]
        if not missing:
            return path
        if not may_be_partial:
            raise InputError(
                f"{path}: expected {', '.join(missing)} beside it; give all files of "
                "the folder checkpoints/."
            )
    return None


def read_facts(path):
    """Reads what `save` was given as `facts`, and `epoch`.

    Raises:
        InputError: the file is damaged.
    """
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        int(facts["epoch"]), int(facts["best_epoch"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: expected the JSON that train.py wrote, got an error: {error!r}; "
            "was it cut off while it was copied?"
        ) from error
    return facts


def restore_state(path, variables):
    """Reads the variables of the state whose `.json` is at `path`.

    Raises:
        InputError: the checkpoint is damaged, or is not of these variables.
    """
    prefix = path.with_name(path.stem + ".tf")
    try:
        status = tf.train.Checkpoint(**variables).read(str(prefix))
        status.assert_consumed()
    except (AssertionError, ValueError, tf.errors.OpError) as error:
        raise InputError(
            f"{prefix}: cannot go on from this checkpoint ({error}); it must be of the "
            "same network, with the same --transfer, --kept_rate, --freeze_epochs, "
            "--optimizer, --ema and --precision."
        ) from error


def copy_state(path, folder):
    """Copies the state at `path`, and the best model beside it, into `folder`.

    Returns:
        A list of the paths of the copies.
    """
    if path.parent.resolve() == folder.resolve():
        return []
    facts, written = read_facts(path), []
    for kind, epoch in (("best", facts["best_epoch"]), ("epoch", facts["epoch"])):
        staging = _staging(folder)
        for suffix in _SUFFIXES:
            source = path.with_name(_name(kind, epoch) + suffix)
            shutil.copyfile(source, staging / (kind + suffix))
        written += _publish(folder, staging, kind, epoch)
    return written


def restore_best(path, epoch, folder):
    """Copies the best model beside the state at `path` into `folder`, as a model."""
    folder.mkdir()
    for suffix, target in zip(_SUFFIXES, checkpoint.FILES, strict=True):
        source = path.with_name(_name("best", epoch) + suffix)
        shutil.copyfile(source, folder / target)


def _name(kind, epoch):
    return f"{kind}-{epoch:04d}"


def _staging(folder):
    """An empty folder for files that are not whole yet."""
    staging = folder / ".partial"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    return staging


def _publish(folder, staging, kind, epoch):
    """Gives the files of a set their final names, the `.json` last; returns these."""
    paths = [folder / (_name(kind, epoch) + suffix) for suffix in _SUFFIXES]
    for suffix, path in zip(_SUFFIXES, paths, strict=True):
        (staging / f"{kind}{suffix}").replace(path)
    staging.rmdir()
    return paths
