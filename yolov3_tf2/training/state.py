"""Checkpoints: the state of a training run as files, from which it resumes.

    epoch-0012.tf.index, epoch-0012.tf.data-…, epoch-0012.json    state after an epoch
    best-0009.tf.index, best-0009.tf.data-…, best-0009.json       best model so far

The names are unique, so that all files fit into one folder. A checkpoint is
complete when all its files exist: the `.json` is written last, and older files are
deleted after that. Random numbers are functions of the seed and the epoch, so they have
no state.
"""

import json
import shutil
from pathlib import Path

import tensorflow as tf

from yolov3_tf2.errors import InputError, writing
from yolov3_tf2.network import checkpoint

_SUFFIXES = (".tf.index", ".tf.data-00000-of-00001", ".json")


def save_best(folder, epoch, model_folder):
    """Copies the files of a saved model into `folder` as the best model so far.

    Returns:
        A list of the paths of the copies.
    """
    staging = _make_staging_folder(folder)
    for source, suffix in zip(checkpoint.FILES, _SUFFIXES, strict=True):
        shutil.copyfile(Path(model_folder) / source, staging / f"best{suffix}")
    return _move_to_final_names(folder, staging, "best", epoch)


def save_state(folder, epoch, variables, info, keep_older=False):
    """Writes the state after an epoch.

    Args:
        folder: a `pathlib.Path`, created if it is missing.
        epoch: number of the epoch.
        variables: see `Trainer.state`.
        info: a dict for JSON of what else a resumed training needs, `best_epoch` among
            it; save that model before.
        keep_older: do not delete older checkpoints.

    Returns:
        A list of the paths of its files.
    """
    staging = _make_staging_folder(folder)
    with writing(staging):
        tf.train.Checkpoint(**variables).write(str(staging / "epoch.tf"))
    text = json.dumps({"epoch": epoch, **info}, ensure_ascii=False, indent=1)
    (staging / "epoch.json").write_text(text + "\n", encoding="utf-8")
    written = _move_to_final_names(folder, staging, "epoch", epoch)
    if not keep_older:
        current = {_stem("epoch", epoch), _stem("best", info["best_epoch"])}
        for path in folder.iterdir():
            if path.name.split(".")[0] not in current:
                path.unlink()
    return written


def find_state(paths, may_be_partial=False):
    """Finds the newest complete state among files, together with its best model.

    Args:
        paths: list of `pathlib.Path`.
        may_be_partial: skip states with missing files, such as those of a machine that
            was shut down during their upload.

    Returns:
        The path of its `.json`; None if there is none.

    Raises:
        InputError: a `.json` is damaged, or files are missing.
    """
    states = [p for p in paths if p.name.startswith("epoch-") and p.suffix == ".json"]
    for path in sorted(states, key=lambda path: path.name, reverse=True):
        best = _stem("best", read_state_info(path)["best_epoch"])
        names = [stem + suffix for stem in (path.stem, best) for suffix in _SUFFIXES]
        missing = [name for name in names if not path.with_name(name).is_file()]
        if not missing:
            return path
        if not may_be_partial:
            raise InputError(
                f"{path}: expected {', '.join(missing)} in the same folder, got none; "
                "pass all files of the folder checkpoints/."
            )
    return None


def read_state_info(path):
    """Reads the `.json` of a state: the `info` given to `save_state`, and `epoch`.

    Raises:
        InputError: the file is damaged.
    """
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        int(info["epoch"]), int(info["best_epoch"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: expected the JSON of a checkpoint of train.py, got {error!r}; is "
            "the file truncated?"
        ) from error
    return info


def restore_state(path, variables):
    """Loads the variables of the state whose `.json` is at `path`.

    Raises:
        InputError: the checkpoint is damaged, or belongs to other variables.
    """
    prefix = path.with_name(path.stem + ".tf")
    try:
        status = tf.train.Checkpoint(**variables).read(str(prefix))
        status.assert_consumed()
    except (AssertionError, ValueError, tf.errors.OpError) as error:
        raise InputError(
            f"{prefix}: cannot resume from this checkpoint ({error}); expected one of "
            "the same network, with the same --transfer, --kept_rate, --freeze_epochs, "
            "--optimizer, --ema and --precision."
        ) from error


def copy_state(path, folder):
    """Copies the state at `path` and its best model into `folder`.

    Returns:
        A list of the paths of the copies.
    """
    if path.parent.resolve() == folder.resolve():
        return []
    info, written = read_state_info(path), []
    for kind, epoch in (("best", info["best_epoch"]), ("epoch", info["epoch"])):
        staging = _make_staging_folder(folder)
        for suffix in _SUFFIXES:
            source = path.with_name(_stem(kind, epoch) + suffix)
            shutil.copyfile(source, staging / (kind + suffix))
        written += _move_to_final_names(folder, staging, kind, epoch)
    return written


def restore_best(path, epoch, folder):
    """Copies the best model of the state at `path` into a new folder, as a model."""
    folder.mkdir()
    for suffix, target in zip(_SUFFIXES, checkpoint.FILES, strict=True):
        source = path.with_name(_stem("best", epoch) + suffix)
        shutil.copyfile(source, folder / target)


def _stem(kind, epoch):
    """Returns the part of a file's name before its suffix."""
    return f"{kind}-{epoch:04d}"


def _make_staging_folder(folder):
    """Makes an empty folder for files that are still incomplete."""
    staging = folder / ".partial"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    return staging


def _move_to_final_names(folder, staging, kind, epoch):
    """Moves staged files to their final names, `.json` last; returns their paths."""
    paths = [folder / (_stem(kind, epoch) + suffix) for suffix in _SUFFIXES]
    for suffix, path in zip(_SUFFIXES, paths, strict=True):
        (staging / f"{kind}{suffix}").replace(path)
    staging.rmdir()
    return paths
