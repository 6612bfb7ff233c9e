"""The state of a training as files, from which it goes on where it ended.

    epoch-0012.tf.index, epoch-0012.tf.data-…, epoch-0012.json    all of the last epoch
    best-0009.tf.index, best-0009.tf.data-…, best-0009.json       the best model so far

The names are unique, as Valohai delivers files flat. A set is whole when its `.json` is
there: it is written last, and what it replaces goes after that. Random numbers are
functions of the seed and the epoch, and so are no state of their own.
"""

import json
import shutil
from pathlib import Path

import tensorflow as tf

from yolov3_tf2 import checkpoint
from yolov3_tf2.errors import InputError, writing

_SUFFIXES = (".tf.index", ".tf.data-00000-of-00001", ".json")


def save_best(folder, epoch, model_folder):
    """Copies the files of a saved model into `folder` as the best one so far."""
    staging = _staging(folder)
    for source, suffix in zip(checkpoint.FILES, _SUFFIXES, strict=True):
        shutil.copyfile(Path(model_folder) / source, staging / f"best{suffix}")
    _publish(folder, staging, "best", epoch)


def save(folder, epoch, variables, facts):
    """Writes the state after an epoch; older sets of files go.

    Args:
        folder: a `pathlib.Path`, made where it is missing.
        epoch: its number.
        variables: see `Trainer.state`.
        facts: what else is to be known when the training goes on, for JSON: a dict
            with `best_epoch` among others.
    """
    staging = _staging(folder)
    with writing(staging):
        tf.train.Checkpoint(**variables).write(str(staging / "epoch.tf"))
    text = json.dumps({"epoch": epoch, **facts}, ensure_ascii=False, indent=1)
    (staging / "epoch.json").write_text(text + "\n", encoding="utf-8")
    _publish(folder, staging, "epoch", epoch)
    keep = {_name("epoch", epoch), _name("best", facts["best_epoch"])}
    for path in folder.iterdir():
        if path.name.split(".")[0] not in keep:
            path.unlink()


def find(paths):
    """Finds the newest whole state among files.

    Args:
        paths: list of `pathlib.Path`.

    Returns:
        The path of its `.json`; None if there is none.
    """
    whole = [
        path
        for path in paths
        if path.name.startswith("epoch-")
        and path.suffix == ".json"
        and all(path.with_name(path.stem + suffix).is_file() for suffix in _SUFFIXES)
    ]
    return max(whole, key=lambda path: path.name, default=None)


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


def restore(path, variables):
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


def copy(path, folder):
    """Copies the state at `path`, and the best model beside it, into `folder`."""
    if path.parent.resolve() == folder.resolve():
        return
    facts = read_facts(path)
    for kind, epoch in (("best", facts["best_epoch"]), ("epoch", facts["epoch"])):
        staging = _staging(folder)
        for suffix in _SUFFIXES:
            source = _require(path, _name(kind, epoch) + suffix)
            shutil.copyfile(source, staging / (kind + suffix))
        _publish(folder, staging, kind, epoch)


def restore_best(path, epoch, folder):
    """Copies the best model beside the state at `path` into `folder`, as a model.

    Raises:
        InputError: its files are not there.
    """
    folder.mkdir()
    for suffix, target in zip(_SUFFIXES, checkpoint.FILES, strict=True):
        source = _require(path, _name("best", epoch) + suffix)
        shutil.copyfile(source, folder / target)


def _require(path, name):
    source = path.with_name(name)
    if not source.is_file():
        raise InputError(
            f"{source}: expected beside {path.name}, but it is missing; give all files "
            "of the folder checkpoints/."
        )
    return source


def _name(kind, epoch):
    return f"{kind}-{epoch:04d}"


def _staging(folder):
    """An empty folder for files that are not whole yet."""
    staging = folder / ".partial"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    return staging


def _publish(folder, staging, kind, epoch):
    """Gives the files of a set their final names, the `.json` last."""
    for suffix in _SUFFIXES:
        (staging / f"{kind}{suffix}").replace(folder / (_name(kind, epoch) + suffix))
    staging.rmdir()
