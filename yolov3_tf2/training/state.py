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

from yolov3_tf2.errors import InputError, reason, writing
from yolov3_tf2.network import checkpoint

# What only some runs have: the optimizer of the pretrained layers, which may be frozen,
# and the scale of the loss, for float16.
OPTIONAL_GROUPS = ("kept", "loss_scale")

_SUFFIXES = (".tf.index", ".tf.data-00000-of-00001", ".json")
_KEY_END = "/.ATTRIBUTES/VARIABLE_VALUE"


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
    with writing(staging / "epoch.tf"):
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


def restore_state(path, variables, advice):
    """Loads the variables of the state whose `.json` is at `path`.

    A group of `OPTIONAL_GROUPS` may be in the checkpoint alone, where it is not needed,
    or in `variables` alone, where its initial values are right, as it has not been used
    until now. So layers that were frozen can be trained later, and the other way round,
    and the precision may change with the machine.

    Args:
        path: see `find_state`.
        variables: see `Trainer.state`.
        advice: what to do where they do not fit, for the error.

    Returns:
        The set of the groups in `OPTIONAL_GROUPS` that keep their initial values.

    Raises:
        InputError: the checkpoint is damaged, or belongs to other variables.
    """
    prefix = path.with_name(path.stem + ".tf")
    try:
        reader = tf.train.load_checkpoint(str(prefix))
        found = {
            key: tuple(shape)
            for key, shape in reader.get_variable_to_shape_map().items()
            if key.endswith(_KEY_END)
        }
        keys = {_checkpoint_key(name): name for name in variables}
        wanted = {key: tuple(variables[name].shape) for key, name in keys.items()}
        initial = _optional_groups(wanted) - _optional_groups(found)
        unused = _optional_groups(found) - _optional_groups(wanted)
        found = {k: shape for k, shape in found.items() if _group(k) not in unused}
        wanted = {k: shape for k, shape in wanted.items() if _group(k) not in initial}
        if found != wanted:
            raise InputError(
                f"{prefix}: cannot resume from this checkpoint: "
                f"{_describe_difference(found, wanted)}; {advice}."
            )
        read = {keys[key]: variables[keys[key]] for key in wanted}
        status = tf.train.Checkpoint(**read).read(str(prefix))
        status.assert_existing_objects_matched()
    except (tf.errors.OpError, RuntimeError, IndexError, AssertionError) as error:
        # The reader raises an IndexError where a file ends too early.
        words = reason(error) if isinstance(error, tf.errors.OpError) else error
        raise InputError(
            f"{prefix}: cannot be read ({words}); was the file cut off while it was "
            "copied?"
        ) from error
    return initial


def _checkpoint_key(name):
    """Returns the key of a variable in a checkpoint, as TensorFlow escapes its name."""
    return name.replace(".", "..").replace("/", ".S") + _KEY_END


def _group(key):
    """Returns the group in `OPTIONAL_GROUPS` of a key; None if it is in none."""
    name = key.partition(".S")[0]
    return name if name in OPTIONAL_GROUPS else None


def _optional_groups(keys):
    return {_group(key) for key in keys} - {None}


def _describe_difference(found, wanted):
    """Returns how the variables of a checkpoint differ from those expected.

    Args:
        found, wanted: dicts from key to shape.
    """
    parts = []
    for keys, words in (
        (sorted(wanted.keys() - found.keys()), "it lacks"),
        (sorted(found.keys() - wanted.keys()), "it has in addition"),
    ):
        if keys:
            name = keys[0].removesuffix(_KEY_END).replace(".S", "/").replace("..", ".")
            more = f" and {len(keys) - 1} more" if keys[1:] else ""
            parts.append(f"{words} {name}{more}")
    if not parts:
        key = next(key for key in sorted(wanted) if found[key] != wanted[key])
        name = key.removesuffix(_KEY_END).replace(".S", "/").replace("..", ".")
        parts.append(f"expected {name} of shape {wanted[key]}, got {found[key]}")
    return ", ".join(parts)


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
