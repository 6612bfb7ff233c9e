"""Measures the images per second of a training step, compared to a bare step.

    python benchmarks/train_step.py --cases full-frozen full tiny

Random weights, random images, no input pipeline. It times in turn a bare float32 step
of the same network, with the layers of Keras, a one-line loss and Adam; and the step of
this project with its loss, clipping, optimizers and averages, in float32 and in the
machine's fastest precision.
"""

import argparse

import common
import numpy as np

CASES = {
    "full-frozen": ("yolov3", 4, True),
    "full": ("yolov3", 4, False),
    "tiny": ("yolov3-tiny", 8, False),
    "tiny-frozen": ("yolov3-tiny", 8, True),
}
NUM_CLASSES = 80


def bare_step(variant, images, frozen):
    """Builds a float32 step of the network with nothing else of this project."""
    import keras
    import tensorflow as tf

    from yolov3_tf2.network import model as network

    def plain(layer):
        if isinstance(layer, keras.layers.BatchNormalization):
            config = layer.get_config() | {"synchronized": False}
            return keras.layers.BatchNormalization.from_config(config)
        return layer.__class__.from_config(layer.get_config())

    model = keras.models.clone_model(
        network.build_model(variant, NUM_CLASSES), clone_function=plain
    )
    for layer in network.layers_of(model, *["backbone"] * frozen):
        layer.trainable = False
    optimizer = keras.optimizers.Adam(1e-5)
    optimizer.build(model.trainable_variables)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            logits = model(images, training=True)
            loss = tf.add_n([tf.reduce_mean(tf.square(scale)) for scale in logits])
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(
            zip(gradients, model.trainable_variables, strict=True)
        )
        return loss

    return lambda: step().numpy()


def own_step(variant, images, frozen, precision):
    """Builds the step of `train.py`: loss, clipping, optimizers and averages."""
    import tensorflow as tf

    from yolov3_tf2.boxes.assignment import assign_boxes
    from yolov3_tf2.network import model as network
    from yolov3_tf2.training import devices, optimizer, replicas
    from yolov3_tf2.training.trainer import Trainer

    devices.set_precision(precision)
    model, averaged = (network.build_model(variant, NUM_CLASSES) for _ in range(2))
    groups = []
    for name, parts in (("new", ["neck", "output"]), ("kept", ["backbone"])):
        layers = network.layers_of(model, *parts)
        variables = [v for layer in layers for v in layer.trainable_variables]
        if name == "new" or not frozen:
            built = optimizer.build_optimizer(
                "adamw", variables, 1e-5, 1000, 5e-4, name
            )
            groups.append((built, layers))
    strategy = devices.build_strategy()
    trainer = Trainer(
        model,
        averaged,
        variant,
        strategy,
        groups,
        box_loss="ciou",
        ema=0.9998,
        clip_norm=1000.0,
    )
    if frozen:
        trainer.freeze(["backbone"])
    trainer.start_average()
    devices.set_precision("float32")
    number, size = images.shape[0], images.shape[1]
    chance = np.random.default_rng(0)
    corners = chance.uniform(0, 0.7, (number, common.BOXES, 2))
    sides = chance.uniform(0.05, 0.3, (number, common.BOXES, 2))
    boxes = tf.constant(np.concatenate([corners, corners + sides], axis=-1), tf.float32)
    labels = tf.constant(chance.integers(0, NUM_CLASSES, boxes.shape[:2]), tf.int32)
    targets, unassigned = assign_boxes(boxes, labels, variant, size)
    batch = {
        "images": images,
        "boxes": boxes,
        "labels": labels,
        "targets": targets,
        "unassigned": unassigned,
        "weights": tf.ones(number),
    }
    dataset = tf.data.Dataset.from_tensors(batch)
    step = trainer.train_function(dataset)
    parts = replicas.copy_to_devices(strategy, batch)
    return lambda: step(parts)[1].numpy()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--size", type=int, default=416)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()

    import tensorflow as tf

    from yolov3_tf2.network.variants import VARIANTS
    from yolov3_tf2.training import devices

    half = devices.choose_precision("auto")
    rows = []
    for case in arguments.cases:
        name, batch, frozen = CASES[case]
        variant = VARIANTS[name]
        images = tf.random.uniform((batch, arguments.size, arguments.size, 3), seed=1)
        functions = {
            f"{case}, bare, float32": bare_step(variant, images, frozen),
            f"{case}, this project, float32": own_step(
                variant, images, frozen, "float32"
            ),
        }
        if half != "float32":
            functions[f"{case}, this project, {half}"] = own_step(
                variant, images, frozen, half
            )
        for function in functions.values():
            function(), function()  # The first calls trace it and allocate memory.
        seconds = common.side_by_side(functions, arguments.rounds)
        bare = next(iter(seconds.values()))
        for row, value in seconds.items():
            rows.append((row, f"{batch / value:.2f}", f"{bare / value:.2f}"))
            print(*rows[-1], sep="  ", flush=True)
    common.print_table(
        f"train step at {arguments.size}, batches of 4 (full) and 8 (tiny), medians of "
        f"{arguments.rounds} rounds in turn",
        ["", "images a second", "of the bare step"],
        rows,
    )


if __name__ == "__main__":
    main()
