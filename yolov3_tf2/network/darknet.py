"""Darknet's `.weights` files: verify one, copy it into a model, write one.

A file is a header (int32 major, minor, revision; then the number of pictures seen,
int64 from version 0.2 on, int32 before: `parser.c` of darknet) and float32 numbers,
little-endian: for each convolution with BatchNorm its beta, gamma, mean and variance,
for one without its bias, then the kernel as [filters, channels, height, width].
"""

import numpy as np

from yolov3_tf2.errors import InputError
from yolov3_tf2.network import model as network
from yolov3_tf2.network.variants import VARIANTS


def load_weights(path, model, variant, num_classes):
    """Copies a darknet weights file into `model`, verified before the first number.

    Args:
        path: `pathlib.Path` of the file.
        model: the result of `build_model(variant, num_classes)`.
        variant: a `variants.Variant`.
        num_classes: number of classes of the file.

    Returns:
        The number of parameters copied.

    Raises:
        InputError: the file is no darknet weights file, too short, too long, of
            another network or class count, or holds numbers that no trained network
            has.
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
    numbers = np.fromfile(path, "<f4", offset=header_bytes)
    values = _split(numbers, model)
    _check_numbers(path, version, values)
    for layer, weights in values:
        layer.set_weights(weights)
    return expected


def write_weights(path, model):
    """Writes `model` as a darknet weights file of version 0.2.0, 0 pictures seen."""
    with path.open("wb") as file:
        np.array([0, 2, 0], "<i4").tofile(file)
        np.array([0], "<i8").tofile(file)
        for conv, bn in network.convolutions(model):
            kernel, *bias = conv.get_weights()
            if bn is not None:
                gamma, beta, mean, variance = bn.get_weights()
                bias = [beta, gamma, mean, variance]
            for array in [*bias, kernel.transpose(3, 2, 0, 1)]:
                array.astype("<f4").tofile(file)


def _read_header(path):
    with path.open("rb") as file:
        start = file.read(20)
    version = tuple(int.from_bytes(start[i : i + 4], "little") for i in (0, 4, 8))
    if len(start) < 20 or max(version) >= 1000:
        raise InputError(
            f"{path}: expected a darknet weights file, whose first 12 bytes are its "
            f"version, got {start[:12]!r} and {path.stat().st_size:,} bytes in all; "
            "a download that failed, or another kind of file?"
        )
    major, minor, _ = version
    return (20 if major * 10 + minor >= 2 else 16), version


def _likely_cause(size, header_bytes, expected):
    """Names the network that such a file would fit, or says what is wrong with it."""
    count, rest = divmod(size - header_bytes, 4)
    if rest == 0:
        for other in VARIANTS.values():
            model = network.build_model(other, 1)
            # Each class adds a filter, kernel and bias, to every anchor.
            a_class = sum(
                conv.kernel.shape[2] * 3 + 3
                for conv, bn in network.convolutions(model)
                if bn is None
            )
            classes, remainder = divmod(count - model.count_params(), a_class)
            if remainder == 0 and 0 <= classes < 10_000:
                return f"it has the size of {other.name} with {classes + 1} classes."
    if count < expected:
        return "the file is cut off, or the weights of another network."
    return "the file has more than the network needs: of another network?"


def _split(numbers, model):
    """Cuts the numbers of a file into (layer, its weights as Keras orders them)."""
    values, start = [], 0

    def take(count):
        nonlocal start
        start += count
        return numbers[start - count : start]

    for conv, bn in network.convolutions(model):
        height, width, channels, filters = conv.kernel.shape
        if bn is None:
            biases = [take(filters)]
        else:
            beta, gamma, mean, variance = (take(filters) for _ in range(4))
            values.append((bn, [gamma, beta, mean, variance]))
            biases = []
        kernel = take(filters * channels * height * width)
        kernel = kernel.reshape(filters, channels, height, width)
        values.append((conv, [kernel.transpose(2, 3, 1, 0), *biases]))
    return values


def _check_numbers(path, version, values):
    for layer, weights in values:
        for weight in weights:
            if not np.isfinite(weight).all():
                raise InputError(
                    f"{path} (version {version}): {layer.name} holds "
                    f"{np.count_nonzero(~np.isfinite(weight)):,} numbers that are not "
                    "finite; the file is damaged, or its training went wrong."
                )
        if len(weights) == 4 and weights[3].min() < 0:
            raise InputError(
                f"{path} (version {version}): {layer.name} has a negative variance, "
                f"{weights[3].min():g}; the file is damaged, or of another network "
                "of the same size."
            )
