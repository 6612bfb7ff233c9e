"""Darknet weights files: by inverse, and wrong files."""

import keras
import numpy as np
import pytest

from yolov3_tf2.errors import InputError
from yolov3_tf2.network import darknet
from yolov3_tf2.network import model as network
from yolov3_tf2.network.variants import VARIANTS

TINY = VARIANTS["yolov3-tiny"]
NUM_CLASSES = 2


@pytest.fixture(scope="module")
def intact(tmp_path_factory):
    """A weights file of random numbers, and the model that was written to it."""
    keras.utils.set_random_seed(3)
    model = network.build_model(TINY, NUM_CLASSES)
    rng = np.random.default_rng(0)
    for variable in model.variables:
        variable.assign(rng.uniform(0.1, 1, variable.shape))
    path = tmp_path_factory.mktemp("weights") / "tiny.weights"
    darknet.write_weights(path, model)
    return path, model


def load_or_refuse(path, variant=TINY, num_classes=NUM_CLASSES):
    model = network.build_model(variant, num_classes)
    before = [v.numpy() for v in model.variables]
    try:
        darknet.load_weights(path, model, variant, num_classes)
    except InputError:
        # Nothing is copied from a file that is refused.
        for variable, value in zip(model.variables, before, strict=True):
            np.testing.assert_array_equal(variable, value)
        raise
    return model


def test_load_inverts_write(intact):
    path, model = intact
    for ours, theirs in zip(
        load_or_refuse(path).variables, model.variables, strict=True
    ):
        assert ours.path == theirs.path
        np.testing.assert_array_equal(ours, theirs)


def test_old_header_with_32_bit_count(intact, tmp_path):
    path, model = intact
    old = np.array([0, 1, 0, 5], "<i4").tobytes() + path.read_bytes()[20:]
    (tmp_path / "old.weights").write_bytes(old)
    loaded = load_or_refuse(tmp_path / "old.weights")
    np.testing.assert_array_equal(loaded.variables[0], model.variables[0])


def write_changed(path, tmp_path, change):
    changed = tmp_path / "changed.weights"
    changed.write_bytes(change(path.read_bytes()))
    return changed


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda b: b[:-400], "expected 8,678,554 weights .* got 8,678,454 .*cut off"),
        (lambda b: b[:-3], "got 8,678,553.25 .*cut off"),
        (
            lambda b: b + b"\0" * 8,
            "got 8,678,556 .*more weights than the network needs",
        ),
        (lambda b: b[:11], "expected a darknet weights file"),
        (lambda b: b"", "expected a darknet weights file.*0 bytes"),
        (lambda b: b"<!DOCTYPE html>" + b" " * 99, "got b'<!DOCTYPE ht'"),
    ],
    ids=["truncated", "odd", "overlong", "tiny", "empty", "html"],
)
def test_a_wrong_file_is_refused(intact, tmp_path, change, message):
    path = write_changed(intact[0], tmp_path, change)
    with pytest.raises(InputError, match=message) as error:
        load_or_refuse(path)
    assert str(path) in str(error.value)


def test_another_network_is_named(intact):
    with pytest.raises(InputError, match="has the size of yolov3-tiny with 2 classes"):
        load_or_refuse(intact[0], VARIANTS["yolov3"], 80)


def test_another_class_count_is_named(intact):
    with pytest.raises(InputError, match="has the size of yolov3-tiny with 2 classes"):
        load_or_refuse(intact[0], TINY, 80)


def test_numbers_that_are_not_finite(intact, tmp_path):
    def change(data):
        numbers = np.frombuffer(data[20:], "<f4").copy()
        numbers[1000] = np.nan
        return data[:20] + numbers.tobytes()

    with pytest.raises(InputError, match="got 1 that are not finite in "):
        load_or_refuse(write_changed(intact[0], tmp_path, change))


def test_negative_variance(intact, tmp_path):
    def change(data):
        numbers = np.frombuffer(data[20:], "<f4").copy()
        numbers[3 * 16] = -1  # After beta, gamma and mean of the first 16 filters.
        return data[:20] + numbers.tobytes()

    with pytest.raises(InputError, match="backbone_00_bn has a negative variance, -1"):
        load_or_refuse(write_changed(intact[0], tmp_path, change))
