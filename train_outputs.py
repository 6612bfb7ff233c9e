"""What a training leaves: the best model, checkpoints to go on from, and plots."""

import itertools
import math

from absl import logging

import step
from yolov3_tf2 import checkpoint, evaluate, pictures, plots, records, training_state
from yolov3_tf2.dataset import iterate
from yolov3_tf2.errors import InputError

WORST_PICTURES = 8


def resume(paths, trainer, variant, class_names):
    """Puts the trainer where an earlier training ended.

    Args:
        paths: the files of its checkpoints, or an empty list.

    Returns:
        The history of that training, a list of the results of its epochs; empty if
        there is none to go on from.

    Raises:
        InputError: the checkpoints are of other classes, or damaged.
    """
    path = training_state.find(paths)
    if path is None:
        if paths:
            logging.warning("no whole checkpoint among the files given: from the start")
        return []
    facts = training_state.read_facts(path)
    for name, ours in (("variant", variant.name), ("classes", class_names)):
        if facts[name] != ours:
            raise InputError(
                f"{path}: expected a training of {name} {ours}, got one of "
                f"{facts[name]}; are these the checkpoints of another training?"
            )
    training_state.restore(path, trainer.state())
    training_state.copy(path, step.outputs_folder() / "checkpoints")
    with step.staged_outputs(quiet=True) as folder:
        training_state.restore_best(path, facts["best_epoch"], folder / "model")
    logging.info("goes on after epoch %d, from %s", facts["epoch"], path)
    return facts["history"]


def save(epoch, best, trainer, class_names, size, train_boxes, history):
    """Writes the model, where it is the best so far, and the state of the training."""
    checkpoints = step.outputs_folder() / "checkpoints"
    if epoch == best:
        with step.staged_outputs(quiet=True) as folder:
            checkpoint.save_model(
                folder / "model", trainer.averaged, class_names, size, train_boxes
            )
        training_state.save_best(checkpoints, epoch, step.outputs_folder() / "model")
    facts = {
        "best_epoch": best,
        "variant": trainer.model.name,
        "classes": class_names,
        "history": history,
    }
    training_state.save(checkpoints, epoch, trainer.state(), facts)


def best_epoch(history):
    """The epoch of the highest AP; the last one, where there are no labels to tell."""
    best = 0
    for row in history:
        if "AP" not in row or row["AP"] > history[best]["AP"]:
            best = row["epoch"]
    return best


def describe(row):
    """The accuracy of an epoch, for the log."""
    nan = math.nan
    return f"AP {row.get('AP', nan):.3f}, AP50 {row.get('AP50', nan):.3f}"


def draw_batch(dataset, class_names):
    """Draws pictures as the network will see them, to check the boxes by eye."""
    tiles = [
        tile
        for batch in itertools.islice(iterate(dataset), 2)
        for tile in zip(
            *(batch[name].numpy() for name in ("images", "boxes", "labels")),
            strict=True,
        )
    ]
    mosaic = plots.batch_mosaic(*zip(*tiles[:16], strict=True), class_names)
    with step.staged_outputs(quiet=True) as folder:
        mosaic.save(folder / "train_batch.jpg", quality=90)


def finish(results, tested, test_paths, class_names, history):
    """Draws plots of the training and of the model that is shipped."""
    with step.staged_outputs() as folder:
        (folder / "plots").mkdir()
        draw_plots(folder / "plots", history, tested, test_paths, class_names)
    best = best_epoch(history)
    step.log_metadata(best_epoch=best, best_AP=results["AP"], best_AP50=results["AP50"])
    if best == 0 and len(history) > 1:
        logging.warning("no epoch has made the model better: it is the untrained one")
    logging.info(
        "trained: model/ is of epoch %d, %s on the test pictures",
        best,
        describe(results),
    )


def draw_plots(folder, history, tested, test_paths, class_names):
    """Draws curves and errors; `tested` is a list of `evaluate.Picture`."""
    plots.curves(history).savefig(folder / "curves.png")
    plots.precision_recall(tested, class_names).savefig(folder / "precision_recall.png")
    plots.confusion_matrix(tested, class_names).savefig(folder / "confusion_matrix.png")
    worst = evaluate.worst_pictures(
        tested,
        WORST_PICTURES,
        score_threshold=plots.SHOWN_SCORE,
        iou_threshold=plots.MATCH_IOU,
    )
    rows = records.read(test_paths, [picture.number for picture in worst])
    images = [
        pictures.load_rgb(row["encoded"].numpy(), row["source_id"].numpy().decode())
        for row in rows
    ]
    if worst:
        mosaic = plots.worst_mosaic(worst, images, class_names)
        mosaic.save(folder / "worst.jpg", quality=90)
