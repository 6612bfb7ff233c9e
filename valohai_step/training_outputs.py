"""Outputs of a training run: its best model, checkpoints to resume from, and plots."""

import itertools
import math

from absl import logging

from valohai_step import execution, resuming
from valohai_step.outputs import (
    log_metadata,
    outputs_folder,
    staged_outputs,
    writing_outputs,
)
from yolov3_tf2.data import records
from yolov3_tf2.data.dataset import iterate
from yolov3_tf2.errors import InputError, naming
from yolov3_tf2.evaluation import draw, matching, plots, previews
from yolov3_tf2.names import normalise_name
from yolov3_tf2.network import checkpoint
from yolov3_tf2.network import model as network
from yolov3_tf2.network.model_info import (
    DEFAULT_SCORE_THRESHOLD,
    FILE,
    read_model_info,
)
from yolov3_tf2.network.variants import VARIANTS
from yolov3_tf2.training import state as training_state

NUM_WORST_IMAGES = 8


class Checkpoints:
    """Saves and restores the state of a training run, together with its best model."""

    def __init__(self, trainer, variant, class_names, options, data):
        """Starts without a model.

        Args:
            trainer: the `Trainer`.
            variant: its `variants.Variant`.
            class_names: list of strings.
            options: dict of the parameters of train.py, with the precision that is
                used instead of `auto`.
            data: dict from `train`, and the split on which the best epoch is chosen, to
                a text that differs where the images or their boxes do.
        """
        self._trainer, self._variant, self._class_names = trainer, variant, class_names
        self._options, self._data = options, data
        self._best = None  # The epoch of the best model that was saved.

    @property
    def _folder(self):
        # Created when needed, as only the master of several workers has outputs.
        return outputs_folder() / "checkpoints"

    def resume(self, path):
        """Restores the trainer and `model/` from an earlier training run.

        Args:
            path: path of its state, see `state.find_state`.

        Returns:
            The history of that run, a list of the results of its epochs.

        Raises:
            InputError: the checkpoint has other classes, or is damaged.
        """
        info = training_state.read_state_info(path)
        self._check_run(path, info)
        resuming.check_data(path, info.get("data"), self._data)
        resuming.check_size(path, info.get("options", {}), self._options)
        changed = resuming.changed_options(info.get("options", {}), self._options)
        initial = training_state.restore_state(
            path, self._trainer.state(), resuming.describe_refused_options(changed)
        )
        with writing_outputs(outputs_folder()):
            copied = training_state.copy_state(path, self._folder)
        execution.upload_now(copied)
        self._best = info["best_epoch"]
        with staged_outputs(quiet=True) as folder:
            training_state.restore_best(path, self._best, folder / "model")
        logging.info("resuming after epoch %d from %s", info["epoch"], path)
        resuming.log_changes(
            changed, initial, info["history"], self._trainer.learning_rate()
        )
        return info["history"]

    def _check_run(self, path, info):
        """Raises an `InputError` if a state is of another network or other classes."""
        variant = self._variant.name
        expected = {
            "variant": variant,
            "anchors": _to_lists(self._variant.anchors),
            "classes": self._class_names,
        }
        try:
            found = {
                "variant": info["variant"],
                # Earlier versions had the published anchors only, and wrote none.
                "anchors": info.get("anchors", _to_lists(VARIANTS[variant].anchors)),
                "classes": [normalise_name(name) for name in info["classes"]],
            }
            best_epoch(info["history"])
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise InputError(
                f"{path}: expected the JSON of a checkpoint of train.py, got one with "
                f"missing or wrong values ({error!r}); was it edited?"
            ) from error
        for name, value in expected.items():
            if found[name] != value:
                raise InputError(
                    f"{path}: expected a training run with {name} {value}, got "
                    f"{found[name]}; is this the checkpoint of another run?"
                )

    def save(self, history):
        """Saves the state after the last epoch of a history."""
        with writing_outputs(outputs_folder()):
            written = self._write(history)
        execution.upload_now(written)

    def _write(self, history):
        """Writes what `save` saves; returns the paths of the files."""
        best = best_epoch(history)
        written = []
        if best != self._best:
            model = outputs_folder() / "model"
            written += training_state.save_best(self._folder, best, model)
            self._best = best
        info = {
            "best_epoch": best,
            "variant": self._variant.name,
            "anchors": self._variant.anchors,
            "classes": self._class_names,
            "options": self._options,
            "data": self._data,
            "history": history,
        }
        return written + training_state.save_state(
            self._folder,
            history[-1]["epoch"],
            self._trainer.state(),
            info,
            # Valohai may still be uploading them, and deletes them itself.
            keep_older=execution.is_on_valohai(),
        )


def _to_lists(anchors):
    """Returns the anchors of a variant as JSON has them."""
    return [[list(anchor) for anchor in scale] for scale in anchors]


def save_model(trainer, info):
    """Saves the moving average of the weights as `model/`, with its `ModelInfo`."""
    with staged_outputs(quiet=True) as folder:
        checkpoint.save_model(folder / "model", trainer.averaged, info)


def load_best_model(trainer):
    """Loads the weights of `model/`, the best model, into the trainer."""
    folder = outputs_folder() / "model"
    checkpoint.load_weights(folder, trainer.averaged, network.PARTS)


def best_epoch(history):
    """Returns the epoch with the highest AP; the last one if no AP is known."""
    best = 0
    for row in history:
        if "AP" not in row or row["AP"] > history[best]["AP"]:
            best = row["epoch"]
    return best


def epochs_without_progress(history):
    """Returns the number of epochs since the one with the highest AP."""
    return history[-1]["epoch"] - best_epoch(history)


def describe_accuracy(row, split):
    """Returns the accuracy of an epoch on the images of a split in words."""
    if "AP" not in row or math.isnan(row["AP"]):
        return f"AP is unknown, as no {split} image has a box"
    return f"AP {row['AP']:.3f}, AP50 {row['AP50']:.3f} on the {split} images"


def draw_batch(dataset, class_names):
    """Draws training images as the network sees them, to check the boxes by eye."""
    tiles = [
        tile
        for batch in itertools.islice(iterate(dataset), 2)
        for tile in zip(
            *(batch[name].numpy() for name in ("images", "boxes", "labels")),
            strict=True,
        )
    ]
    mosaic = previews.batch_mosaic(*zip(*tiles[:16], strict=True), class_names)
    with staged_outputs(quiet=True) as folder:
        draw.save_image(mosaic, folder / "train_batch.jpg", quality=90)


def finish(results, tested, test_paths, class_names, history, min_ap50, chosen_on):
    """Draws plots of the training run and of the best model, and logs its accuracy.

    Args:
        results, tested: the results of `Trainer.evaluate` for the best model.
        test_paths: list of the TFRecord files that it was tested on.
        class_names: list of strings.
        history: list of the results of all epochs.
        min_ap50: the AP50 that it must reach to be published, and for a pipeline to
            continue.
        chosen_on: the split of which the history has the results, "validation" or
            "test".

    Returns:
        Its accuracy in words, and whether it reaches `min_ap50`.
    """
    score_threshold = read_model_info(outputs_folder() / "model" / FILE).shown_threshold
    with staged_outputs() as folder:
        (folder / "plots").mkdir()
        draw_plots(
            folder / "plots",
            history,
            tested,
            test_paths,
            class_names,
            score_threshold,
            chosen_on,
        )
    best = best_epoch(history)
    if best == 0 and len(history) > 1:
        logging.warning("no epoch improved the model: model/ is as before training")
    outcome = f"model/ is from epoch {best}: {describe_accuracy(results, 'test')}"
    # An AP50 that is unknown, without labels in the test images, is not enough either.
    below = min_ap50 > 0 and not results.get("AP50", 0.0) >= min_ap50
    if below:
        outcome += f", below --min_ap50={min_ap50:g}"
        logging.warning("%s", outcome)
    else:
        logging.info("%s", outcome)
    log_threshold(history[best], chosen_on)
    validation = {}
    if chosen_on == "validation":
        validation = {
            f"validation_{name}": history[best][name]
            for name in ("AP", "AP50")
            if name in history[best]
        }
    log_metadata(
        best_epoch=best,
        best_AP=results["AP"],
        best_AP50=results["AP50"],
        **validation,
        below_min_ap50=below,
        score_threshold=score_threshold,
    )
    execution.set_status(outcome)
    return outcome, not below


def log_threshold(row, split):
    """Logs the score threshold that the results of an epoch on a split give."""
    if "score_threshold" in row:
        logging.info(
            "score threshold %.3f: there F1 is best on the %s images, %.3f",
            *(row["score_threshold"], split, row["F1"]),
        )
    else:
        logging.warning(
            "no score threshold found, as no box with a score above %g is correct: "
            "detect uses %g by default",
            *(matching.MIN_SHOWN_SCORE, DEFAULT_SCORE_THRESHOLD),
        )


def draw_plots(
    folder, history, tested, test_paths, class_names, score_threshold, chosen_on
):
    """Draws curves, a confusion matrix and the images with the most errors.

    Args:
        folder: where they are saved.
        history, chosen_on: see `finish`.
        tested: list of `coco.EvaluatedImage`.
        test_paths: list of their TFRecord files.
        class_names: list of strings.
        score_threshold: detections with a lower score are ignored.
    """
    for name, figure in (
        ("curves.png", plots.curves(history, chosen_on)),
        ("precision_recall.png", plots.precision_recall(tested, class_names)),
        (
            "confusion_matrix.png",
            plots.confusion_matrix(tested, class_names, score_threshold),
        ),
    ):
        with naming(folder / name):
            figure.savefig(folder / name)
    worst = matching.worst_images(
        tested, NUM_WORST_IMAGES, score_threshold=score_threshold
    )
    rows = records.read_examples(test_paths, [image.number for image in worst])
    images = [
        previews.load_to_draw(row["encoded"].numpy(), row["source_id"].numpy().decode())
        for row in rows
    ]
    if worst:
        mosaic = previews.worst_mosaic(worst, images, class_names, score_threshold)
        draw.save_image(mosaic, folder / "worst.jpg", quality=90)
