"""YOLOv3, YOLOv3-SPP and YOLOv3-tiny as functional Keras models of raw logits.

The layer tables are darknet's `yolov3.cfg`, `yolov3-spp.cfg` and `yolov3-tiny.cfg`;
the paper is https://arxiv.org/abs/1804.02767. Convolutions are made in darknet's
order, which is the order of a `.weights` file, and numbered in it.
"""

import itertools

import keras

from yolov3_tf2.network.layers import (
    ObjectPrior,
    SharedLayer,
    SplitAnchors,
    build_batch_norm,
)

PARTS = ("backbone", "neck", "output")


def build_model(variant, num_classes, *, random=True, folded=(), shared=None):
    """Builds the network of `variant`.

    Args:
        variant: a `variants.Variant`.
        num_classes: number of classes.
        random: whether its kernels are random numbers. Zeros are made in less time,
            where they are to be replaced anyway.
        folded: those of `PARTS` that have no BatchNorm, but convolutions with a bias;
            see `fold`.
        shared: a model whose layers are used for all other parts.

    Returns:
        A `keras.Model` from images `[batch, height, width, 3]`, RGB in [0, 1], sides
        a multiple of 32, to a list of logits
        `[batch, rows, cols, anchors, 5 + num_classes]`, coarse scale first, the last
        axis being tx, ty, tw, th, objectness and one logit a class. A layer is named
        `<part>_<number>_<kind>`: part one of `PARTS`, number that of its convolution
        in darknet's order.
    """
    images = keras.Input((None, None, 3), name="images")
    net = _Layers(num_classes, random, folded, shared)
    build = _tiny if variant.name == "yolov3-tiny" else _yolov3
    outputs = build(images, net, variant)
    return keras.Model(images, outputs, name=variant.name)


def convolutions(model):
    """Lists the convolutions of `model` in the order of a darknet weights file.

    Returns:
        Pairs of a Conv2D and its BatchNormalization, None for an output layer, whose
        convolution has a bias instead.
    """
    by_name = {layer.name: layer for layer in model.layers}
    convs = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    convs.sort(key=lambda layer: int(layer.name.split("_")[1]))
    return [
        (conv, by_name.get(conv.name.removesuffix("_conv") + "_bn")) for conv in convs
    ]


def layers_of(model, *parts):
    """Lists the layers of `model` that have variables and belong to `parts`."""
    return [
        layer
        for layer in model.layers
        if layer.variables and layer.name.split("_")[0] in parts
    ]


class _Layers:
    """Makes layers and numbers the convolutions in the order in which they are made."""

    def __init__(self, num_classes, random, folded, shared):
        self.num_classes = num_classes
        self.random = random
        self.folded = folded
        self.shared = shared
        self.numbers = itertools.count()

    def make(self, kind, name, *arguments, **options):
        """A layer, or that of the model with which this one shares it."""
        if self.shared is not None and name.split("_")[0] not in self.folded:
            return SharedLayer(self.shared.get_layer(name))
        return kind(*arguments, name=name, **options)

    def conv(self, x, part, filters, size, stride=1):
        """Convolution, BatchNorm, leaky ReLU: darknet's usual layer."""
        name = f"{part}_{next(self.numbers):02d}"
        padding = "same"
        if stride == 2:
            # darknet pads all sides by one; at even sizes the right and bottom
            # columns are never read. Keras' "same" would pad only those two, and so
            # shift the picture by a pixel.
            x = keras.layers.ZeroPadding2D(((1, 0), (1, 0)), name=f"{name}_pad")(x)
            padding = "valid"
        is_folded = part in self.folded
        x = self.make(
            keras.layers.Conv2D,
            f"{name}_conv",
            filters,
            size,
            stride,
            padding,
            use_bias=is_folded,
            kernel_initializer="he_normal" if self.random else "zeros",
        )(x)
        if not is_folded:
            x = self.make(build_batch_norm, f"{name}_bn")(x)
        return keras.layers.LeakyReLU(negative_slope=0.1, name=f"{name}_leaky")(x)

    def output(self, x, num_anchors):
        """The last convolution of a scale, and its logits split by anchor."""
        depth = 5 + self.num_classes
        name = f"output_{next(self.numbers):02d}"
        x = self.make(
            keras.layers.Conv2D,
            f"{name}_conv",
            num_anchors * depth,
            1,
            kernel_initializer=(
                keras.initializers.RandomNormal(stddev=0.01) if self.random else "zeros"
            ),
            bias_initializer=ObjectPrior(num_anchors),
            # Half precision ends here: loss and decoding want float32.
            dtype="float32",
        )(x)
        return SplitAnchors(num_anchors, dtype="float32", name=f"{name}_split")(x)

    def residual(self, x, filters):
        """Darknet-53's block: 1x1 to half the channels, 3x3, added to its input."""
        shortcut = x
        x = self.conv(x, "backbone", filters // 2, 1)
        x = self.conv(x, "backbone", filters, 3)
        return keras.layers.Add()([shortcut, x])

    def neck(self, x, filters, sizes):
        """Convolutions of alternating `filters` (1x1) and twice as many (3x3)."""
        for size in sizes:
            x = self.conv(x, "neck", filters if size == 1 else 2 * filters, size)
        return x

    def upsample_onto(self, x, skip, filters):
        """Halves the channels, doubles the grid and joins the finer features."""
        x = self.conv(x, "neck", filters, 1)
        x = keras.layers.UpSampling2D(2, interpolation="nearest")(x)
        return keras.layers.Concatenate()([x, skip])


def _yolov3(images, net, variant):
    x = net.conv(images, "backbone", 32, 3)
    stages = []
    for filters, blocks in ((64, 1), (128, 2), (256, 8), (512, 8), (1024, 4)):
        x = net.conv(x, "backbone", filters, 3, stride=2)
        for _ in range(blocks):
            x = net.residual(x, filters)
        stages.append(x)
    outputs = []
    for scale, filters in enumerate((512, 256, 128)):
        if scale > 0:
            x = net.upsample_onto(x, stages[-1 - scale], filters)
        if scale == 0 and variant.name == "yolov3-spp":
            x = net.neck(x, filters, (1, 3, 1))
            pools = [
                keras.layers.MaxPooling2D(size, 1, "same")(x) for size in (13, 9, 5)
            ]
            x = keras.layers.Concatenate()([*pools, x])
            x = net.neck(x, filters, (1, 3, 1))
        else:
            x = net.neck(x, filters, (1, 3, 1, 3, 1))
        head = net.neck(x, filters, (3,))
        outputs.append(net.output(head, variant.num_anchors(scale)))
    return outputs


def _tiny(images, net, variant):
    x = images
    for filters in (16, 32, 64, 128, 256, 512):
        x = net.conv(x, "backbone", filters, 3)
        if filters == 256:
            skip = x
        # The last pool moves by one pixel and pads on the right and at the bottom,
        # in darknet as in Keras.
        stride = 1 if filters == 512 else 2
        x = keras.layers.MaxPooling2D(2, stride, "same")(x)
    x = net.conv(x, "backbone", 1024, 3)
    x = net.neck(x, 256, (1,))
    coarse = net.output(net.neck(x, 256, (3,)), variant.num_anchors(0))
    x = net.upsample_onto(x, skip, 128)
    fine = net.output(net.neck(x, 128, (3,)), variant.num_anchors(1))
    return [coarse, fine]
