"""Folds BatchNorm into convolutions where a network is not trained.

In inference mode BatchNorm multiplies each output channel of its convolution by a
constant and adds another. A convolution with scaled kernels and a bias computes the
same in less time.
"""

import keras
import numpy as np

from yolov3_tf2.network import model as network
from yolov3_tf2.network.layers import BATCH_NORM_EPSILON


def fold_model(model):
    """Builds a network without BatchNorm that computes the outputs of `model`.

    Args:
        model: the result of `build_model`. It is not changed.

    Returns:
        A `keras.Model` with its own weights, for inference.
    """
    folded = _clone_folded(model, network.PARTS)
    update_folded(folded, model)
    return folded


def freeze_parts(model, parts):
    """Freezes parts of `model` and returns the network to train instead of it.

    Args:
        model: the result of `build_model`. The layers of `parts` become not trainable.
        parts: names from `model.PARTS`.

    Returns:
        A `keras.Model` with the outputs of `model`. Its frozen parts are folded and
        have their own weights, see `update_folded`. The other parts are the layers of
        `model`: what trains one trains the other.
    """
    for layer in network.layers_of(model, *parts):
        layer.trainable = False
    folded = _clone_folded(model, parts)
    update_folded(folded, model)
    return folded


def update_folded(folded, model):
    """Computes the folded weights again, from the present weights of `model`.

    Args:
        folded: the result of `fold_model` or `freeze_parts`.
        model: the model that it was made from.
    """
    for conv, norm in network.convolutions(model):
        target = folded.get_layer(conv.name)
        if isinstance(target, SharedLayer):
            continue
        weights = conv.get_weights()
        if norm is not None:
            weights = _fold_weights(*weights, *norm.get_weights())
        target.set_weights(weights)


class SharedLayer(keras.layers.Layer):
    """A layer of another model, under its name.

    A layer remembers every model that it is called in: called directly, it would hold
    the folded network in memory for as long as its own model.
    """

    def __init__(self, layer):
        super().__init__(name=layer.name, dtype=layer.dtype_policy)
        self.layer = layer
        self.built = True

    def call(self, inputs, training=None):
        if isinstance(self.layer, keras.layers.BatchNormalization):
            return self.layer(inputs, training=training)
        return self.layer(inputs)

    def compute_output_shape(self, input_shape):
        return self.layer.compute_output_shape(input_shape)


def _clone_folded(model, parts):
    """Clones `model` without the BatchNorm of `parts`, sharing all other weights."""
    folded_layers = {layer.name for layer in network.layers_of(model, *parts)}

    def clone(layer):
        if layer.variables and layer.name not in folded_layers:
            return SharedLayer(layer)
        config = layer.get_config()
        if isinstance(layer, keras.layers.BatchNormalization):
            return keras.layers.Identity(name=layer.name)
        if isinstance(layer, keras.layers.Conv2D):
            # Zeros are faster to create; `update_folded` replaces them.
            config |= {"use_bias": True, "kernel_initializer": "zeros"}
            config["trainable"] = False
        return type(layer).from_config(config)

    def call(layer, inputs, mask=None):  # No layer here uses masks.
        return inputs if isinstance(layer, keras.layers.Identity) else layer(inputs)

    return keras.models.clone_model(model, clone_function=clone, call_function=call)


def _fold_weights(kernel, gamma, beta, mean, variance):
    """Returns kernel and bias that stand for a convolution and its BatchNorm."""
    factor = gamma / np.sqrt(variance + BATCH_NORM_EPSILON)
    return [kernel * factor, beta - mean * factor]
