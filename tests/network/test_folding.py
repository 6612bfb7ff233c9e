"""Folding: against the network with BatchNorm, and what frozen parts share."""

import keras
import numpy as np
import pytest
import reference

from yolov3_tf2.network import folding
from yolov3_tf2.network import model as network
from yolov3_tf2.network.variants import VARIANTS

TINY = VARIANTS["yolov3-tiny"]
IMAGES = np.random.default_rng(0).random((2, 96, 96, 3), "float32")


def build_calibrated(variant):
    """Builds a network with random weights and statistics that are not trivial."""
    keras.utils.set_random_seed(1)
    model = network.build_model(variant, 3)
    reference.calibrate(model, IMAGES)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.gamma.assign(layer.gamma * 1.3)
            layer.beta.assign(layer.beta + 0.2)
    return model


def assert_same_outputs(model, folded):
    pairs = zip(
        model(IMAGES, training=False), folded(IMAGES, training=False), strict=True
    )
    for expected, actual in pairs:
        largest = np.abs(expected).max()
        assert largest > 1
        assert np.abs(actual - expected).max() <= 1e-3 * largest


@pytest.mark.parametrize("name", VARIANTS)
def test_a_folded_network_has_the_same_outputs(name):
    model = build_calibrated(VARIANTS[name])
    before = model.get_weights()
    folded = folding.fold_model(model)
    assert not any(
        isinstance(layer, keras.layers.BatchNormalization) for layer in folded.layers
    )
    assert_same_outputs(model, folded)
    assert not folded.trainable_variables
    for weight, value in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, value)
    assert {id(v) for v in folded.variables}.isdisjoint(map(id, model.variables))


def test_frozen_parts_are_folded_and_the_others_shared():
    model = build_calibrated(TINY)
    frozen = folding.freeze_parts(model, ["backbone"])
    assert_same_outputs(model, frozen)
    # The layers that are not frozen are those of the model.
    trainable = [id(v) for v in model.trainable_variables]
    assert [id(v) for v in frozen.trainable_variables] == trainable
    paths = {v.path for v in model.trainable_variables}
    assert paths and not any(path.startswith("backbone") for path in paths)
    for layer in network.layers_of(model, "neck", "output"):
        layer.set_weights([w * 1.1 + 0.01 for w in layer.get_weights()])
    assert_same_outputs(model, frozen)


def test_folded_weights_are_updated():
    model = build_calibrated(TINY)
    frozen = folding.freeze_parts(model, ["backbone"])
    for layer in network.layers_of(model, "backbone"):
        layer.set_weights([w * 1.1 for w in layer.get_weights()])
    folding.update_folded(frozen, model)
    assert_same_outputs(model, frozen)


def test_a_folded_network_keeps_the_precision():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = network.build_model(TINY, 3, random=False)
    finally:
        keras.config.set_dtype_policy(policy)
    folded = folding.fold_model(model)
    precisions = {
        layer.name: layer.compute_dtype
        for layer in model.layers[1:]  # Without the input.
        if not isinstance(layer, keras.layers.BatchNormalization)
    }
    assert precisions["backbone_00_conv"] == "bfloat16"
    assert {x.name: x.compute_dtype for x in folded.layers[1:]} == precisions
