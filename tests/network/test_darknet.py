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


# Sizes of the published files: what `darknet partial` keeps of the first 74 layers of
# darknet53.cfg, and of the first 15 of yolov3-tiny.cfg.
@pytest.mark.parametrize(
    "name, num_bytes, num_convolutions",
    [
        ("yolov3", 162_482_580, 52),
        ("yolov3-spp", 162_482_580, 52),
        ("yolov3-tiny", 30_973_396, 9),
        ("yolov3-tiny", 25_193_940, 7),  # yolov3-tiny.conv.13, the backbone alone.
    ],
)
def test_a_backbone_file_is_known_by_its_size(
    tmp_path, name, num_bytes, num_convolutions
):
    path = tmp_path / "some.conv"
    with path.open("wb") as file:
        file.write(np.array([0, 2, 0, 0, 0], "<i4").tobytes())
        file.truncate(num_bytes)  # A hole takes no room on the disk.
    model = network.build_model(VARIANTS[name], 2, random=False)
    found = darknet.count_backbone_convolutions(path, model)
    assert found == num_convolutions


def test_a_backbone_file_fills_the_layers_that_it_has(intact, tmp_path):
    _, model = intact
    path = tmp_path / "tiny.conv.15"
    darknet.write_weights(path, model, num_convolutions=9)
    loaded = network.build_model(TINY, 5, random=False)
    count = darknet.count_backbone_convolutions(path, loaded)
    assert count == 9
    assert darknet.load_backbone(path, loaded, count) == (30_973_396 - 20) // 4
    filled = {layer.name for pair in network.convolutions(model)[:9] for layer in pair}
    for layer in network.layers_of(loaded, *network.PARTS):
        for ours, theirs in zip(
            layer.variables, model.get_layer(layer.name).variables, strict=True
        ):
            if layer.name in filled:
                np.testing.assert_array_equal(ours, theirs)
            elif "kernel" in ours.path and "output" not in ours.path:
                assert not ours.numpy().any()


def test_a_whole_file_is_no_backbone(intact):
    assert darknet.count_backbone_convolutions(*intact) is None


@pytest.mark.parametrize(
    "num_convolutions, variant, message",
    [
        # yolov3-tiny.conv.11
        (6, "yolov3-tiny", "first 6 convolutions of yolov3-tiny, whose backbone has 7"),
        (9, "yolov3", "first 9 convolutions of yolov3-tiny, whose backbone has 7"),
    ],
)
def test_a_backbone_that_does_not_fit(
    intact, tmp_path, num_convolutions, variant, message
):
    path = tmp_path / "tiny.conv"
    darknet.write_weights(path, intact[1], num_convolutions)
    variant = VARIANTS[variant]
    model = network.build_model(variant, 80, random=False)
    assert darknet.count_backbone_convolutions(path, model) is None
    with pytest.raises(InputError, match=message):
        darknet.load_weights(path, model, variant, 80)
