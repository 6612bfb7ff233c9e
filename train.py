"""Fine-tunes YOLOv3 on the TFRecords of convert_superbai.py.

    python train.py --epochs 20 --batch_size 8

Takes the newest local outputs of convert_superbai.py and weights.py, or the inputs
given. Writes `model/`, the best model so far by its AP on the test pictures, the
untrained one included; `checkpoints/`, from which a training that was cut off goes on;
`train_batch.jpg` and `plots/`.
"""

import math
from pathlib import Path
from typing import NamedTuple

import valohai
from absl import logging

import cluster
import step
import step_inputs
from yolov3_tf2.errors import InputError
from yolov3_tf2.rendezvous import Rendezvous

PARAMETERS = {
    "batch_size": {
        "default": 8,
        "min": 1,
        "max": 1024,
        "description": "Pictures a training step, on each GPU of each machine.",
    },
    "epochs": {
        "default": 15,
        "min": 1,
        "max": 10000,
        "description": "Passes over the training pictures.",
    },
    "patience": {
        "default": 0,
        "min": 0,
        "max": 10000,
        "description": "Stop after so many epochs without a better AP; 0 never does.",
    },
    "size": {
        "default": "416",
        "description": "Side of the network's input in pixels, a multiple of 32; or a "
        "range, such as 320-608, out of which each batch has another one.",
    },
    "transfer": {
        "default": "heads",
        "choices": ["darknet", "no_output", "heads", "none"],
        "description": "What is kept of the model: its backbone (darknet); all but "
        "the output layers (no_output); these too, classes found by their names "
        "(heads); nothing (none).",
    },
    "learning_rate": {
        "default": 0.001,
        "min": 1e-8,
        "max": 1.0,
        "description": "Peak of the learning rate of new layers: it rises over the "
        "first tenth of the steps and falls as a cosine after that. On N GPUs it is "
        "multiplied by the square root of N (adamw) or N (sgd).",
    },
    "kept_rate": {
        "default": 0.1,
        "min": 0.0,
        "max": 1.0,
        "description": "Learning rate of kept layers, as a share of that of the "
        "output layers; of output layers that know all classes, as a share of "
        "learning_rate. 0 leaves them as they are.",
    },
    "freeze_epochs": {
        "default": -1,
        "min": -1,
        "max": 10000,
        "description": "Epochs before the kept layers under the output layers train "
        "too; -1: 3, but all epochs where the output layers know all classes.",
    },
    "optimizer": {
        "default": "adamw",
        "choices": ["adamw", "sgd"],
        "description": "AdamW, or SGD with Nesterov momentum.",
    },
    "weight_decay": {
        "default": 0.0005,
        "min": 0.0,
        "max": 1.0,
        "description": "What a step takes off the kernels, times the learning rate.",
    },
    "clip_norm": {
        "default": 1000.0,
        "min": 1e-3,
        "max": 1e9,
        "description": "Longer gradients are cut to this norm; 35 to 180 is usual.",
    },
    "ema": {
        "default": 0.9998,
        "min": 0.0,
        "max": 0.999999,
        "description": "What a step keeps of the moving average of the weights, which "
        "is evaluated and saved; 0 keeps none.",
    },
    "box_loss": {
        "default": "ciou",
        "choices": ["ciou", "darknet"],
        "description": "How boxes are compared: by complete IoU, their objectness "
        "learning the overlap, or by darknet's squares.",
    },
    "precision": {
        "default": "auto",
        "choices": ["auto", "float32", "bfloat16", "float16"],
        "description": "Of the network's arithmetic; auto is the fastest that the "
        "machine has.",
    },
    "seed": {
        "default": 0,
        "min": 0,
        "max": 1000000,
        "description": "Of all that is random.",
    },
    "flip": {
        "default": 0.5,
        "min": 0.0,
        "max": 1.0,
        "description": "Probability that a training picture is mirrored.",
    },
    "scale": {
        "default": 0.5,
        "min": 0.0,
        "max": 3.0,
        "description": "0.5 makes it up to 1.5 times larger or smaller; 0 is off.",
    },
    "aspect": {
        "default": 0.3,
        "min": 0.0,
        "max": 3.0,
        "description": "0.3 makes it up to 1.3 times wider or higher; 0 is off.",
    },
    "translate": {
        "default": 0.2,
        "min": 0.0,
        "max": 1.0,
        "description": "How far it moves at most, as a share of size; 0 is off.",
    },
    "hue": {
        "default": 0.1,
        "min": 0.0,
        "max": 0.5,
        "description": "How far its hues turn at most, as a share of the circle.",
    },
    "saturation": {
        "default": 0.5,
        "min": 0.0,
        "max": 3.0,
        "description": "0.5 makes its colours up to 1.5 times stronger or weaker.",
    },
    "exposure": {
        "default": 0.5,
        "min": 0.0,
        "max": 3.0,
        "description": "0.5 makes it up to 1.5 times brighter or darker; 0 is off.",
    },
    "mosaic": {
        "default": 0.5,
        "min": 0.0,
        "max": 1.0,
        "description": "Probability that it becomes a mosaic of four, in the first "
        "two thirds of the epochs.",
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

KEPT_PARTS = {
    "darknet": ["backbone"],
    "no_output": ["backbone", "neck"],
    "heads": ["backbone", "neck"],
    "none": [],
}
AUGMENTATION = (
    "flip",
    "scale",
    "aspect",
    "translate",
    "hue",
    "saturation",
    "exposure",
    "mosaic",
)
# Of the epochs; in the rest the network sees whole pictures, as those it is tested on.
MOSAIC_SHARE = 2 / 3
FREEZE_EPOCHS = 3
WORST_PICTURES = 8


class Given(NamedTuple):
    """The step's parameters and inputs, checked; see `PARAMETERS` and `INPUTS`.

    `sizes` are those out of which a batch has one; `earlier` are the files of the
    checkpoints to go on from.
    """

    values: dict
    sizes: list
    class_names: list
    train_paths: list
    test_paths: list
    model_folder: Path
    earlier: list


def main():
    workers = cluster.find()
    with Rendezvous(*workers) as others:
        given = read_given()
        # TensorFlow takes seconds to import: what can be refused is refused before.
        step.import_tensorflow()
        from yolov3_tf2 import training

        workers = cluster.agree(workers, others, facts(given), newest_epoch(given))
        # Before anything runs in TensorFlow.
        with others.watched():
            strategy = training.build_strategy(*workers)
        others.exchange("connected")
    with cluster.joined(workers):
        train(given, workers, strategy)


def read_given():
    values = step.parameters(PARAMETERS, INPUTS)
    return Given(
        values,
        step.check_size_range(values["size"]),
        step_inputs.read_class_names(step_inputs.input_paths("classes")[0]),
        # Whatever order they come in: shares and the order of an epoch follow from it.
        sorted(step_inputs.input_paths("train"), key=lambda path: path.name),
        sorted(step_inputs.input_paths("test"), key=lambda path: path.name),
        step_inputs.input_folder("model", "model.json"),
        step_inputs.input_paths("checkpoints", optional=True)
        or step_inputs.restart_paths(),
    )


def facts(given):
    """What is to be the same on all workers: a dict of names to values."""
    import tensorflow as tf

    from yolov3_tf2 import optimizer

    files = {
        name: [[path.name, path.stat().st_size] for path in paths]
        for name, paths in (("train", given.train_paths), ("test", given.test_paths))
    }
    return {
        "number of GPUs": len(tf.config.list_physical_devices("GPU")),
        **{f"--{name}": value for name, value in given.values.items()},
        "precision": optimizer.choose_precision(given.values["precision"]),
        "classes": given.class_names,
        **{f"files of the input '{name}'": value for name, value in files.items()},
    }


def newest_epoch(given):
    """The epoch that this worker's checkpoints are of, -1 where there are none."""
    from yolov3_tf2 import training_state

    path = training_state.find(given.earlier)
    return training_state.read_facts(path)["epoch"] if path else -1


def train(given, workers, strategy):
    """Trains, as one of `workers`; all of them end together."""
    import keras
    import tensorflow as tf

    from yolov3_tf2 import checkpoint, optimizer
    from yolov3_tf2.dataset import build_dataset, build_training_dataset
    from yolov3_tf2.record_files import RecordFiles, Share

    values, sizes, class_names = given.values, given.sizes, given.class_names
    keras.utils.set_random_seed(values["seed"])
    info = checkpoint.read_info(given.model_folder)
    precision = optimizer.choose_precision(values["precision"])
    optimizer.set_precision(precision)
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

    steps_per_epoch = train_files.steps(batch_size)
    with strategy.scope():
        model, known = build_model(
            info, class_names, given.model_folder, values["transfer"]
        )
        trainer = build_trainer(
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
        {kind: values[kind] for kind in AUGMENTATION},
        values["seed"],
        epoch_variable,
        round(MOSAIC_SHARE * values["epochs"]),
        fill,
    )
    test_set = build_dataset(test_files, *common, sizes[-1], batch_size, fill)

    def measure(epoch, results):
        """Evaluates, logs and saves what an epoch has made."""
        results |= trainer.evaluate(test_set, class_names, sizes[-1])[0]
        history.append(step.finite(results))
        best = best_epoch(history)
        if workers.is_master:
            step.log_metadata(**results)
            save(epoch, best, trainer, class_names, sizes[-1], history)
        logging.info(
            "epoch %d: %s, %s",
            epoch,
            describe(results),
            "the best so far" if best == epoch else f"the best is epoch {best}",
        )

    history = []
    if workers.is_master:
        history = resume(given.earlier, trainer, info.variant, class_names)
    history = trainer.share_state(history)
    if not history:
        measure(0, {"epoch": 0})
    if workers.is_master:
        draw_batch(train_set, class_names)
    for epoch in range(len(history), values["epochs"] + 1):
        if values["patience"] and epoch > best_epoch(history) + values["patience"]:
            logging.info("no better AP for %d epochs: stopped", values["patience"])
            break
        if epoch > frozen_epochs(values, known) and values["kept_rate"]:
            trainer.thaw()
        epoch_variable.assign(epoch)
        results = trainer.train_epoch(
            train_set,
            given.train_paths,
            bar(f"epoch {epoch}/{values['epochs']}", steps_per_epoch, workers),
        )
        lost = results.pop("lost")
        if lost and epoch == 1:
            logging.warning("%d boxes are not learned: no anchor free for them", lost)
        rate = {"learning_rate": trainer.learning_rate()}
        measure(epoch, {"epoch": epoch} | rate | results)

    results, tested = measure_shipped(
        trainer, test_set, class_names, sizes[-1], workers
    )
    if workers.is_master:
        finish(results, tested, given.test_paths, class_names, history)


def build_trainer(model, known, variant, strategy, values, steps_per_epoch):
    """Builds the trainer: the network's averages, and an optimizer for each group.

    The layers kept of an earlier model are one group, which waits for `freeze_epochs`
    and has a smaller learning rate; the others, the output layers always among them,
    are the other. Output layers that know all classes have the smaller rate too.

    Args:
        model: the result of `build_model`.
        known: whether its output layers know all classes.
        variant: its `grid.Variant`.
        strategy: a `tf.distribute.Strategy`.
        values: the step's parameters.
        steps_per_epoch: steps of an epoch.
    """
    from yolov3_tf2 import model as network
    from yolov3_tf2 import optimizer, training

    kept = KEPT_PARTS[values["transfer"]]
    freeze_epochs = frozen_epochs(values, known)
    new = [part for part in network.PARTS if part not in kept]
    rate = values["learning_rate"] * (values["kept_rate"] if known else 1.0)
    if not rate:
        raise InputError(
            "--kept_rate=0: expected more, as the output layers know all classes and "
            "nothing would be trained; --freeze_epochs keeps the layers under them."
        )
    replicas = strategy.num_replicas_in_sync
    if replicas > 1:
        factor = optimizer.rate_factor(values["optimizer"], replicas)
        logging.info("learning rate times %.3g for %d devices", factor, replicas)
        rate *= factor
    thawed_epochs = values["epochs"] - freeze_epochs * bool(kept)
    groups = []
    for name, parts, group_rate, epochs in (
        ("new", new, rate, values["epochs"]),
        ("kept", kept, rate * values["kept_rate"], thawed_epochs),
    ):
        layers = network.layers_of(model, *parts)
        if layers and group_rate and epochs > 0:
            built = optimizer.build_optimizer(
                values["optimizer"],
                [v for layer in layers for v in layer.trainable_variables],
                group_rate,
                epochs * steps_per_epoch,
                values["weight_decay"],
                name,
            )
            groups.append((built, layers))
    averaged = model
    if values["ema"]:
        num_classes = model.output_shape[0][-1] - 5
        averaged = network.build_model(variant, num_classes, random=False)
    trainer = training.Trainer(
        model,
        averaged,
        variant,
        strategy,
        groups,
        box_loss=values["box_loss"],
        ema=values["ema"],
        clip_norm=values["clip_norm"],
    )
    if kept and (freeze_epochs or not values["kept_rate"]):
        trainer.freeze(kept)
    trainer.start_average()
    return trainer


def frozen_epochs(values, known):
    """The number of epochs for which the kept layers stay as they are.

    By default that is all of them where the output layers know all classes: features
    learned from 100,000 pictures are soon worse for a few that show nothing new.
    """
    if values["freeze_epochs"] >= 0:
        return values["freeze_epochs"]
    return values["epochs"] if known else FREEZE_EPOCHS


def build_model(info, class_names, model_folder, transfer):
    """Builds the network for `class_names`, with what `transfer` keeps of the old one.

    The checkpoint's layers are compared before any is copied; a model for other
    classes is welcome, as its output layers are not among them.

    Returns:
        The model, and whether its output layers know all classes.
    """
    from yolov3_tf2 import checkpoint
    from yolov3_tf2 import model as network

    model = network.build_model(info.variant, len(class_names))
    kept = checkpoint.load_weights(model_folder, model, KEPT_PARTS[transfer])
    known = []
    if transfer == "heads":
        copied, known = checkpoint.transplant_outputs(
            model_folder, model, info, class_names
        )
        kept += copied
        logging.info(
            "classes known to the model: %d of %d (%s)",
            len(known),
            len(class_names),
            ", ".join(known) or "none",
        )
    logging.info(
        "transfer %s: %s of %s numbers kept",
        transfer,
        f"{kept:,}",
        f"{model.count_params():,}",
    )
    return model, len(known) == len(class_names)


def check_files(files, name, class_names, share):
    """Checks that an input has records, of these classes, and enough for all workers.

    Args:
        files: its `record_files.RecordFiles`.
    """
    from yolov3_tf2 import records

    for path in files.paths:
        records.check(path, class_names)
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
    from yolov3_tf2 import training_state

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


def save(epoch, best, trainer, class_names, size, history):
    """Writes the model, where it is the best so far, and the state of the training."""
    from yolov3_tf2 import checkpoint, training_state

    checkpoints = step.outputs_folder() / "checkpoints"
    if epoch == best:
        with step.staged_outputs(quiet=True) as folder:
            checkpoint.save_model(folder / "model", trainer.averaged, class_names, size)
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
    import itertools

    from yolov3_tf2 import plots
    from yolov3_tf2.dataset import iterate

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


def measure_shipped(trainer, test_set, class_names, size, workers):
    """Measures the model that is shipped, as read from its files; by all workers.

    Returns:
        See `Trainer.evaluate`.
    """
    from yolov3_tf2 import checkpoint
    from yolov3_tf2 import model as network

    if workers.is_master:
        folder = step.outputs_folder() / "model"
        checkpoint.load_weights(folder, trainer.averaged, network.PARTS)
    trainer.share_state()
    return trainer.evaluate(test_set, class_names, size)


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
    from yolov3_tf2 import evaluate, pictures, plots, records

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


def describe_devices(strategy):
    """Names what trains, for the log."""
    replicas = strategy.num_replicas_in_sync
    devices = strategy.extended.worker_devices
    kind = devices[0].split(":")[-2]
    if replicas > len(devices):
        return f"{replicas // len(devices)} workers with {len(devices)} {kind} each"
    return f"{replicas} {kind}" if kind == "GPU" else "no GPU found, on the processor"


def bar(description, total, workers):
    """Returns what wraps the batches of an epoch into the master's progress bar."""
    return lambda batches: step.progress(
        batches,
        desc=description,
        total=total,
        unit=" steps",
        disable=not workers.is_master,
    )


if __name__ == "__main__":
    step.run(main)
