"""Fine-tunes YOLOv3 on the TFRecords of convert_superbai.py.

    python train.py --epochs 20 --batch_size 8

Takes the newest local outputs of convert_superbai.py and weights.py, or the inputs
given. Writes `model/`, the best model so far by its AP on the test pictures, the
untrained one included; `checkpoints/`, from which a training that was cut off goes on;
`train_batch.jpg` and `plots/`.
"""

import sys
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
from valohai_step.parameters import parse_sizes, read_parameters
from yolov3_tf2.errors import InputError
from yolov3_tf2.training.workers.rendezvous import Rendezvous

PARAMETERS = {
    "batch_size": {
        "default": 8,
        "category": "Training",
        "min": 1,
        "max": 1024,
        "description": "Pictures a training step, on each GPU of each machine.",
    },
    "epochs": {
        "default": 15,
        "category": "Training",
        "min": 1,
        "max": 10000,
        "description": "Passes over the training pictures.",
    },
    "patience": {
        "default": 0,
        "category": "Training",
        "min": 0,
        "max": 10000,
        "description": "Stop after so many epochs without a better AP; 0 never does.",
    },
    "size": {
        "default": "416",
        "category": "Training",
        "description": "Side of the network's input in pixels, a multiple of 32; or a "
        "range, such as 320-608, out of which each batch has another one.",
    },
    "transfer": {
        "default": "heads",
        "category": "Fine-tuning",
        "choices": ["darknet", "no_output", "heads", "none"],
        "description": "What is kept of the model: its backbone (darknet); all but "
        "the output layers (no_output); these too, classes found by their names "
        "(heads); nothing (none).",
    },
    "learning_rate": {
        "default": 0.001,
        "category": "Optimizer",
        "min": 1e-8,
        "max": 1.0,
        "description": "Peak of the learning rate of new layers: it rises over the "
        "first tenth of the steps and falls as a cosine after that. On N GPUs it is "
        "multiplied by the square root of N (adamw) or N (sgd).",
    },
    "kept_rate": {
        "default": 0.1,
        "category": "Fine-tuning",
        "min": 0.0,
        "max": 1.0,
        "description": "Learning rate of kept layers, as a share of that of the "
        "output layers; of output layers that know all classes, as a share of "
        "learning_rate. 0 leaves them as they are.",
    },
    "freeze_epochs": {
        "default": -1,
        "category": "Fine-tuning",
        "min": -1,
        "max": 10000,
        "description": "Epochs before the kept layers under the output layers train "
        "too; -1: 3, but all epochs where the output layers know all classes.",
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
        "description": "What a step takes off the kernels, times the learning rate.",
    },
    "clip_norm": {
        "default": 1000.0,
        "category": "Optimizer",
        "min": 1e-3,
        "max": 1e9,
        "description": "Longer gradients are cut to this norm; 35 to 180 is usual.",
    },
    "ema": {
        "default": 0.9998,
        "category": "Optimizer",
        "min": 0.0,
        "max": 0.999999,
        "description": "What a step keeps of the moving average of the weights, which "
        "is evaluated and saved; 0 keeps none.",
    },
    "box_loss": {
        "default": "ciou",
        "category": "Optimizer",
        "choices": ["ciou", "darknet"],
        "description": "How boxes are compared: by complete IoU, their objectness "
        "learning the overlap, or by darknet's squares.",
    },
    "precision": {
        "default": "auto",
        "category": "Training",
        "choices": ["auto", "float32", "bfloat16", "float16"],
        "description": "Of the network's arithmetic; auto is the fastest that the "
        "machine has.",
    },
    "seed": {
        "default": 0,
        "category": "Training",
        "min": 0,
        "max": 1000000,
        "description": "Of all that is random.",
    },
    "flip": {
        "default": 0.5,
        "category": "Augmentation",
        "min": 0.0,
        "max": 1.0,
        "description": "Probability that a training picture is mirrored.",
    },
    "scale": {
        "default": 0.5,
        "category": "Augmentation",
        "min": 0.0,
        "max": 3.0,
        "description": "0.5 makes it up to 1.5 times larger or smaller; 0 is off.",
    },
    "aspect": {
        "default": 0.3,
        "category": "Augmentation",
        "min": 0.0,
        "max": 3.0,
        "description": "0.3 makes it up to 1.3 times wider or higher; 0 is off.",
    },
    "translate": {
        "default": 0.2,
        "category": "Augmentation",
        "min": 0.0,
        "max": 1.0,
        "description": "How far it moves at most, as a share of size; 0 is off.",
    },
    "hue": {
        "default": 0.1,
        "category": "Augmentation",
        "min": 0.0,
        "max": 0.5,
        "description": "How far its hues turn at most, as a share of the circle.",
    },
    "saturation": {
        "default": 0.5,
        "category": "Augmentation",
        "min": 0.0,
        "max": 3.0,
        "description": "0.5 makes its colours up to 1.5 times stronger or weaker.",
    },
    "exposure": {
        "default": 0.5,
        "category": "Augmentation",
        "min": 0.0,
        "max": 3.0,
        "description": "0.5 makes it up to 1.5 times brighter or darker; 0 is off.",
    },
    "mosaic": {
        "default": 0.5,
        "category": "Augmentation",
        "min": 0.0,
        "max": 1.0,
        "description": "Probability that it becomes a mosaic of four, in the first "
        "two thirds of the epochs.",
    },
    "min_ap50": {
        "default": 0.0,
        "category": "Results",
        "min": 0.0,
        "max": 1.0,
        "description": "AP50 that the trained model has to reach on the test pictures "
        "for a pipeline to go on.",
    },
    "checkpoint_epochs": {
        "default": 1,
        "category": "Results",
        "min": 1,
        "max": 10000,
        "description": "Epochs from one checkpoint to the next. On Valohai each is "
        "uploaded as soon as it is written.",
    },
    "valohai_model": {
        "default": "",
        "optional": True,
        "category": "Results",
        "description": "Model of Valohai's model registry that the trained one becomes "
        "a version of; empty: of none.",
    },
    "valohai_alias": {
        "default": "",
        "optional": True,
        "category": "Results",
        "description": "Alias by which Valohai finds the trained model: its files are "
        "datum://ALIAS-json, datum://ALIAS-index and datum://ALIAS-data; empty: none.",
    },
    "valohai_tags": {
        "default": "",
        "optional": True,
        "category": "Results",
        "description": "Tags that Valohai gives the trained model, with commas "
        "between them.",
    },
}
INPUTS = {
    "classes": {
        "default": [],
        "optional": False,
        "description": "classes.txt of convert-superbai: one class name a line.",
    },
    "train": {
        "default": [],
        "optional": False,
        "description": "TFRecord files of convert-superbai to train on.",
    },
    "test": {
        "default": [],
        "optional": False,
        "description": "TFRecord files of convert-superbai to measure accuracy on.",
    },
    "model": {
        "default": [],
        "optional": False,
        "description": "The files of the folder model/ that the weights step wrote; "
        "they also say which network is trained.",
    },
    "checkpoints": {
        "default": [],
        "optional": True,
        "description": "The files of the folder checkpoints/ of a training that was "
        "cut off: it goes on after its last whole epoch.",
    },
}
valohai.prepare(
    step="train",
    image="python:3.11-slim",
    default_parameters=PARAMETERS,
    default_inputs=INPUTS,
)

# Of the epochs; in the rest the network sees whole pictures, as those it is tested on.
MOSAIC_SHARE = 2 / 3


class Given(NamedTuple):
    """The step's parameters and inputs, checked; see `PARAMETERS` and `INPUTS`.

    `sizes` are those out of which a batch has one; `state` is the path of the
    checkpoint to go on from, see `state.find_state`; `tags` are Valohai's, of the
    trained model.
    """

    values: dict
    sizes: list
    class_names: list
    train_paths: list
    test_paths: list
    model_folder: Path
    state: Path | None
    tags: list


def main():
    workers = cluster.find_cluster()
    with Rendezvous(*workers) as others:
        given = read_given()
        # TensorFlow takes seconds to import: what can be refused is refused before.
        runtime.import_tensorflow()
        from yolov3_tf2.training import devices

        facts = cluster.describe_run(given)
        workers = cluster.agree_on_master(workers, others, facts, newest_epoch(given))
        # Before anything runs in TensorFlow.
        with others.watched():
            strategy = devices.build_strategy(*workers)
        others.exchange("connected")
    with cluster.joined(workers):
        train(given, workers, strategy)


def read_given():
    values = read_parameters(PARAMETERS, INPUTS)
    for option in ("valohai_model", "valohai_alias"):
        execution.check_name(option, values[option])
    return Given(
        values,
        parse_sizes(values["size"]),
        read_class_names(input_paths("classes")[0]),
        # Whatever order they come in: shares and the order of an epoch follow from it.
        sorted(input_paths("train"), key=lambda path: path.name),
        sorted(input_paths("test"), key=lambda path: path.name),
        input_folder("model", "model.json"),
        find_state(),
        execution.split_tags("valohai_tags", values["valohai_tags"]),
    )


def find_state():
    """The checkpoint to go on from, see `state.find_state`; None without one."""
    given = input_paths("checkpoints", optional=True)
    paths = given or restart_paths()
    if not paths:
        return None
    runtime.import_tensorflow()
    from yolov3_tf2.training import state as training_state

    state = training_state.find_state(paths, may_be_partial=not given)
    if state is None:
        logging.warning("no whole checkpoint among the files given: from the start")
    return state


def newest_epoch(given):
    """The epoch that this worker's checkpoints are of, -1 where there are none."""
    from yolov3_tf2.training import state as training_state

    return training_state.read_facts(given.state)["epoch"] if given.state else -1


def train(given, workers, strategy):
    """Trains, as one of `workers`; all of them end together."""
    import keras
    import tensorflow as tf

    from valohai_step import training_outputs
    from yolov3_tf2.data.augment import STRENGTHS
    from yolov3_tf2.data.dataset import build_dataset, build_training_dataset
    from yolov3_tf2.data.record_files import RecordFiles, Share
    from yolov3_tf2.network import checkpoint
    from yolov3_tf2.training import devices, transfer

    values, sizes, class_names = given.values, given.sizes, given.class_names
    keras.utils.set_random_seed(values["seed"])
    info = checkpoint.read_model_info(given.model_folder)
    precision = devices.choose_precision(values["precision"])
    devices.set_precision(precision)
    replicas = strategy.num_replicas_in_sync
    share = Share(workers.rank, max(len(workers.addresses), 1))
    batch_size = values["batch_size"] * replicas // share.count  # This worker's.
    train_files, test_files = (
        RecordFiles(paths, share) for paths in (given.train_paths, given.test_paths)
    )
    check_files(train_files, "train", class_names, share)
    check_files(test_files, "test", class_names, share)
    logging.info(
        "%s: %d classes, %d training and %d test pictures, %s, %s, %d a step",
        info.variant.name,
        len(class_names),
        train_files.total,
        test_files.total,
        describe_devices(strategy),
        precision,
        values["batch_size"] * replicas,
    )

    train_boxes = count_train_boxes(train_files, class_names, strategy)
    steps_per_epoch = train_files.steps(batch_size)
    with strategy.scope():
        model, known = transfer.build_transferred_model(
            info, class_names, given.model_folder, values["transfer"]
        )
        trainer = transfer.build_trainer(
            model, known, info.variant, strategy, values, steps_per_epoch
        )
        epoch_variable = tf.Variable(0, dtype=tf.int64, trainable=False)
    common = (class_names, info.variant)
    fill = replicas > 1
    train_set = build_training_dataset(
        train_files,
        *common,
        sizes,
        batch_size,
        {kind: values[kind] for kind in STRENGTHS},
        values["seed"],
        epoch_variable,
        round(MOSAIC_SHARE * values["epochs"]),
        fill,
    )
    test_set = build_dataset(test_files, *common, sizes[-1], batch_size, fill)

    def measure(epoch, results):
        """Evaluates, logs and saves what an epoch has made."""
        tested = evaluate(f"testing {epoch}/{values['epochs']}")
        results |= tested[0]
        history.append(finite_values(results))
        best = training_outputs.best_epoch(history)
        rank = "the best so far" if best == epoch else f"the best is epoch {best}"
        outcome = f"{training_outputs.describe(results)}, {rank}"
        if workers.is_master:
            log_metadata(**results)
            if epoch == best:
                training_outputs.save_model(
                    trainer, class_names, sizes[-1], train_boxes
                )
            if epoch % values["checkpoint_epochs"] == 0 or epoch == values["epochs"]:
                checkpoints.save(history)
            execution.set_status(f"epoch {epoch}/{values['epochs']}: {outcome}")
        logging.info("epoch %d: %s", epoch, outcome)

    def evaluate(title):
        progress = bar(title, test_files.steps(batch_size), workers)
        return trainer.evaluate(test_set, class_names, sizes[-1], progress)

    history = []
    checkpoints = training_outputs.Checkpoints(trainer, info.variant, class_names)
    if workers.is_master and given.state:
        history = checkpoints.resume(given.state)
    history = trainer.share_state(history)
    if not history:
        measure(0, {"epoch": 0})
    if workers.is_master:
        training_outputs.draw_batch(train_set, class_names)
    for epoch in range(len(history), values["epochs"] + 1):
        waited = epoch - 1 - training_outputs.best_epoch(history)
        if values["patience"] and waited >= values["patience"]:
            logging.info("no better AP for %d epochs: stopped", values["patience"])
            break
        if epoch > transfer.frozen_epochs(values, known) and values["kept_rate"]:
            trainer.thaw()
        epoch_variable.assign(epoch)
        results = trainer.train_epoch(
            train_set,
            given.train_paths,
            bar(f"epoch {epoch}/{values['epochs']}", steps_per_epoch, workers),
        )
        unassigned = results.pop("unassigned")
        if unassigned and epoch == 1:
            logging.warning(
                "%d boxes are not learned: no anchor free for them", unassigned
            )
        rate = {"learning_rate": trainer.learning_rate()}
        measure(epoch, {"epoch": epoch} | rate | results)

    if workers.is_master:
        training_outputs.load_shipped(trainer)
    trainer.share_state()
    results, tested = evaluate("testing model/")
    if workers.is_master:
        outcome = training_outputs.finish(
            results,
            tested,
            given.test_paths,
            class_names,
            history,
            values["min_ap50"],
        )
        execution.add_model(
            "model",
            values["valohai_model"],
            values["valohai_alias"],
            given.tags,
            f"{info.variant.name} at {sizes[-1]}, {len(class_names)} classes, trained "
            f"on {train_files.total} pictures and tested on {test_files.total}; "
            f"{outcome}",
        )


def check_files(files, name, class_names, share):
    """Checks that an input has records, of these classes, and enough for all workers.

    Args:
        files: its `record_files.RecordFiles`.
    """
    from yolov3_tf2.data import records

    for path in files.paths:
        records.check_first_record(path, class_names)
    if not files.total:
        raise InputError(
            f"input '{name}': no pictures in {', '.join(map(str, files.paths))}; "
            "expected the TFRecord files of convert_superbai.py."
        )
    if files.total < share.count:
        raise InputError(
            f"input '{name}': expected a picture for each of {share.count} workers, "
            f"got {files.total}; train on fewer machines."
        )


def count_train_boxes(files, class_names, strategy):
    """Counts the boxes of each class that all workers train on.

    Args:
        files: the `record_files.RecordFiles` of this worker.

    Returns:
        A dict from class name to number.
    """
    from yolov3_tf2.data.counting import count_boxes
    from yolov3_tf2.training.workers import collective

    numbers = collective.gather(strategy, count_boxes(files, class_names))
    return dict(zip(class_names, sum(numbers).tolist(), strict=True))


def describe_devices(strategy):
    """Names what trains, for the log."""
    replicas = strategy.num_replicas_in_sync
    devices = strategy.extended.worker_devices
    kind = devices[0].split(":")[-2]
    if replicas > len(devices):
        return f"{replicas // len(devices)} workers with {len(devices)} {kind} each"
    return f"{replicas} {kind}" if kind == "GPU" else "no GPU found, on the processor"


def bar(description, total, workers):
    """Returns what wraps the batches of an epoch into the master's progress bar.

    In a log it has no line where it takes less than ten seconds.
    """
    return lambda batches: progress_bar(
        batches,
        desc=description,
        total=total,
        unit=" steps",
        disable=not workers.is_master,
        delay=0 if sys.stderr.isatty() else 10,
    )


if __name__ == "__main__":
    runtime.run_step(main)
