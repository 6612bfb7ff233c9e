"""Fine-tunes YOLOv3 on the TFRecords of convert_superbai.py.

    python train.py --epochs 20 --batch_size 8

Takes the newest local outputs of convert_superbai.py and weights.py, or the inputs
given. Writes `model/`, the trained model, and `checkpoints/`, the newest epoch's.
"""

import valohai
from absl import logging

import step
import step_inputs
from yolov3_tf2.errors import InputError

PARAMETERS = {
    "batch_size": {
        "default": 8,
        "min": 1,
        "max": 1024,
        "description": "Pictures a training step, on each GPU.",
    },
    "epochs": {
        "default": 10,
        "min": 1,
        "max": 10000,
        "description": "Passes over the training pictures.",
    },
    "learning_rate": {
        "default": 0.001,
        "min": 1e-8,
        "max": 1.0,
        "description": "Peak of the learning rate: it rises over the first tenth of "
        "the steps and falls as a cosine after that.",
    },
    "size": {
        "default": 416,
        "min": 32,
        "max": 4096,
        "description": "Side of the network's input in pixels, a multiple of 32.",
    },
    "transfer": {
        "default": "darknet",
        "choices": ["darknet", "no_output", "heads", "none"],
        "description": "What is kept of the model: its backbone, which stays frozen "
        "(darknet); all but the output layers, everything being trained (no_output); "
        "the output layers too, classes found by their names (heads); nothing (none).",
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
}
valohai.prepare(
    step="train",
    image="python:3.11-slim",
    default_parameters=PARAMETERS,
    default_inputs=INPUTS,
)

SEED = 0
KEPT_PARTS = {
    "darknet": ["backbone"],
    "no_output": ["backbone", "neck"],
    "heads": ["backbone", "neck"],
    "none": [],
}


def main():
    values = step.parameters(PARAMETERS, INPUTS)
    step.check_size(values["size"])
    class_names = step_inputs.read_class_names(step_inputs.input_paths("classes")[0])
    train_paths = step_inputs.input_paths("train")
    test_paths = step_inputs.input_paths("test")
    model_folder = step_inputs.input_folder("model", "model.json")

    # TensorFlow takes seconds to import: what can be refused is refused before.
    step.import_tensorflow()
    import keras

    from yolov3_tf2 import checkpoint, training
    from yolov3_tf2.dataset import build_dataset

    keras.utils.set_random_seed(SEED)
    info = checkpoint.read_info(model_folder)
    strategy = training.build_strategy()
    batch_size = values["batch_size"] * strategy.num_replicas_in_sync
    pictures = count_pictures(train_paths, "train")
    steps_per_epoch = -(-pictures // batch_size)
    logging.info(
        "%s: %d classes, %d pictures for training and %d for testing, %s, %d a step",
        info.variant.name,
        len(class_names),
        pictures,
        count_pictures(test_paths, "test"),
        describe_devices(strategy),
        batch_size,
    )

    with strategy.scope():
        model = build_model(info, class_names, model_folder, values["transfer"])
        trainer = training.Trainer(
            model,
            info.variant,
            values["size"],
            strategy,
            values["learning_rate"],
            values["epochs"] * steps_per_epoch,
        )
    common = (class_names, info.variant, values["size"], batch_size)
    fill = strategy.num_replicas_in_sync > 1
    train_set, test_set = (
        strategy.experimental_distribute_dataset(dataset)
        for dataset in (
            build_dataset(train_paths, *common, SEED, fill),
            build_dataset(test_paths, *common, None, fill),
        )
    )

    checkpoints = step.outputs_folder() / "checkpoints"
    for epoch in range(1, values["epochs"] + 1):
        results = trainer.train_epoch(
            train_set, bar(f"epoch {epoch}/{values['epochs']}", steps_per_epoch)
        )
        lost = results.pop("lost")
        if lost and epoch == 1:
            logging.warning("%d boxes are not learned: no anchor free for them", lost)
        results |= trainer.evaluate(test_set, class_names)
        step.log_metadata(
            epoch=epoch,
            learning_rate=float(trainer.optimizer.learning_rate),
            **results,
        )
        checkpoint.save_epoch(checkpoints, epoch, model, class_names, values["size"])

    with step.staged_outputs() as folder:
        checkpoint.save_model(folder / "model", model, class_names, values["size"])
    logging.info(
        "trained: AP %.3f, AP50 %.3f on the test pictures",
        results["AP"],
        results["AP50"],
    )


def build_model(info, class_names, model_folder, transfer):
    """Builds the network for `class_names`, with what `transfer` keeps of the old one.

    The checkpoint's layers are compared before any is copied; a model for other
    classes is welcome, as its output layers are not among them.
    """
    from yolov3_tf2 import checkpoint
    from yolov3_tf2 import model as network

    model = network.build_model(info.variant, len(class_names))
    kept = checkpoint.load_weights(model_folder, model, KEPT_PARTS[transfer])
    if transfer == "heads":
        copied, known = checkpoint.transplant_outputs(
            model_folder, model, info, class_names
        )
        kept += copied
        logging.info(
            "classes known to the model: %s of %d (%s)",
            len(known),
            len(class_names),
            ", ".join(known) or "none",
        )
    if transfer == "darknet":
        for layer in network.layers_of(model, "backbone"):
            layer.trainable = False
    logging.info(
        "transfer %s: %s of %s numbers kept, %s trained",
        transfer,
        f"{kept:,}",
        f"{model.count_params():,}",
        f"{sum(v.shape.num_elements() for v in model.trainable_variables):,}",
    )
    return model


def count_pictures(paths, name):
    """Counts the records of an input, and checks that its files are whole."""
    from yolov3_tf2 import records

    number = sum(records.count(path) for path in paths)
    if not number:
        raise InputError(
            f"input '{name}': no pictures in {', '.join(map(str, paths))}; expected "
            "the TFRecord files of convert_superbai.py."
        )
    return number


def describe_devices(strategy):
    """Names what trains, for the log."""
    replicas = strategy.num_replicas_in_sync
    kind = strategy.extended.worker_devices[0].split(":")[-2]
    return f"{replicas} {kind}" if kind == "GPU" else "no GPU found, on the processor"


def bar(description, total):
    """Returns what wraps the batches of an epoch into a progress bar."""
    return lambda batches: step.progress(
        batches, desc=description, total=total, unit=" steps"
    )


if __name__ == "__main__":
    step.run(main)
