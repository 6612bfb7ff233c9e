"""A trained model as files: `model.tf.*`, a TensorFlow checkpoint, and `model.json`.

The keys of the checkpoint are layer names (`backbone_00_conv/kernel`). So
`tf.train.load_checkpoint` reads it without this project, and a layer is found by its
name in a network of any class count. `model.json` says which network the weights belong
to.
"""

from pathlib import Path

import numpy as np
import tensorflow as tf

from yolov3_tf2.errors import InputError, shorten, writing
from yolov3_tf2.names import normalise_name
from yolov3_tf2.network import folding, model_info
from yolov3_tf2.network import model as network

NAME = "model.tf"
FILES = (f"{NAME}.index", f"{NAME}.data-00000-of-00001", model_info.FILE)


def save_model(folder, model, info):
    """Writes `model` and its `ModelInfo` into `folder`, which is created.

    `model.json` is written last: a folder that has it holds the whole model.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(folder / NAME, model)
    model_info.write_model_info(folder, info)


def save_weights(prefix, model):
    """Writes the weights of `model` to `<prefix>.index` and `<prefix>.data-*`."""
    layers = {
        layer.name: tf.train.Checkpoint(**{v.name: v.value for v in layer.variables})
        for layer in network.layers_of(model, *network.PARTS)
    }
    with writing(prefix):
        tf.train.Checkpoint(**layers).write(str(prefix))


def read_model_info(folder):
    """Reads `model.json` in the folder of a model and checks that its files are there.

    Returns:
        `ModelInfo`.

    Raises:
        InputError: a file is missing, or `model.json` has missing or wrong values.
    """
    folder = Path(folder)
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise InputError(
            f"{folder}: expected the three files of a model ({', '.join(FILES)}), "
            f"{', '.join(missing)} missing; pass all files of the folder model/ that "
            "weights.py or train.py wrote."
        )
    return model_info.read_model_info(folder / model_info.FILE)


def load_model(folder, *, folded=False):
    """Builds the model in `folder` with its weights.

    Args:
        folder: where `model.tf.*` and `model.json` lie.
        folded: whether to fold BatchNorm into the convolutions, for faster inference;
            see `folding.fold_model`.

    Returns:
        The `keras.Model` and its `ModelInfo`.

    Raises:
        InputError: the model has only a backbone; see also `read_model_info` and
            `load_weights`.
    """
    info = read_model_info(folder)
    if info.parts != network.PARTS:
        raise InputError(
            f"{folder}: expected a whole model, got only the "
            f"{' and '.join(info.parts)} of {info.variant.name}, from a backbone file, "
            "which detects nothing; train it first, with train.py --transfer=darknet."
        )
    model = network.build_model(info.variant, len(info.class_names), random=False)
    load_weights(folder, model, network.PARTS)
    if folded:
        model = folding.fold_model(model)
    return model, info


def load_weights(folder, model, parts):
    """Copies the layers of `parts` from the checkpoint in `folder` into `model`.

    All layers are looked up and their shapes compared before the first is copied.

    Args:
        folder: where `model.tf.*` lies.
        model: the result of `build_model`.
        parts: names from `model.PARTS`.

    Returns:
        The number of parameters copied.

    Raises:
        InputError: the checkpoint is damaged, lacks a layer, or has other shapes.
    """
    variables = _variables_by_key(model, *parts)
    shapes = {key: tuple(variable.shape) for key, variable in variables.items()}
    tensors = _read_tensors(folder, shapes, model.name)
    for key, variable in variables.items():
        variable.assign(tensors[key])
    return sum(tensor.size for tensor in tensors.values())


def transplant_outputs(folder, model, info, class_names):
    """Fills the output layers of `model` from a checkpoint for other classes.

    The logits of boxes and objectness are copied, and so are those of a class whose
    name is in the checkpoint, ignoring case, spaces and underscores. A class that is
    not in the checkpoint gets the mean over the classes that are.

    Args:
        folder: where `model.tf.*` lies.
        model: the result of `build_model` for `class_names`.
        info: the `ModelInfo` of the folder.
        class_names: list of strings.

    Returns:
        The number of parameters copied, and the names from `class_names` that are in
        the checkpoint.

    Raises:
        InputError: the checkpoint is damaged, lacks a layer, or has other shapes.
    """
    old_labels = {_simplify(name): i for i, name in enumerate(info.class_names)}
    sources = [old_labels.get(_simplify(name)) for name in class_names]
    anchors = info.variant.num_anchors(0)
    old_depth = 5 + len(info.class_names)
    variables = _variables_by_key(model, "output")
    shapes = {
        key: (*variable.shape[:-1], anchors * old_depth)
        for key, variable in variables.items()
    }
    tensors = _read_tensors(folder, shapes, model.name)
    num_copied = 0
    for key, variable in variables.items():
        old = tensors[key].reshape(*variable.shape[:-1], anchors, old_depth)
        mean = old[..., 5:].mean(axis=-1)
        columns = [old[..., i] for i in range(5)]
        columns += [mean if i is None else old[..., 5 + i] for i in sources]
        variable.assign(np.stack(columns, axis=-1).reshape(variable.shape))
        num_copied += mean.size * (5 + sum(i is not None for i in sources))
    names = zip(class_names, sources, strict=True)
    return num_copied, [name for name, source in names if source is not None]


def _simplify(class_name):
    """Makes names comparable: `Traffic_Light` becomes `trafficlight`."""
    name = normalise_name(class_name).lower().replace("_", " ")
    return "".join(name.split())


def _variables_by_key(model, *parts):
    """Returns the weights of `parts`, a dict from checkpoint key to variable."""
    return {
        f"{layer.name}/{variable.name}/.ATTRIBUTES/VARIABLE_VALUE": variable
        for layer in network.layers_of(model, *parts)
        for variable in layer.variables
    }


def _read_tensors(folder, shapes, variant_name):
    """Reads tensors of a checkpoint, after comparing all their shapes.

    Args:
        folder: where `model.tf.*` lies.
        shapes: dict from key to expected shape, a tuple.
        variant_name: of the network that they are for.

    Returns:
        A dict from key to array.

    Raises:
        InputError: the checkpoint is damaged, lacks a tensor, or has other shapes.
    """
    prefix = Path(folder) / NAME
    try:
        reader = tf.train.load_checkpoint(str(prefix))
        shapes_in_file = reader.get_variable_to_shape_map()
    except (tf.errors.OpError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{prefix}.index: not a readable TensorFlow checkpoint ({shorten(error)}); "
            "was the file cut off while it was copied?"
        ) from error
    for key, shape in shapes.items():
        if key not in shapes_in_file or tuple(shapes_in_file[key]) != shape:
            got = tuple(shapes_in_file[key]) if key in shapes_in_file else "nothing"
            raise InputError(
                f"{prefix}: expected {key.split('/.')[0]} of shape {shape} for "
                f"{variant_name}, got {got}; is it the checkpoint of another variant "
                "or class count than model.json says?"
            )
    try:
        return {key: reader.get_tensor(key) for key in shapes}
    except (tf.errors.OpError, ValueError, RuntimeError, IndexError) as error:
        # The reader raises an IndexError where a file ends too early.
        raise InputError(
            f"{prefix}.data-00000-of-00001: not readable ({shorten(error)}); was "
            "the file cut off while it was copied?"
        ) from error
