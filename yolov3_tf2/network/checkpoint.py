"""A trained model as files: `model.tf.*`, a TensorFlow checkpoint, and `model.json`.

The checkpoint's keys are layer names (`backbone_00_conv/kernel`), so that
`tf.train.load_checkpoint` reads it without this project, and a layer is found by its
name whatever else the network has. `model.json` says what the numbers belong to.
"""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from yolov3_tf2.errors import InputError, writing
from yolov3_tf2.network import folding
from yolov3_tf2.network import model as network
from yolov3_tf2.network.variants import VARIANTS, Variant

NAME = "model.tf"
FILES = (f"{NAME}.index", f"{NAME}.data-00000-of-00001", "model.json")
_KEY = "{}/.ATTRIBUTES/VARIABLE_VALUE"


class ModelInfo(NamedTuple):
    """What `model.json` says.

    Attributes:
        variant: a `variants.Variant`.
        class_names: list of strings in the order of the class logits.
        size: width and height of the network's input, pixels.
        train_boxes: number of boxes that it was trained on, of each class by its name;
            None where that is not known, as of a weights file.
    """

    variant: Variant
    class_names: list[str]
    size: int
    train_boxes: dict[str, int] | None = None


def save_model(folder, model, class_names, size, train_boxes=None):
    """Writes `model` into `folder`, which is made; its name is its variant's.

    The `.json` is written last: a folder that has it has the whole model. What else
    it says: see `ModelInfo`.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(folder / NAME, model)
    info = {"variant": model.name, "classes": list(class_names), "size": int(size)}
    if train_boxes is not None:
        info["train_boxes"] = train_boxes
    text = json.dumps(info, ensure_ascii=False, indent=1)
    (folder / "model.json").write_text(text + "\n", encoding="utf-8")


def save_weights(prefix, model):
    """Writes the variables of `model` to `<prefix>.index` and `<prefix>.data-*`."""
    layers = {
        layer.name: tf.train.Checkpoint(**{v.name: v.value for v in layer.variables})
        for layer in network.layers_of(model, *network.PARTS)
    }
    with writing(prefix):
        tf.train.Checkpoint(**layers).write(str(prefix))


def read_info(folder):
    """Reads `model.json` of a model's folder and checks that its files are there.

    Raises:
        InputError: a file is missing, or `model.json` does not say what it should.
    """
    folder = Path(folder)
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise InputError(
            f"{folder}: expected the three files of a model ({', '.join(FILES)}), "
            f"{', '.join(missing)} missing; give all files of the folder model/ that "
            "weights.py or train.py wrote."
        )
    path = folder / "model.json"
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        variant, class_names, size = info["variant"], info["classes"], info["size"]
        train_boxes = info.get("train_boxes")
        if not (isinstance(variant, str) and isinstance(class_names, list)):
            raise TypeError("variant must be a string and classes a list")
        if not isinstance(size, int) or size < 32 or size % 32:
            raise TypeError(f"size must be a multiple of 32 pixels, and not {size!r}")
        class_names = [str(name) for name in class_names]
        if train_boxes is not None:
            _check_train_boxes(train_boxes, class_names)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: expected JSON with variant, classes and size, got an error: "
            f"{error!r}; was it written by another program?"
        ) from error
    if variant not in VARIANTS:
        raise InputError(
            f"{path}: expected a variant of {', '.join(VARIANTS)}, got {variant!r}."
        )
    return ModelInfo(VARIANTS[variant], class_names, size, train_boxes)


def _check_train_boxes(train_boxes, class_names):
    """Raises a `TypeError` unless there is a whole number, not below 0, a class."""
    if not (
        isinstance(train_boxes, dict)
        and train_boxes.keys() == set(class_names)
        and all(type(n) is int and n >= 0 for n in train_boxes.values())
    ):
        raise TypeError("train_boxes must have a number of boxes for each class")


def load_model(folder, *, folded=False):
    """Builds the model of `folder` with its weights; returns it and its `ModelInfo`.

    Args:
        folder: where `model.tf.*` and `model.json` lie.
        folded: whether its BatchNorm is folded into its convolutions: the same
            outputs in less time, for a network that is not trained.

    Raises:
        InputError: see `read_info` and `load_weights`.
    """
    info = read_info(folder)
    model = network.build_model(info.variant, len(info.class_names), random=False)
    load_weights(folder, model, network.PARTS)
    if folded:
        model = folding.fold_model(model)
    return model, info


def load_weights(folder, model, parts):
    """Copies the layers of `parts` from the checkpoint in `folder` into `model`.

    Every layer is looked up and its shapes are compared before the first is copied.

    Args:
        folder: where `model.tf.*` lies.
        model: the result of `build_model`.
        parts: names out of `model.PARTS`.

    Returns:
        The number of parameters copied.

    Raises:
        InputError: the checkpoint is damaged, lacks a layer, or has other shapes.
    """
    variables = _variables(model, *parts)
    shapes = {key: tuple(variable.shape) for key, variable in variables.items()}
    values = _read(folder, shapes, model.name)
    for key, variable in variables.items():
        variable.assign(values[key])
    return sum(value.size for value in values.values())


def transplant_outputs(folder, model, info, class_names):
    """Fills the output layers of `model` from those of a checkpoint for other classes.

    Boxes and objectness are copied. So is a class that bears the name of a class that
    the checkpoint knows, case, spaces and underscores aside. A class that it does not
    know gets the mean of those that it knows.

    Args:
        folder: where `model.tf.*` lies.
        model: the result of `build_model` for `class_names`.
        info: the `ModelInfo` of the folder.
        class_names: list of strings.

    Returns:
        The number of parameters copied, and the names of the classes that are known.

    Raises:
        InputError: the checkpoint is damaged, lacks a layer, or has other shapes.
    """
    known = {_plain(name): index for index, name in enumerate(info.class_names)}
    sources = [known.get(_plain(name)) for name in class_names]
    anchors = info.variant.num_anchors(0)
    old_depth = 5 + len(info.class_names)
    variables = _variables(model, "output")
    shapes = {
        key: (*variable.shape[:-1], anchors * old_depth)
        for key, variable in variables.items()
    }
    values = _read(folder, shapes, model.name)
    copied = 0
    for key, variable in variables.items():
        old = values[key].reshape(*variable.shape[:-1], anchors, old_depth)
        mean = old[..., 5:].mean(axis=-1)
        columns = [old[..., i] for i in range(5)]
        columns += [mean if i is None else old[..., 5 + i] for i in sources]
        variable.assign(np.stack(columns, axis=-1).reshape(variable.shape))
        copied += mean.size * (5 + sum(i is not None for i in sources))
    names = zip(class_names, sources, strict=True)
    return copied, [name for name, source in names if source is not None]


def _variables(model, *parts):
    """The variables of the layers of `parts`, by their keys in a checkpoint."""
    return {
        _KEY.format(f"{layer.name}/{variable.name}"): variable
        for layer in network.layers_of(model, *parts)
        for variable in layer.variables
    }


def _plain(name):
    """A class name for comparison: `Traffic_Light` is `traffic light`."""
    return "".join(name.lower().replace("_", " ").split())


def _read(folder, shapes, name):
    """Reads the tensors of `shapes`, keys to tuples, each compared before all are read.

    Raises:
        InputError: the checkpoint is damaged, lacks one, or has another shape.
    """
    prefix = Path(folder) / NAME
    try:
        reader = tf.train.load_checkpoint(str(prefix))
        found = reader.get_variable_to_shape_map()
    except (tf.errors.OpError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{prefix}.index: not a readable TensorFlow checkpoint ({error}); was it "
            "cut off while it was copied?"
        ) from error
    for key, shape in shapes.items():
        if key not in found or tuple(found[key]) != shape:
            got = tuple(found[key]) if key in found else "nothing"
            raise InputError(
                f"{prefix}: expected {key.split('/.')[0]} of shape {shape} for {name}, "
                f"got {got}; is it the checkpoint of another variant or class count "
                "than model.json says?"
            )
    try:
        return {key: reader.get_tensor(key) for key in shapes}
    except (tf.errors.OpError, ValueError, RuntimeError, IndexError) as error:
        # IndexError is what the reader makes of a file that ends too early.
        raise InputError(
            f"{prefix}.data-00000-of-00001: not readable ({error}); was it cut off "
            "while it was copied?"
        ) from error
