"""What differs between a training run and the one that it resumes, in words."""

from absl import logging

from valohai_step.parameters import parse_sizes
from yolov3_tf2.errors import InputError

# They do not change what is learned in an epoch.
_HARMLESS = (
    "patience",
    "min_ap50",
    "checkpoint_epochs",
    "valohai_model",
    "valohai_alias",
    "valohai_tags",
)
# They decide which variables a checkpoint has.
_REFUSED = ("transfer", "optimizer")


def check_data(path, before, now):
    """Checks that a run is resumed with the images that it was started with.

    Args:
        path: of the checkpoint.
        before: the `data` of the checkpoint, see `training_outputs.Checkpoints`; None
            in one of an earlier version of this project.
        now: that of this run.

    Raises:
        InputError: the best epoch was chosen on other images.
    """
    if before is None:
        return
    (chosen_on,) = now.keys() - {"train"}
    if before.get(chosen_on) != now[chosen_on]:
        raise InputError(
            f"{path}: its best epoch was chosen on other {chosen_on} images than those "
            "of this run, and their AP cannot be compared; use the same images, or "
            "start from its best model: give its folder model/ as --model."
        )
    if before.get("train") != now["train"]:
        logging.warning("the training images are not those of the checkpoint")


def check_size(path, before, now):
    """Raises an `InputError` if AP was measured at another size until now.

    Args:
        path: of the checkpoint.
        before, now: see `changed_options`.
    """
    if "size" not in before:
        return
    old, new = (parse_sizes(options["size"])[-1] for options in (before, now))
    if old != new:
        raise InputError(
            f"{path}: its best epoch was chosen by AP at size {old}, which cannot be "
            f"compared with size {new}; use --size={before['size']}, or start from its "
            "best model: give its folder model/ as --model."
        )


def changed_options(before, now):
    """Returns the options that differ: a dict from name to both values.

    Args:
        before: dict of the options of the checkpoint; empty for one of an earlier
            version of this project, which does not have them.
        now: dict of the options of this run.
    """
    return {
        name: (value, now[name])
        for name, value in before.items()
        if name in now and now[name] != value and name not in _HARMLESS
    }


def describe_refused_options(changed):
    """Returns what to do where a checkpoint has other variables than the run."""
    refused = {name: changed[name] for name in _REFUSED if name in changed}
    if refused:
        return f"it was written with {_list_options(refused, 0)}: use the same"
    names = " and ".join(f"--{name}" for name in _REFUSED)
    return f"expected one of the same network, with the same {names}"


def log_changes(changed, initial, history, learning_rate):
    """Logs what a resumed run does differently, if anything.

    Args:
        changed: the result of `changed_options`.
        initial: the result of `state.restore_state`.
        history: list of the results of the epochs until now.
        learning_rate: of the next step.
    """
    if changed:
        logging.warning(
            "the checkpoint was written with %s; this run continues with %s",
            _list_options(changed, 0),
            _list_options(changed, 1),
        )
    # Of the last step before. There is none after epoch 0.
    before = history[-1].get("learning_rate", learning_rate)
    if abs(before - learning_rate) > 1e-3 * before:
        logging.info(
            "the learning rate continues at %.2g instead of %.2g, in the schedule of "
            "this run's epochs",
            learning_rate,
            before,
        )
    if "kept" in initial:
        logging.info(
            "the pretrained layers were frozen until now: their optimizer starts anew"
        )


def _list_options(changed, index):
    return ", ".join(f"--{name}={values[index]}" for name, values in changed.items())
