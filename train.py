"""Fine-tunes YOLOv3 on the TFRecords of convert_superbai.py.

    python train.py --epochs 20 --batch_size 8

Without inputs, it uses the latest local outputs of convert_superbai.py and weights.py.
It writes `model/`, the model with the best AP on the validation images, the one before
training included; `checkpoints/`, from which an interrupted training run
resumes; `train_batch.jpg` and `plots/`. The test images are used once, at the end; if
there are no validation images, they are used for both.
"""

import valohai_step.startup  # noqa: F401

import sys
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import valohai
from absl import logging

from valohai_step import cluster, execution, runtime
from valohai_step.inputs import (
    input_folder,
    input_paths,
    read_class_names,
    restart_paths,
)
from valohai_step.outputs import finite_values, log_metadata, progress_bar
from valohai_step.parameters import parse_sizes, read_parameters, without_command_line
from yolov3_tf2.training.workers.rendezvous import Rendezvous

PARAMETERS = {
    "batch_size": {
        "default": 8,
        "category": "Training",
        "min": 1,
        "max": 1024,
        "description": "Images per training step, on each GPU of each machine.",
    },
    "epochs": {
        "default": 15,
        "category": "Training",
        "min": 1,
        "max": 10000,
        "description": "Passes over the training images.",
    },
    "patience": {
        "default": 0,
        "category": "Training",
        "min": 0,
        "max": 10000,
        "description": "Stop after this many epochs without a better AP on the "
        "validation images; 0 never stops early.",
    },
    "size": {
        "default": "416",
        "category": "Training",
        "description": "Width and height of the network's input in pixels, a multiple "
        "of 32; or a range such as 320-608: each batch then has a random size from it.",
    },
    "transfer": {
        "default": "heads",
        "category": "Fine-tuning",
        "choices": ["darknet", "no_output", "heads", "none"],
        "description": "Layers that start from the pretrained model: the backbone "
        "(darknet); all but the output layers (no_output); those and the output "
        "layers, with classes matched by name (heads); no layers (none).",
    },
    "learning_rate": {
        "default": 0.001,
        "category": "Optimizer",
        "min": 1e-8,
        "max": 1.0,
        "description": "Peak learning rate of new layers. The rate rises over the "
        "first tenth of the steps, then falls along a cosine. On N GPUs it is "
        "multiplied by the square root of N (adamw) or by N (sgd).",
    },
    "kept_rate": {
        "default": 0.1,
        "category": "Fine-tuning",
        "min": 0.0,
        "max": 1.0,
        "description": "Learning rate of pretrained layers, as a fraction of the "
        "output layers' rate. If all classes are pretrained and there are fewer than "
        "30 labelled images per class, the output layers' rate is this fraction of "
        "learning_rate. 0 freezes the pretrained layers.",
    },
    "freeze_epochs": {
        "default": -1,
        "category": "Fine-tuning",
        "min": -1,
        "max": 10000,
        "description": "Epochs during which the pretrained layers below the output "
        "layers are frozen. -1: 3 epochs, or all epochs if all classes are pretrained "
        "and there are fewer than 30 labelled images per class.",
    },
    "optimizer": {
        "default": "adamw",
        "category": "Optimizer",
        "choices": ["adamw", "sgd"],
        "description": "AdamW, or SGD with Nesterov momentum.",
    },
    "weight_decay": {
        "default": 0.0005,
        "category": "Optimizer",
        "min": 0.0,
        "max": 1.0,
        "description": "Weight decay of the kernels; each step multiplies it by the "
        "learning rate.",
    },
    "clip_norm": {
        "default": 1000.0,
        "category": "Optimizer",
        "min": 1e-3,
        "max": 1e9,
        "description": "Gradients with a larger norm are scaled down to it; norms of "
        "35 to 180 are usual.",
    },
    "ema": {
        "default": 0.9998,
        "category": "Optimizer",
        "min": 0.0,
        "max": 0.999999,
        "description": "Decay of the moving average of the weights, which is evaluated "
        "and saved; 0 disables it.",
    },
    "box_loss": {
        "default": "ciou",
        "category": "Optimizer",
        "choices": ["ciou", "darknet"],
        "description": "Loss of boxes: complete IoU, where objectness learns the "
        "overlap (ciou), or darknet's squared errors (darknet).",
    },
    "precision": {
        "default": "auto",
        "category": "Training",
        "choices": ["auto", "float32", "bfloat16", "float16"],
        "description": "Number format of the computation. auto: float16 on GPUs with "
        "tensor cores, bfloat16 on CPUs that support it, float32 otherwise.",
    },
    "seed": {
        "default": 0,
        "category": "Training",
        "min": 0,
        "max": 1000000,
        "description": "Random seed.",
    },
    "flip": {
        "default": 0.5,
        "category": "Augmentation",
        "min": 0.0,
        "max": 1.0,
        "description": "Probability that a training image is mirrored.",
    },
    "scale": {
        "default": 0.5,
        "category": "Augmentation",
        "min": 0.0,
        "max": 3.0,
        "description": "0.5 makes training images up to 1.5 times larger or smaller; 0 "
        "is off.",
    },
    "aspect": {
        "default": 0.3,
        "category": "Augmentation",
        "min": 0.0,
        "max": 3.0,
        "description": "0.3 makes training images up to 1.3 times wider or taller; 0 "
        "is off.",
    },
    "translate": {
        "default": 0.2,
        "category": "Augmentation",
        "min": 0.0,
        "max": 1.0,
        "description": "Largest shift of training images, as a fraction of their size; "
        "0 is off.",
    },
    "hue": {
        "default": 0.1,
        "category": "Augmentation",
        "min": 0.0,
        "max": 0.5,
        "description": "Largest change of hue, as a fraction of the colour circle; 0 "
        "is off.",
    },
    "saturation": {
        "default": 0.5,
        "category": "Augmentation",
        "min": 0.0,
        "max": 3.0,
        "description": "0.5 makes colours up to 1.5 times stronger or weaker; 0 is "
        "off.",
    },
    "exposure": {
        "default": 0.5,
        "category": "Augmentation",
        "min": 0.0,
        "max": 3.0,
        "description": "0.5 makes training images up to 1.5 times brighter or darker; "
        "0 is off.",
    },
    "mosaic": {
        "default": 0.5,
        "category": "Augmentation",
        "min": 0.0,
        "max": 1.0,
        "description": "Probability that a training image becomes a mosaic of four, in "
        "the first two thirds of the epochs.",
    },
    "min_ap50": {
        "default": 0.0,
        "category": "Results",
        "min": 0.0,
        "max": 1.0,
        "description": "AP50 on the test images that the model must reach to get a "
        "version, an alias or tags, and for a pipeline to continue.",
    },
    "max_unreadable": {
        "default": 0,
        "category": "Training",
        "min": 0,
        "max": 1_000_000_000,
        "description": "Number of unreadable training, validation and test images to "
        "accept. They are named in the log and left out, of training and of AP.",
    },
    "checkpoint_epochs": {
        "default": 1,
        "category": "Results",
        "min": 1,
        "max": 10000,
        "description": "Epochs between checkpoints. On Valohai each one is uploaded as "
        "soon as it is written.",
    },
    "valohai_model": {
        "default": "",
        "optional": True,
        "category": "Results",
        "description": "Model in Valohai's model registry that gets the trained model "
        "as a new version. Leave empty for none.",
    },
    "valohai_alias": {
        "default": "",
        "optional": True,
        "category": "Results",
        "description": "Alias for the files of the trained model on Valohai: "
        "datum://ALIAS-json, datum://ALIAS-index and datum://ALIAS-data. Not set in a "
        "task with several runs. Leave empty for none.",
    },
    "valohai_tags": {
        "default": "",
        "optional": True,
        "category": "Results",
        "description": "Tags for the trained model on Valohai, separated by commas. "
        "Leave empty for none.",
    },
}
INPUTS = {
    "classes": {
        "default": [],
        "optional": False,
        "description": "classes.txt of convert-superbai: one class name per line.",
    },
    "train": {
        "default": [],
        "optional": False,
        "description": "TFRecord files of convert-superbai to train on.",
    },
    "validation": {
        "default": [],
        "optional": True,
        "description": "TFRecord files of convert-superbai to choose the best epoch "
        "and the score threshold on. If empty, the test images serve both.",
    },
    "test": {
        "default": [],
        "optional": False,
        "description": "TFRecord files of convert-superbai to measure accuracy on.",
    },
    "model": {
        "default": [],
        "optional": False,
        "description": "All files of the folder model/ from the weights step; they "
        "also determine which network is trained.",
    },
    "checkpoints": {
        "default": [],
        "optional": True,
        "description": "All files of the folder checkpoints/ of an interrupted "
        "training run, which resumes after its last complete epoch.",
    },
}
with without_command_line():
    valohai.prepare(
        step="train",
        image="python:3.11-slim",
        default_parameters=PARAMETERS,
        default_inputs=INPUTS,
    )

# The part of the epochs with mosaics. In the rest the network sees whole images, as in
# testing.
MOSAIC_SHARE = 2 / 3


class Settings(NamedTuple):
    """The checked parameters and inputs of the step.

    Attributes:
        values: dict of the parameters, see `PARAMETERS`.
        sizes: list of the sizes that a batch may have, pixels.
        class_names: list of strings.
        train_paths, validation_paths, test_paths: lists of TFRecord files; the second
            may be empty.
        model_folder: folder of the pretrained model.
        state: path of the checkpoint to resume from, see `state.find_state`; or None.
        tags: list of the tags of the trained model on Valohai.
    """

    values: dict
    sizes: list
    class_names: list
    train_paths: list
    validation_paths: list
    test_paths: list
    model_folder: Path
    state: Path | None
    tags: list


class Evaluated(NamedTuple):
    """Images that the model is evaluated on.

    Attributes:
        split: `validation` or `test`.
        files: `record_files.RecordFiles` of this worker.
        dataset: `dataset.Batches` of this worker.
    """

    split: str
    files: object
    dataset: object


class Run(NamedTuple):
    """A training run, ready to start.

    Attributes:
        settings: the `Settings`.
        workers: the `cluster.Cluster` of all workers.
        trainer: a `trainer.Trainer`.
        frozen_epochs: number of epochs during which pretrained layers are frozen.
        batch_size: number of images of this worker per step.
        train_files: `record_files.RecordFiles` of this worker.
        model_info: the `model_info.ModelInfo` of the trained model.
        data: see `training_outputs.Checkpoints`.
        train_set: `dataset.Batches` of batches of this worker.
        chosen_on: the `Evaluated` images on which the best epoch is chosen.
        tested: the `Evaluated` test images; the same if there are no others.
        epoch: `tf.Variable` from which `train_set` reads the current epoch.
    """

    settings: Settings
    workers: cluster.Cluster
    trainer: object
    frozen_epochs: int
    batch_size: int
    train_files: object
    model_info: object
    data: dict
    train_set: object
    chosen_on: object
    tested: object
    epoch: object


def main():
    workers = cluster.find_cluster()
    with Rendezvous(*workers) as rendezvous:
        settings = read_settings()
        # TensorFlow takes seconds to import: invalid settings are refused before.
        runtime.import_tensorflow()
        from yolov3_tf2.training import devices

        description = cluster.describe_run(settings)
        workers = cluster.agree_on_master(
            workers, rendezvous, description, newest_epoch(settings)
        )
        # Before TensorFlow runs any operation.
        with rendezvous.watchdog():
            strategy = devices.build_strategy(*workers)
        rendezvous.exchange("connected")

    with cluster.translate_worker_errors(workers):
        run = set_up(settings, workers, strategy)
        history = train_epochs(run)
        finish(run, history)


def read_settings():
    values = read_parameters(PARAMETERS, INPUTS)
    for option in ("valohai_model", "valohai_alias"):
        execution.check_name(option, values[option])
    # Validation images may be taken from the local outputs that all others are from.
    required = {name: input_paths(name) for name in ("classes", "train", "test")}
    required["validation"] = input_paths("validation", optional=True)
    # In a fixed order, which shares and the order within an epoch depend on.
    paths = {
        name: sorted(given, key=lambda path: path.name)
        for name, given in required.items()
    }
    return Settings(
        values,
        parse_sizes(values["size"]),
        read_class_names(paths["classes"][0]),
        paths["train"],
        paths["validation"],
        paths["test"],
        input_folder("model", "model.json"),
        find_state(),
        execution.split_tags("valohai_tags", values["valohai_tags"]),
    )


def find_state():
    """Finds the checkpoint to resume from, see `state.find_state`; None without one."""
    given_paths = input_paths("checkpoints", optional=True)
    paths = given_paths or restart_paths()
    if not paths:
        return None
    runtime.import_tensorflow()
    from yolov3_tf2.training import state as training_state

    state = training_state.find_state(paths, may_be_partial=not given_paths)
    if state is None:
        logging.warning("no complete checkpoint found, training from the start")
    return state


def newest_epoch(settings):
    """Returns the epoch of this worker's newest checkpoint, -1 without one."""
    from yolov3_tf2.training import state as training_state

    if not settings.state:
        return -1
    return training_state.read_state_info(settings.state)["epoch"]


def set_up(settings, workers, strategy):
    """Opens the data and builds the network with its trainer; returns a `Run`."""
    import keras
    import tensorflow as tf

    from yolov3_tf2.data.record_files import Share
    from yolov3_tf2.network import checkpoint
    from yolov3_tf2.network.model_info import ModelInfo
    from yolov3_tf2.training import devices, input_files, transfer

    values, class_names = settings.values, settings.class_names
    keras.utils.set_random_seed(values["seed"])
    info = checkpoint.read_model_info(settings.model_folder)
    precision = devices.choose_precision(values["precision"])
    devices.set_precision(precision)

    replicas = strategy.num_replicas_in_sync
    share = Share(workers.rank, max(len(workers.addresses), 1))
    paths = {
        "train": settings.train_paths,
        "validation": settings.validation_paths,
        "test": settings.test_paths,
    }
    files = input_files.open_splits(paths, class_names, share)
    logging.info(
        "%s: %d classes, %s, %s, %s, %d images per step",
        info.variant.name,
        len(class_names),
        input_files.describe_splits(files),
        devices.describe_devices(strategy),
        precision,
        values["batch_size"] * replicas,
    )

    contents = measure_data(settings, files, info.variant, strategy, workers.is_master)
    max_boxes = input_files.choose_max_boxes(contents)
    batch_size = values["batch_size"] * replicas // share.count
    with strategy.scope():
        model, all_classes_pretrained = transfer.build_transferred_model(
            info, class_names, settings.model_folder, values["transfer"]
        )
        few_images = transfer.are_few_images(
            all_classes_pretrained, contents["train"].num_labelled, len(class_names)
        )
        trainer = transfer.build_trainer(
            model,
            few_images,
            info.variant,
            strategy,
            values,
            files["train"].steps(batch_size),
            max_boxes,
        )
        epoch = tf.Variable(0, dtype=tf.int64, trainable=False)

    # Every replica needs images in every batch.
    train_set, evaluated = build_datasets(
        settings, info.variant, files, batch_size, replicas > 1, epoch
    )
    return Run(
        settings,
        workers,
        trainer,
        transfer.count_frozen_epochs(values, few_images),
        batch_size,
        files["train"],
        ModelInfo(
            info.variant,
            class_names,
            settings.sizes[-1],
            contents["train"].count_boxes(class_names),
            max_boxes=max_boxes,
            gray_range=input_files.choose_gray_range(contents["train"].gray_ranges),
        ),
        {split: contents[split].describe() for split in ("train", evaluated[0].split)},
        train_set,
        evaluated[0],
        evaluated[-1],
        epoch,
    )


def measure_data(settings, files, variant, strategy, is_master):
    """Measures the images and boxes of all splits, and warns of problems.

    Args:
        settings: the `Settings`.
        files: the result of `input_files.open_splits`.
        variant: the `variants.Variant` of the network.
        strategy: the `tf.distribute.Strategy` of all workers.
        is_master: whether this worker logs the problems.

    Returns:
        A dict from split to `contents.Contents`.
    """
    from yolov3_tf2.data import data_report
    from yolov3_tf2.training import input_files

    contents = {
        split: input_files.measure_contents(each, settings.class_names, strategy)
        for split, each in files.items()
    }
    if is_master:
        for problem in data_report.find_problems(
            contents, settings.class_names, settings.sizes[-1], anchors=variant.anchors
        ):
            logging.warning("%s", problem)
    return contents


def build_datasets(settings, variant, files, batch_size, fill_last_batch, epoch):
    """Builds the batches of this worker.

    Args:
        settings: the `Settings`.
        variant: the `variants.Variant` of the network.
        files: the result of `input_files.open_splits`.
        batch_size, fill_last_batch, epoch: see `dataset.build_training_dataset`.

    Returns:
        The `dataset.Batches` to train on, and a list of the `Evaluated` images, those
        for validation first.
    """
    from yolov3_tf2.data.augment import STRENGTHS
    from yolov3_tf2.data.dataset import build_dataset, build_training_dataset
    from yolov3_tf2.data.unreadable import UnreadableImages

    values = settings.values
    common = (settings.class_names, variant)
    unreadable = UnreadableImages(settings.class_names, values["max_unreadable"])
    train_set = build_training_dataset(
        files["train"],
        *common,
        settings.sizes,
        batch_size,
        {kind: values[kind] for kind in STRENGTHS},
        values["seed"],
        epoch,
        round(MOSAIC_SHARE * values["epochs"]),
        fill_last_batch,
        unreadable,
    )
    size = settings.sizes[-1]
    evaluated = [
        Evaluated(
            split,
            files[split],
            build_dataset(
                files[split], *common, size, batch_size, fill_last_batch, unreadable
            ),
        )
        for split in ("validation", "test")
        if split in files
    ]
    return train_set, evaluated


def train_epochs(run):
    """Trains all epochs; returns the history, a list of the results of each epoch.

    Epoch 0 is the model before training.
    """
    from valohai_step import training_outputs
    from yolov3_tf2.training import devices

    settings, trainer = run.settings, run.trainer
    epochs, patience = settings.values["epochs"], settings.values["patience"]
    checkpoints = training_outputs.Checkpoints(
        trainer,
        run.model_info.variant,
        settings.class_names,
        settings.values
        | {"precision": devices.choose_precision(settings.values["precision"])},
        run.data,
    )
    history = []
    if run.workers.is_master and settings.state:
        history = checkpoints.resume(settings.state)
    history = trainer.broadcast_state(history)
    if not history:
        test_epoch(run, checkpoints, history, {"epoch": 0})
    elif len(history) > epochs:
        logging.info(
            "nothing is left to train: epoch %d of %d is done", len(history) - 1, epochs
        )
    if run.workers.is_master:
        training_outputs.draw_batch(run.train_set, settings.class_names)

    for epoch in range(len(history), epochs + 1):
        waited = training_outputs.epochs_without_progress(history)
        if patience and waited >= patience:
            logging.info("stopping early: no better AP for %d epochs", patience)
            break
        if epoch > run.frozen_epochs and settings.values["kept_rate"]:
            trainer.thaw()
        run.epoch.assign(epoch)
        bar = epoch_bar(run, f"epoch {epoch}/{epochs}", run.train_files)
        results = trainer.train_epoch(run.train_set, settings.train_paths, bar)
        unassigned = results.pop("unassigned")
        if unassigned and epoch == 1:
            logging.warning(
                "%d boxes could not be assigned to any anchor and are ignored",
                unassigned,
            )
        rate = {"learning_rate": trainer.learning_rate()}
        test_epoch(run, checkpoints, history, {"epoch": epoch} | rate | results)
    return history


def test_epoch(run, checkpoints, history, results):
    """Evaluates the model after an epoch; logs and saves it, as far as they are due.

    Args:
        run: the `Run`.
        checkpoints: its `training_outputs.Checkpoints`.
        history: list of the results of earlier epochs; this epoch's are appended.
        results: dict of the results of training in this epoch.
    """
    from valohai_step import training_outputs

    epoch, epochs = results["epoch"], run.settings.values["epochs"]
    evaluated, _ = evaluate_model(run, run.chosen_on, f"evaluating {epoch}/{epochs}")
    results = results | evaluated
    history.append(finite_values(results))
    best = training_outputs.best_epoch(history)
    rank = "best so far" if best == epoch else f"best: epoch {best}"
    if "AP" not in history[-1]:
        rank = "the last epoch is kept"
    accuracy = training_outputs.describe_accuracy(results, run.chosen_on.split)
    outcome = f"{accuracy}, {rank}"
    if run.workers.is_master:
        log_metadata(**results)
        if epoch == best:
            threshold = history[-1].get("score_threshold")
            training_outputs.save_model(
                run.trainer, replace(run.model_info, score_threshold=threshold)
            )
        if epoch % run.settings.values["checkpoint_epochs"] == 0 or epoch == epochs:
            checkpoints.save(history)
        execution.set_status(f"epoch {epoch}/{epochs}: {outcome}")
    logging.info("epoch %d: %s", epoch, outcome)


def evaluate_model(run, evaluated, title):
    """Returns the results of `Trainer.evaluate` on `Evaluated` images."""
    bar = epoch_bar(run, title, evaluated.files)
    return run.trainer.evaluate(
        evaluated.dataset, run.settings.class_names, run.settings.sizes[-1], bar
    )


def epoch_bar(run, title, files):
    """Returns a function that wraps the batches of files in the master's progress bar.

    In a log it has no line if it takes less than ten seconds.
    """
    return lambda batches: progress_bar(
        batches,
        desc=title,
        total=files.steps(run.batch_size),
        unit=" steps",
        disable=not run.workers.is_master,
        delay=0 if sys.stderr.isatty() else 10,
    )


def finish(run, history):
    """Tests the files of `model/` once more; writes plots and Valohai's metadata."""
    from valohai_step import training_outputs

    settings, values = run.settings, run.settings.values
    if run.workers.is_master:
        training_outputs.load_best_model(run.trainer)
    run.trainer.broadcast_state()
    results, tested = evaluate_model(run, run.tested, "testing model/")
    if run.workers.is_master:
        outcome, is_good = training_outputs.finish(
            results,
            tested,
            settings.test_paths,
            settings.class_names,
            history,
            values["min_ap50"],
            run.chosen_on.split,
        )
        if is_good:
            execution.add_model(
                "model",
                values["valohai_model"],
                values["valohai_alias"],
                settings.tags,
                f"{run.model_info.variant.name} at {settings.sizes[-1]}, "
                f"{len(settings.class_names)} classes, "
                f"trained on {run.train_files.total} images and tested on "
                f"{run.tested.files.total}; {outcome}",
            )
        elif values["valohai_model"] or values["valohai_alias"] or settings.tags:
            logging.warning(
                "no version, alias or tags on Valohai for a model below --min_ap50"
            )


if __name__ == "__main__":
    runtime.run_step(main)
