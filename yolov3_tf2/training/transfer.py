"""What is kept of an earlier model, and how fast each part of it learns."""

from absl import logging

from yolov3_tf2.errors import InputError
from yolov3_tf2.network import checkpoint
from yolov3_tf2.network import model as network
from yolov3_tf2.training import optimizer
from yolov3_tf2.training.trainer import Trainer

# Of the network's parts, by the parameter `transfer`.
KEPT_PARTS = {
    "darknet": ["backbone"],
    "no_output": ["backbone", "neck"],
    "heads": ["backbone", "neck"],
    "none": [],
}
FREEZE_EPOCHS = 3


def build_transferred_model(info, class_names, model_folder, transfer):
    """Builds the network for `class_names`, with what `transfer` keeps of the old one.

    The checkpoint's layers are compared before any is copied; a model for other
    classes is welcome, as its output layers are not among them.

    Returns:
        The model, and whether its output layers know all classes.
    """
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


def build_trainer(model, known, variant, strategy, values, steps_per_epoch):
    """Builds the trainer: the network's averages, and an optimizer for each group.

    The layers kept of an earlier model are one group, which waits for `freeze_epochs`
    and has a smaller learning rate; the others, the output layers always among them,
    are the other. Output layers that know all classes have the smaller rate too.

    Args:
        model: the result of `build_model`.
        known: whether its output layers know all classes.
        variant: its `variants.Variant`.
        strategy: a `tf.distribute.Strategy`.
        values: the step's parameters.
        steps_per_epoch: steps of an epoch.
    """
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
    trainer = Trainer(
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
