"""Which parts of a network start from a pretrained model, and how fast each learns."""

from absl import logging

from yolov3_tf2.errors import InputError
from yolov3_tf2.network import checkpoint
from yolov3_tf2.network import model as network
from yolov3_tf2.training import optimizer
from yolov3_tf2.training.trainer import Trainer

# The parts of the network that start from the pretrained model, by the parameter
# `transfer`. With `heads`, so do the output layers, class by class.
PRETRAINED_PARTS = {
    "darknet": ["backbone"],
    "no_output": ["backbone", "neck"],
    "heads": ["backbone", "neck"],
    "none": [],
}
FREEZE_EPOCHS = 3
# With fewer labelled training images per class, training all layers makes pretrained
# classes worse: `docs/training.md` has the measurements on both sides.
ENOUGH_IMAGES = 30


def build_transferred_model(info, class_names, model_folder, transfer):
    """Builds the network for `class_names`, with weights of a pretrained model.

    All layers are compared with the checkpoint before any is loaded. The pretrained
    model may have other classes: its output layers are not among these layers.

    Args:
        info: the `model_info.ModelInfo` of the pretrained model.
        class_names: list of strings.
        model_folder: folder of the pretrained model.
        transfer: a key of `PRETRAINED_PARTS`.

    Returns:
        The model, and whether the output layers of all its classes are pretrained.

    Raises:
        InputError: the pretrained model lacks a part that `transfer` needs.
    """
    parts = PRETRAINED_PARTS[transfer] + (["output"] if transfer == "heads" else [])
    missing = [part for part in parts if part not in info.parts]
    if missing:
        raise InputError(
            f"--transfer={transfer}: expected pretrained {', '.join(parts)}, but the "
            f"input 'model' has only {', '.join(info.parts)}, as it was "
            "made from a backbone file; use --transfer=darknet."
        )
    model = network.build_model(info.variant, len(class_names))
    num_pretrained = checkpoint.load_weights(
        model_folder, model, PRETRAINED_PARTS[transfer]
    )
    pretrained_classes = []
    if transfer == "heads":
        num_copied, pretrained_classes = checkpoint.transplant_outputs(
            model_folder, model, info, class_names
        )
        num_pretrained += num_copied
        logging.info(
            "pretrained classes: %d of %d (%s)",
            len(pretrained_classes),
            len(class_names),
            ", ".join(pretrained_classes) or "none",
        )
    logging.info(
        "transfer %s: %s of %s weights are pretrained",
        transfer,
        f"{num_pretrained:,}",
        f"{model.count_params():,}",
    )
    return model, len(pretrained_classes) == len(class_names)


def are_few_images(all_classes_pretrained, num_labelled, num_classes):
    """Returns whether the training images are too few to improve pretrained classes.

    Then the layers below the output layers stay frozen by default, and the output
    layers have a lower rate: features learned from 100,000 images soon get worse on a
    few images that show nothing new. The decision is logged with its reason.

    Args:
        all_classes_pretrained: the second result of `build_transferred_model`.
        num_labelled: number of training images with a box.
        num_classes: number of classes.
    """
    if not all_classes_pretrained:
        return False
    per_class = num_labelled / num_classes
    are_few = per_class < ENOUGH_IMAGES
    decision = "enough to train all layers"
    if are_few:
        decision = (
            f"fewer than {ENOUGH_IMAGES}: by default pretrained layers stay frozen, "
            "and the output layers learn slowly"
        )
    logging.info(
        "all classes are pretrained; %.3g labelled training images per class are %s",
        *(per_class, decision),
    )
    return are_few


def build_trainer(
    model,
    few_images,
    variant,
    strategy,
    values,
    steps_per_epoch,
    max_boxes,
):
    """Builds the trainer, with an optimizer for each of two groups of layers.

    The pretrained layers below the output layers are frozen for some epochs and have a
    lower learning rate. The other group is the remaining layers, with the output layers
    always among them. With few images, it has a lower rate too.

    Args:
        model: the first result of `build_transferred_model`.
        few_images: the result of `are_few_images`.
        variant: the model's `variants.Variant`.
        strategy: a `tf.distribute.Strategy`.
        values: dict of the parameters of train.py.
        steps_per_epoch: number of steps of an epoch.
        max_boxes: number of detections per image that an evaluation keeps.

    Raises:
        InputError: nothing would be trained.
    """
    groups = _build_groups(model, few_images, strategy, values, steps_per_epoch)
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
        max_boxes=max_boxes,
    )
    pretrained_parts = PRETRAINED_PARTS[values["transfer"]]
    freeze_epochs = count_frozen_epochs(values, few_images)
    if pretrained_parts and (freeze_epochs or not values["kept_rate"]):
        trainer.freeze(pretrained_parts)
        frozen = values["epochs"]
        if values["kept_rate"]:
            frozen = min(freeze_epochs, values["epochs"])
        logging.info(
            "the pretrained layers below the output layers are frozen for %d of %d "
            "epochs",
            frozen,
            values["epochs"],
        )
    trainer.start_average()
    return trainer


def _build_groups(model, few_images, strategy, values, steps_per_epoch):
    """Returns a list of pairs of an optimizer and the layers that it updates."""
    pretrained_parts = PRETRAINED_PARTS[values["transfer"]]
    new_parts = [part for part in network.PARTS if part not in pretrained_parts]
    epochs, kept_rate = values["epochs"], values["kept_rate"]
    freeze_epochs = count_frozen_epochs(values, few_images)
    thawed_epochs = epochs - freeze_epochs * bool(pretrained_parts)
    rate = values["learning_rate"] * (kept_rate if few_images else 1.0)
    if not rate:
        raise InputError(
            "--kept_rate=0: expected more than 0, as all classes are pretrained and "
            "there are few images: nothing would be trained; use --freeze_epochs to "
            "freeze only the layers below the output layers."
        )
    replicas = strategy.num_replicas_in_sync
    if replicas > 1:
        factor = optimizer.rate_factor(values["optimizer"], replicas)
        logging.info("learning rate times %.3g for %d devices", factor, replicas)
        rate *= factor
    groups = []
    # The names are in the checkpoints of earlier versions, see `Trainer.state`.
    for name, parts, group_rate, group_epochs in (
        ("new", new_parts, rate, epochs),
        ("kept", pretrained_parts, rate * kept_rate, thawed_epochs),
    ):
        layers = network.layers_of(model, *parts)
        if layers and group_rate and group_epochs > 0:
            built = optimizer.build_optimizer(
                values["optimizer"],
                [v for layer in layers for v in layer.trainable_variables],
                group_rate,
                group_epochs * steps_per_epoch,
                values["weight_decay"],
                name,
            )
            groups.append((built, layers))
    return groups


def count_frozen_epochs(values, few_images):
    """Returns the number of epochs in which the pretrained layers are frozen.

    Args:
        values: dict of the parameters of train.py.
        few_images: the result of `are_few_images`.
    """
    if values["freeze_epochs"] >= 0:
        return values["freeze_epochs"]
    return values["epochs"] if few_images else FREEZE_EPOCHS
