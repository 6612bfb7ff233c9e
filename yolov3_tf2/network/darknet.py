"""Darknet `.weights` files: load one into a model, write one.

A file has a header (int32 major, minor, revision; then the number of images seen,
int64 since version 0.2, int32 before: `parser.c` of darknet) and float32 numbers,
little-endian: for each convolution with BatchNorm its beta, gamma, mean and variance,
for each one without its bias; then the kernel as [filters, channels, height, width].
"""

import numpy as np

from yolov3_tf2.errors import InputError
from yolov3_tf2.network import model as network
from yolov3_tf2.network.variants import VARIANTS


def load_weights(path, model, variant, num_classes):
    """Copies a darknet weights file into `model`, after checking all of it.

    Args:
        path: `pathlib.Path` of the file.
        model: the result of `build_model(variant, num_classes)`.
        variant: a `variants.Variant`.
        num_classes: number of classes of the file.

    Returns:
        The number of parameters copied.

    Raises:
        InputError: the file is not a darknet weights file, is too short or too long,
            belongs to another network or class count, or has numbers that no trained
            network has.
    """
    header_bytes, version = _read_header(path)
    expected = model.count_params()
    size = path.stat().st_size
    if size != header_bytes + 4 * expected:
        raise InputError(
            f"{path}: expected {expected:,} weights ({header_bytes + 4 * expected:,} "
            f"bytes) for {variant.name} with {num_classes} classes, got "
            f"{(size - header_bytes) / 4:,.10g} ({size:,} bytes); "
            + _likely_cause(size, header_bytes, expected)
        )
    _copy_weights(path, header_bytes, version, network.convolutions(model))
    return expected


def count_backbone_convolutions(path, model):
    """Returns how many convolutions a backbone file holds; None for another file.

    Such a file is what `darknet partial` writes: the first layers of a network, among
    them the whole backbone, as in `darknet53.conv.74`, and perhaps a part of the neck,
    as in `yolov3-tiny.conv.15`.

    Args:
        path: `pathlib.Path` of the file.
        model: the result of `build_model`, for any number of classes.

    Raises:
        InputError: the file is not a darknet weights file.
    """
    header_bytes, _ = _read_header(path)
    number = _partial_sizes(model).get((path.stat().st_size - header_bytes) / 4, 0)
    return number if number >= _count_backbone(model) else None


def load_backbone(path, model, num_convolutions):
    """Copies a backbone file into the first convolutions of `model`.

    Args:
        path: `pathlib.Path` of the file.
        model: the result of `build_model`.
        num_convolutions: see `count_backbone_convolutions`.

    Returns:
        The number of parameters copied.

    Raises:
        InputError: the file has numbers that no trained network has.
    """
    header_bytes, version = _read_header(path)
    convolutions = network.convolutions(model)[:num_convolutions]
    return _copy_weights(path, header_bytes, version, convolutions)


def write_weights(path, model, num_convolutions=None):
    """Writes `model` as a darknet weights file of version 0.2.0, 0 images seen.

    With `num_convolutions`, only that many of its first convolutions are written.
    """
    with path.open("wb") as file:
        np.array([0, 2, 0], "<i4").tofile(file)
        np.array([0], "<i8").tofile(file)
        for conv, bn in network.convolutions(model)[:num_convolutions]:
            kernel, *bias = conv.get_weights()
            if bn is not None:
                gamma, beta, mean, variance = bn.get_weights()
                bias = [beta, gamma, mean, variance]
            for array in [*bias, kernel.transpose(3, 2, 0, 1)]:
                array.astype("<f4").tofile(file)


def _read_header(path):
    """Returns the length of the header in bytes and the version, three integers."""
    with path.open("rb") as file:
        start = file.read(20)
    version = tuple(int.from_bytes(start[i : i + 4], "little") for i in (0, 4, 8))
    if len(start) < 20 or max(version) >= 1000:
        raise InputError(
            f"{path}: expected a darknet weights file, whose first 12 bytes are a "
            f"version, got {start[:12]!r} and {path.stat().st_size:,} bytes in all; "
            "did a download fail, or is it another kind of file?"
        )
    major, minor, _ = version
    return (20 if major * 10 + minor >= 2 else 16), version


def _likely_cause(size, header_bytes, expected):
    """Returns the end of an error message: what a file of an unexpected size may be."""
    count, rest = divmod(size - header_bytes, 4)
    if rest == 0:
        models = [network.build_model(v, 1, random=False) for v in VARIANTS.values()]
        for model in models:
            # Each class adds a filter, kernel and bias, to every anchor.
            weights_per_class = sum(
                conv.kernel.shape[2] * 3 + 3
                for conv, bn in network.convolutions(model)
                if bn is None
            )
            more_classes, remainder = divmod(
                count - model.count_params(), weights_per_class
            )
            if remainder == 0 and 0 <= more_classes < 10_000:
                return (
                    f"it has the size of {model.name} with {more_classes + 1} classes."
                )
        for model in models:
            if number := _partial_sizes(model).get(count):
                return (
                    f"it has the size of the first {number} convolutions of "
                    f"{model.name}, whose backbone has {_count_backbone(model)}."
                )
    if count < expected:
        return "was the file cut off, or does it belong to another network?"
    return "there are more weights than the network needs; is it another network's?"


def _partial_sizes(model):
    """Returns a dict from a number of weights to that of the first convolutions.

    Only of those before the first output layer: what follows depends on the classes.
    """
    sizes, total = {}, 0
    for number, (conv, bn) in enumerate(network.convolutions(model), start=1):
        if bn is None:
            break
        total += conv.count_params() + bn.count_params()
        sizes[total] = number
    return sizes


def _count_backbone(model):
    """Returns the number of convolutions of the backbone."""
    names = [conv.name for conv, _ in network.convolutions(model)]
    return sum(name.startswith("backbone") for name in names)


def _copy_weights(path, header_bytes, version, convolutions):
    """Copies a file into convolutions, after checking it; returns how many weights."""
    numbers = np.fromfile(path, "<f4", offset=header_bytes)
    weights_of_layers = _split_by_layer(numbers, convolutions)
    _check_numbers(path, version, weights_of_layers)
    for layer, weights in weights_of_layers:
        layer.set_weights(weights)
    return len(numbers)


def _split_by_layer(numbers, convolutions):
    """Cuts the numbers of a file into (layer, its weights in the order of Keras)."""
    weights_of_layers, start = [], 0

    def take(count):
        nonlocal start
        start += count
        return numbers[start - count : start]

    for conv, bn in convolutions:
        height, width, channels, filters = conv.kernel.shape
        if bn is None:
            biases = [take(filters)]
        else:
            beta, gamma, mean, variance = (take(filters) for _ in range(4))
            weights_of_layers.append((bn, [gamma, beta, mean, variance]))
            biases = []
        kernel = take(filters * channels * height * width)
        kernel = kernel.reshape(filters, channels, height, width)
        weights_of_layers.append((conv, [kernel.transpose(2, 3, 1, 0), *biases]))
    return weights_of_layers


def _check_numbers(path, version, weights_of_layers):
    """Raises an `InputError` where a number is not finite or a variance is negative."""
    for layer, weights in weights_of_layers:
        for weight in weights:
            if not np.isfinite(weight).all():
                raise InputError(
                    f"{path} (version {version}): expected finite numbers, got "
                    f"{np.count_nonzero(~np.isfinite(weight)):,} that are not finite "
                    f"in {layer.name}; is the file damaged, or did its training "
                    "diverge?"
                )
        if len(weights) == 4 and weights[3].min() < 0:
            raise InputError(
                f"{path} (version {version}): {layer.name} has a negative variance, "
                f"{weights[3].min():g}; is the file damaged, or does it belong to "
                "another network of the same size?"
            )
