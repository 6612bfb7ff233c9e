"""What a training leaves: the best model, checkpoints to go on from, and plots."""

import itertools
import math

from absl import logging

from valohai_step import execution
from valohai_step.outputs import log_metadata, outputs_folder, staged_outputs
from yolov3_tf2.data import records
from yolov3_tf2.data.dataset import iterate
from yolov3_tf2.errors import InputError
from yolov3_tf2.evaluation import matching, mosaics, plots
from yolov3_tf2.files.images import load_rgb
from yolov3_tf2.network import checkpoint
from yolov3_tf2.network import model as network
from yolov3_tf2.training import state as training_state

WORST_PICTURES = 8


class Checkpoints:
    """What a training that was cut off goes on from: its state, and its best model."""

    def __init__(self, trainer, variant, class_names):
        """Takes the `Trainer`, its `variants.Variant` and the names of its classes."""
        self._trainer, self._variant, self._class_names = trainer, variant, class_names
        self._best = None  # The epoch of the best model that was written.

    @property
    def _folder(self):
        # Not before it is needed: only the master of several workers has outputs.
        return outputs_folder() / "checkpoints"

    def resume(self, path):
        """Puts the trainer where an earlier training ended.

        Args:
            path: of its state, see `state.find_state`.

        Returns:
            The history of that training, a list of the results of its epochs.

        Raises:
            InputError: the checkpoints are of other classes, or damaged.
        """
        facts = training_state.read_facts(path)
        expected = {"variant": self._variant.name, "classes": self._class_names}
        for name, ours in expected.items():
            if facts[name] != ours:
                raise InputError(
                    f"{path}: expected a training of {name} {ours}, got one of "
                    f"{facts[name]}; are these the checkpoints of another training?"
                )
        training_state.restore_state(path, self._trainer.state())
        execution.upload_now(training_state.copy_state(path, self._folder))
        self._best = facts["best_epoch"]
        with staged_outputs(quiet=True) as folder:
            training_state.restore_best(path, self._best, folder / "model")
        logging.info("goes on after epoch %d, from %s", facts["epoch"], path)
        return facts["history"]

    def save(self, history):
        """Writes the state after the last epoch of a history."""
        best = best_epoch(history)
        written = []
        if best != self._best:
            model = outputs_folder() / "model"
            written += training_state.save_best(self._folder, best, model)
            self._best = best
        facts = {
            "best_epoch": best,
            "variant": self._variant.name,
            "classes": self._class_names,
            "history": history,
        }
        written += training_state.save_state(
            self._folder,
            history[-1]["epoch"],
            self._trainer.state(),
            facts,
            # On Valohai they may still be on their way, and it takes them away itself.
            keep_older=execution.is_on_valohai(),
        )
        execution.upload_now(written)


def save_model(trainer, class_names, size, train_boxes):
    """Writes the model, the best one so far."""
    with staged_outputs(quiet=True) as folder:
        checkpoint.save_model(
            folder / "model", trainer.averaged, class_names, size, train_boxes
        )


def load_shipped(trainer):
    """Puts the weights of the model that is shipped, as its files have them, back."""
    folder = outputs_folder() / "model"
    checkpoint.load_weights(folder, trainer.averaged, network.PARTS)


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
    mosaic = mosaics.batch_mosaic(*zip(*tiles[:16], strict=True), class_names)
    with staged_outputs(quiet=True) as folder:
        mosaic.save(folder / "train_batch.jpg", quality=90)


def finish(results, tested, test_paths, class_names, history, min_ap50):
    """Draws plots of the training and of the model that is shipped, and says how it is.

    Args:
        results, tested: what `Trainer.evaluate` gives for it.
        test_paths: the TFRecord files that it was tested on.
        class_names: list of strings.
        history: list of the results of all epochs.
        min_ap50: what its AP50 has to be for a pipeline to go on.

    Returns:
        How it is, in words.
    """
    with staged_outputs() as folder:
        (folder / "plots").mkdir()
        draw_plots(folder / "plots", history, tested, test_paths, class_names)
    best = best_epoch(history)
    if best == 0 and len(history) > 1:
        logging.warning("no epoch has made the model better: it is the untrained one")
    outcome = f"model/ is of epoch {best}: {describe(results)}"
    # Not known, where no test picture has labels, is not enough.
    below = min_ap50 > 0 and not results.get("AP50", 0.0) >= min_ap50
    if below:
        outcome += f", which is under --min_ap50={min_ap50:g}"
        logging.warning("%s", outcome)
    else:
        logging.info("%s", outcome)
    log_metadata(
        best_epoch=best,
        best_AP=results["AP"],
        best_AP50=results["AP50"],
        below_min_ap50=below,
    )
    execution.set_status(outcome)
    return outcome


def draw_plots(folder, history, tested, test_paths, class_names):
    """Draws curves and errors; `tested` is a list of `coco.EvaluatedImage`."""
    plots.curves(history).savefig(folder / "curves.png")
    plots.precision_recall(tested, class_names).savefig(folder / "precision_recall.png")
    plots.confusion_matrix(tested, class_names).savefig(folder / "confusion_matrix.png")
    worst = matching.worst_images(tested, WORST_PICTURES)
    rows = records.read_examples(test_paths, [picture.number for picture in worst])
    images = [
        load_rgb(row["encoded"].numpy(), row["source_id"].numpy().decode())
        for row in rows
    ]
    if worst:
        mosaic = mosaics.worst_mosaic(worst, images, class_names)
        mosaic.save(folder / "worst.jpg", quality=90)
