"""The layers of a network as darknet numbers them, and a cfg compared with them.

They are read from the network that `build_model` builds, so there is no second
description of it.
"""

import dataclasses
import functools

import keras

from yolov3_tf2.errors import InputError
from yolov3_tf2.network import darknet_cfg
from yolov3_tf2.network import model as network
from yolov3_tf2.network.darknet_cfg import OPTIONS, Layer, describe_layer
from yolov3_tf2.network.layers import SplitAnchors
from yolov3_tf2.network.variants import VARIANTS


def match_cfg(path, cfg, variant):
    """Returns `variant` with the anchors of a cfg, after comparing all layers.

    Args:
        path: of the cfg, for the error.
        cfg: a `darknet_cfg.Cfg`.
        variant: the `variants.Variant` that it should be.

    Raises:
        InputError: a layer differs. It names the first one; or the variant whose layers
            they are.
    """
    if find_difference(cfg, variant) is None:
        return dataclasses.replace(variant, anchors=cfg.anchors)
    differences = {other: find_difference(cfg, other) for other in VARIANTS.values()}
    for other, difference in differences.items():
        if difference is None:
            raise InputError(
                f"{path}: expected the layers of {variant.name}, got those of "
                f"{other.name}; use --model={other.name}."
            )
    # Of the network that it resembles for longest, the given one at a tie.
    nearest = max(differences, key=lambda v: (differences[v][0], v == variant))
    index, expected, got = differences[nearest]
    where = f"layer {index}"
    if index < len(cfg.lines):
        where += f" (line {cfg.lines[index]})"
    raise InputError(
        f"{path}: {where} differs from {nearest.name}: expected {expected}, got {got}; "
        f"only the networks {', '.join(VARIANTS)} can be converted."
    )


def find_difference(cfg, variant):
    """Finds the first layer of a cfg that a variant has not.

    Returns:
        None without a difference; else the layer's index from 0, and the expected and
        the found layer in words.
    """
    expected = _expected_layers(variant.name, cfg.num_classes)
    for index in range(max(len(expected), len(cfg.layers))):
        pair = [
            layers[index] if index < len(layers) else None
            for layers in (expected, cfg.layers)
        ]
        if pair[0] != pair[1]:
            return index, *_describe_pair(*pair)
    return None


@functools.cache
def _expected_layers(variant_name, num_classes):
    variant = VARIANTS[variant_name]
    return list_layers(network.build_model(variant, num_classes, random=False))


def list_layers(model):
    """Lists the layers of a network in the order of darknet, which has no [net].

    Args:
        model: the result of `build_model`.

    Returns:
        A list of `darknet_cfg.Layer`.
    """
    lister = _Lister(model)
    for tensor in model.outputs:
        lister.visit(tensor)
    return lister.layers


def write_cfg(path, model, variant, size):
    """Writes the cfg of a network, as far as it is needed to read its weights."""
    anchors = [f"{w},{h}" for scale in variant.anchors for w, h in scale]
    lines = ["[net]", f"width={size}", f"height={size}", "channels=3"]
    for layer in list_layers(model):
        options = dict(layer.options)
        if layer.kind == "yolo":
            start = sum("[yolo]" in line for line in lines) * darknet_cfg.NUM_MASKS
            mask = range(start, start + options.pop("masks"))
            options["mask"] = ",".join(map(str, mask))
            options |= {"anchors": ",".join(anchors), "num": len(anchors)}
        head, *texts = describe_layer(Layer(layer.kind, options)).split(" ")
        lines += ["", head, *texts]
    path.write_text("\n".join(lines) + "\n")


def _describe_pair(expected, got):
    """Describes two layers, by the options that differ if they are of one kind."""
    if not expected or not got or expected.kind != got.kind:
        return [
            describe_layer(each) if each else "no layer" for each in (expected, got)
        ]
    differs = [k for k, v in expected.options.items() if got.options[k] != v]
    return [
        describe_layer(Layer(each.kind, {key: each.options[key] for key in differs}))
        for each in (expected, got)
    ]


class _Lister:
    """Follows the layers of Keras from the outputs of a network to its input.

    Darknet has one layer for a convolution with its BatchNorm and activation, and
    needs a [route] wherever a layer does not read the one before it.
    """

    def __init__(self, model):
        self.makers = {id(layer.output): layer for layer in model.layers}
        self.layers = []
        # The darknet layer that a tensor is the output of. The image comes before all.
        self.indices = {id(model.inputs[0]): -1}

    def visit(self, tensor):
        """Lists the layers that a tensor is computed from, in darknet's order."""
        if id(tensor) in self.indices:
            return
        maker = self.makers[id(tensor)]
        if isinstance(maker, keras.layers.Concatenate):
            # Its first input is the layer before it, so it is listed last.
            for each in reversed(maker.input):
                self.visit(each)
            self.add("route", layers=tuple(self.indices[id(x)] for x in maker.input))
        elif isinstance(maker, keras.layers.Add):
            for each in maker.input:
                self.visit(each)
            self.add("shortcut", **{"from": (self.indices[id(maker.input[0])],)})
        elif isinstance(maker, keras.layers.MaxPooling2D):
            self.follow(maker.input)
            size, stride = maker.pool_size[0], maker.strides[0]
            self.add("maxpool", size=size, stride=stride, padding=size - 1)
        elif isinstance(maker, keras.layers.UpSampling2D):
            self.follow(maker.input)
            self.add("upsample", stride=maker.size[0])
        elif isinstance(maker, SplitAnchors):
            self.follow(maker.input)
            self.add("yolo", masks=maker.num_anchors, classes=tensor.shape[-1] - 5)
        else:
            self.visit_convolution(maker)
        self.indices[id(tensor)] = len(self.layers) - 1

    def visit_convolution(self, maker):
        """Lists a convolution, whose last layer of Keras is `maker`."""
        options = {"batch_normalize": 0, "activation": "linear"}
        while not isinstance(maker, keras.layers.Conv2D):
            if isinstance(maker, keras.layers.LeakyReLU):
                options["activation"] = "leaky"
            else:
                options["batch_normalize"] = 1
            maker = self.makers[id(maker.input)]
        source = maker.input
        if isinstance(self.makers[id(source)], keras.layers.ZeroPadding2D):
            source = self.makers[id(source)].input
        self.follow(source)
        size = maker.kernel_size[0]
        options |= {"filters": maker.filters, "size": size, "stride": maker.strides[0]}
        self.add("convolutional", **options, padding=size // 2)

    def follow(self, tensor):
        """Makes the layer that computes `tensor` the one before the next."""
        self.visit(tensor)
        index = self.indices[id(tensor)]
        if index != len(self.layers) - 1:
            self.add("route", layers=(index,))

    def add(self, kind, **options):
        defaults = dict(OPTIONS[kind])
        for key in ("num", "mask", "anchors") if kind == "yolo" else ():
            del defaults[key]
        self.layers.append(Layer(kind, defaults | options))
