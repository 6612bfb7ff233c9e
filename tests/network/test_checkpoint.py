"""Checkpoints: by inverse, with the reader of TensorFlow, and wrong folders."""

import json
import shutil
import unicodedata

import numpy as np
import pytest
import tensorflow as tf

from yolov3_tf2.errors import InputError
from yolov3_tf2.network import checkpoint, folding
from yolov3_tf2.network import model as network
from yolov3_tf2.network.model_info import ModelInfo
from yolov3_tf2.network.variants import VARIANTS

TINY = VARIANTS["yolov3-tiny"]
NAMES = ["cat", "자동차"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A model with random weights: the folder that it was saved in, and the model."""
    model = network.build_model(TINY, len(NAMES))
    rng = np.random.default_rng(0)
    for variable in model.variables:
        variable.assign(rng.normal(size=variable.shape))
    folder = tmp_path_factory.mktemp("saved") / "model"
    checkpoint.save_model(folder, model, ModelInfo(TINY, NAMES, 320))
    return folder, model


@pytest.fixture
def copy(saved, tmp_path):
    """A copy of that folder, to be changed."""
    return shutil.copytree(saved[0], tmp_path / "model")


def test_load_inverts_save(saved):
    folder, model = saved
    loaded, info = checkpoint.load_model(folder)
    assert info == ModelInfo(TINY, NAMES, 320)
    for ours, theirs in zip(loaded.variables, model.variables, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert sorted(p.name for p in folder.iterdir()) == sorted(checkpoint.FILES)


def test_a_model_can_be_loaded_folded(copy):
    model, info = checkpoint.load_model(copy)
    for layer in model.layers:
        if layer.name.endswith("_bn"):  # A variance is never negative.
            layer.moving_variance.assign(abs(layer.moving_variance) + 0.1)
    checkpoint.save_weights(copy / checkpoint.NAME, model)
    expected = folding.fold_model(model)
    loaded, loaded_info = checkpoint.load_model(copy, folded=True)
    assert loaded_info == info
    assert len(loaded.variables) == 26  # Kernel and bias of 13 convolutions.
    for ours, theirs in zip(loaded.variables, expected.variables, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    path = copy / "model.json"
    values = json.loads(path.read_text()) | {"variant": "yolov3", "anchors": None}
    path.write_text(json.dumps(values))
    with pytest.raises(InputError, match="expected .* for yolov3, got"):
        checkpoint.load_model(copy, folded=True)


def test_a_backbone_alone_is_not_loaded_as_a_model(copy):
    values = json.loads((copy / "model.json").read_text())
    (copy / "model.json").write_text(json.dumps(values | {"parts": ["backbone"]}))
    message = f"{copy}: .* only the backbone of yolov3-tiny.* --transfer=darknet"
    with pytest.raises(InputError, match=message):
        checkpoint.load_model(copy)


def test_keys_are_layer_names(saved):
    reader = tf.train.load_checkpoint(str(saved[0] / "model.tf"))
    kernel = reader.get_tensor("backbone_00_conv/kernel/.ATTRIBUTES/VARIABLE_VALUE")
    np.testing.assert_array_equal(kernel, saved[1].variables[0])


@pytest.mark.parametrize("name", checkpoint.FILES)
def test_a_missing_file(copy, name):
    (copy / name).unlink()
    with pytest.raises(InputError, match=f"{name} missing"):
        checkpoint.load_model(copy)


@pytest.mark.parametrize("name", checkpoint.FILES)
def test_a_truncated_file(copy, name):
    data = (copy / name).read_bytes()
    (copy / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=name):
        checkpoint.load_model(copy)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"classes": ["one"]}, r"output_09_conv/kernel .* \(1, 1, 512, 18\) .* 21\)"),
        (
            {"variant": "yolov3", "anchors": None},
            "expected .* for yolov3, got .*another variant",
        ),
        ({"variant": "yolov9"}, "expected a variant of yolov3, .* got 'yolov9'"),
    ],
)
def test_json_that_does_not_match_the_checkpoint(copy, change, message):
    path = copy / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=message):
        checkpoint.load_model(copy)


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{}",
        "null",
        "{",
        '{"variant": "yolov3"}',
        '{"variant": ["yolov3"], "classes": ["a"], "size": 416}',
        '{"variant": "yolov3", "classes": 5, "size": 416}',
        '{"variant": "yolov3", "classes": ["a"], "size": "big"}',
        '{"variant": "yolov3", "classes": ["a"], "size": 96, "train_boxes": [1]}',
        '{"variant": "yolov3", "classes": ["a"], "size": 96, "train_boxes": {"b": 1}}',
        '{"variant": "yolov3", "classes": ["a"], "size": 96, "train_boxes": {"a": -1}}',
    ],
)
def test_json_of_another_program(copy, text):
    (copy / "model.json").write_text(text)
    with pytest.raises(InputError, match="expected JSON with variant, classes and"):
        checkpoint.load_model(copy)


def test_class_names_in_the_unicode_form_of_macos(copy):
    path = copy / "model.json"
    info = json.loads(path.read_text(encoding="utf-8"))
    info["classes"] = [unicodedata.normalize("NFD", name) for name in info["classes"]]
    info["train_boxes"] = dict.fromkeys(info["classes"], 3)
    path.write_text(json.dumps(info), encoding="utf-8")
    read = checkpoint.read_model_info(copy)
    assert read.class_names == NAMES and read.train_boxes == dict.fromkeys(NAMES, 3)


def test_parts_are_loaded_for_another_class_count(saved):
    folder, model = saved
    other = network.build_model(TINY, 5)
    before = {v.path: v.numpy() for v in other.variables}
    num_loaded = checkpoint.load_weights(folder, other, ["backbone", "neck"])
    theirs = {v.path: v.numpy() for v in model.variables}
    outputs = network.layers_of(other, "output")
    assert num_loaded == other.count_params() - sum(x.count_params() for x in outputs)
    for variable in other.variables:
        expected = before if variable.path.startswith("output") else theirs
        np.testing.assert_array_equal(variable, expected[variable.path])


def test_nothing_is_copied_when_a_layer_does_not_match(saved):
    other = network.build_model(TINY, 5)
    before = [v.numpy() for v in other.variables]
    with pytest.raises(InputError, match="output"):
        checkpoint.load_weights(saved[0], other, network.PARTS)
    for variable, value in zip(other.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)


def weights_by_anchor(layer, depth):
    """Returns kernel and bias of an output layer `[..., anchors, depth]`."""
    return [
        v.numpy().reshape(*v.shape[:-1], 3, depth) for v in (layer.kernel, layer.bias)
    ]


def test_outputs_are_transplanted_by_name(saved):
    folder, model = saved
    info = checkpoint.read_model_info(folder)
    # Decomposed, as macOS writes it.
    korean = unicodedata.normalize("NFD", "자동차")
    names = [korean, "bird", " C_at"]
    other = network.build_model(TINY, 3)
    num_copied, known_names = checkpoint.transplant_outputs(folder, other, info, names)
    assert known_names == [korean, " C_at"]
    pairs = zip(
        network.layers_of(model, "output"),
        network.layers_of(other, "output"),
        strict=True,
    )
    expected_copies = 0
    for old_layer, new_layer in pairs:
        for old, new in zip(
            weights_by_anchor(old_layer, 7),
            weights_by_anchor(new_layer, 8),
            strict=True,
        ):
            np.testing.assert_array_equal(new[..., :5], old[..., :5])
            np.testing.assert_array_equal(new[..., 5], old[..., 6])
            np.testing.assert_array_equal(new[..., 7], old[..., 5])
            mean = old[..., 5:].mean(axis=-1)
            np.testing.assert_allclose(new[..., 6], mean, rtol=1e-5, atol=1e-6)
            expected_copies += new[..., [0, 1, 2, 3, 4, 5, 7]].size
    assert num_copied == expected_copies


def test_a_transplant_to_the_same_classes_changes_nothing(saved):
    folder, model = saved
    other = network.build_model(TINY, len(NAMES))
    checkpoint.load_weights(folder, other, ["backbone", "neck"])
    info = checkpoint.read_model_info(folder)
    checkpoint.transplant_outputs(folder, other, info, NAMES)
    for ours, theirs in zip(other.variables, model.variables, strict=True):
        np.testing.assert_array_equal(ours, theirs)
