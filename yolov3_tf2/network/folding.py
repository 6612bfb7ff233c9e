"""BatchNorm folded into the convolutions of layers that are not trained."""

import numpy as np

from yolov3_tf2.network import model as network
from yolov3_tf2.network.layers import BATCH_NORM_EPSILON, SharedLayer


def fold(model, variant, num_classes, parts=network.PARTS):
    """Builds the same network with the BatchNorm of parts folded into convolutions.

    For what is not trained: scale and shift of a BatchNorm are those of the
    convolution's outputs, and so a factor of its kernels and a bias.

    Args:
        model: the result of `build_model`.
        variant, num_classes: what it was built with.
        parts: those of `PARTS` that are folded; the layers of the others are `model`'s.

    Returns:
        A `keras.Model` of the dtype policy in force, with the outputs of `model`.
    """
    folded = network.build_model(
        variant, num_classes, random=False, folded=parts, shared=model
    )
    for layer in network.layers_of(folded, *parts):
        layer.trainable = False
    copy_folded(model, folded)
    return folded


def copy_folded(model, folded):
    """Sets the numbers of a result of `fold` once more, as those of `model` are now."""
    for conv, norm in network.convolutions(model):
        target = folded.get_layer(conv.name)
        if isinstance(target, SharedLayer):
            continue
        weights = conv.get_weights()
        if norm is not None:
            weights = fold_weights(*weights, *norm.get_weights())
        target.set_weights(weights)


def fold_weights(kernel, gamma, beta, mean, variance):
    """Returns kernel and bias of a convolution and a BatchNorm in one, as arrays."""
    factor = gamma / np.sqrt(variance + BATCH_NORM_EPSILON)
    return [kernel * factor, beta - mean * factor]
