"""The networks: against darknet in OpenCV, parameter counts, names."""

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf

from yolov3_tf2.boxes.letterbox import letterbox, to_float
from yolov3_tf2.network import darknet
from yolov3_tf2.network import model as network
from yolov3_tf2.network.batch_norm import FusedBatchNormalization
from yolov3_tf2.network.layers import OBJECT_PRIOR
from yolov3_tf2.network.variants import VARIANTS

NAMES = list(VARIANTS)


@pytest.mark.parametrize(
    "name, count",
    # (Size of the official file - 20 bytes of header) / 4.
    [("yolov3", 62_001_757), ("yolov3-spp", 63_052_381), ("yolov3-tiny", 8_858_734)],
)
def test_parameter_counts_are_those_of_the_official_files(name, count):
    model = network.build_model(VARIANTS[name], 80)
    assert model.count_params() == count


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_raw_outputs_equal_opencv_with_random_weights(name, tmp_path):
    keras.utils.set_random_seed(1)
    images = np.random.default_rng(0).random((2, 160, 160, 3), "float32")
    model = network.build_model(VARIANTS[name], 80)
    reference.calibrate(model, images)
    darknet.write_weights(tmp_path / "random.weights", model)
    opencv = reference.OpenCvDarknet(name, 160, 80, tmp_path / "random.weights")
    expected = opencv.outputs(images[:1])
    outputs = [reference.flat(x) for x in model(images[:1], training=False)]
    largest = max(np.abs(x).max() for x in expected)
    assert largest > 1  # Outputs near zero would agree whatever the network.
    for ours, theirs in zip(outputs, expected, strict=True):
        assert ours.shape == theirs.shape
        assert np.abs(ours - theirs).max() <= 1e-3 * largest


@pytest.mark.slow
def test_raw_outputs_equal_opencv_with_official_weights(tiny_weights, shared):
    import zipfile

    variant = VARIANTS["yolov3-tiny"]
    model = network.build_model(variant, 80)
    darknet.load_weights(tiny_weights, model, variant, 80)
    opencv = reference.OpenCvDarknet("yolov3-tiny", 416, 80, tiny_weights)
    predict = tf.function(lambda images: model(images, training=False))
    with zipfile.ZipFile(shared / "data/coco-mini/images.zip") as archive:
        for name in archive.namelist()[:20]:
            image = tf.io.decode_jpeg(archive.read(name), channels=3)
            images = to_float(letterbox(image, 416)).numpy()[None]
            outputs = [reference.flat(x) for x in predict(images)]
            for ours, theirs in zip(outputs, opencv.outputs(images), strict=True):
                np.testing.assert_allclose(ours, theirs, atol=2e-3)


@pytest.mark.parametrize("name", NAMES)
def test_output_shapes_for_any_size(name):
    variant = VARIANTS[name]
    model = network.build_model(variant, 2)
    outputs = model(np.zeros((1, 64, 96, 3), "float32"))
    for output, stride in zip(outputs, variant.strides, strict=True):
        assert tuple(output.shape) == (1, 64 // stride, 96 // stride, 3, 7)


@pytest.mark.parametrize("name", NAMES)
def test_layers_with_variables_belong_to_a_part(name):
    model = network.build_model(VARIANTS[name], 3)
    named = network.layers_of(model, *network.PARTS)
    assert sum(w.shape.num_elements() for x in named for w in x.variables) == (
        model.count_params()
    )
    outputs = network.layers_of(model, "output")
    assert len(outputs) == len(VARIANTS[name].strides)


def test_a_new_network_expects_few_objects():
    model = network.build_model(VARIANTS["yolov3-tiny"], 3)
    logits = model(np.random.default_rng(0).random((1, 64, 64, 3), "float32"))
    objectness = keras.ops.sigmoid(logits[0][..., 4])
    np.testing.assert_allclose(objectness, OBJECT_PRIOR, atol=0.02)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_batch_norm_equals_that_of_keras(training, dtype):
    chance = np.random.default_rng(0)
    images = chance.normal(3, 2, (2, 5, 7, 4)).astype("float32")
    weights = [chance.uniform(0.5, 2, 4) for _ in range(4)]
    results = []
    for kind in (FusedBatchNormalization, keras.layers.BatchNormalization):
        layer = kind(momentum=0.9, epsilon=1e-6, dtype=dtype)
        layer.build(images.shape)
        layer.set_weights(weights)
        inputs = tf.cast(images, layer.compute_dtype)
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = layer(inputs, training=training)
            loss = tf.reduce_sum(tf.cast(outputs, tf.float32) ** 3)
        gradients = tape.gradient(loss, [inputs, *layer.trainable_variables])
        results.append([outputs, *gradients, *layer.get_weights()])
    tolerance = 1e-4 if dtype == "float32" else 0.03
    for ours, theirs in zip(*results, strict=True):
        assert ours.dtype == theirs.dtype
        ours, theirs = (np.asarray(tf.cast(x, tf.float32)) for x in (ours, theirs))
        np.testing.assert_allclose(ours, theirs, atol=tolerance * np.abs(theirs).max())
    if training:
        assert (results[0][-1] != weights[-1]).all()


def test_a_network_can_be_saved_and_loaded_by_keras(tmp_path):
    model = network.build_model(VARIANTS["yolov3-tiny"], 3)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    images = np.random.default_rng(0).random((1, 64, 64, 3), "float32")
    for ours, theirs in zip(again(images), model(images), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_frozen_batch_norm_keeps_its_statistics():
    model = network.build_model(VARIANTS["yolov3-tiny"], 3)
    backbone = network.layers_of(model, "backbone")
    for layer in backbone:
        layer.trainable = False
    before = [w.numpy() for layer in backbone for w in layer.variables]
    model(np.random.default_rng(0).random((2, 64, 64, 3), "float32"), training=True)
    after = [w.numpy() for layer in backbone for w in layer.variables]
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)
