"""YOLOv3, YOLOv3-SPP and YOLOv3-tiny as functional Keras models that return logits.

The layers are those of darknet's `yolov3.cfg`, `yolov3-spp.cfg` and `yolov3-tiny.cfg`;
the paper is https://arxiv.org/abs/1804.02767. Convolutions are built and numbered in
the order of darknet, which is the order of a `.weights` file.
"""

import itertools

import keras

from yolov3_tf2.network.layers import ObjectPrior, SplitAnchors, build_batch_norm

# Every layer with weights belongs to one of these.
PARTS = ("backbone", "neck", "output")


def build_model(variant, num_classes, *, random=True):
    """Builds the network of `variant`.

    Args:
        variant: a `variants.Variant`.
        num_classes: number of classes.
        random: whether the kernels are random numbers. Pass False where they are
            replaced anyway: zeros build yolov3 in 0.5 s instead of 2.2 s.

    Returns:
        A `keras.Model` from images `[batch, height, width, 3]`, RGB in [0, 1], sides
        a multiple of 32, to a list of logits
        `[batch, rows, cols, anchors, 5 + num_classes]`, coarse scale first, the last
        axis being tx, ty, tw, th, objectness and one logit per class. Layers are named
        `<part>_<number>_<kind>`: one of `PARTS`, and the number of the convolution in
        the order of darknet.
    """
    images = keras.Input((None, None, 3), name="images")
    net = _NetworkBuilder(num_classes, random)
    build = _tiny if variant.name == "yolov3-tiny" else _yolov3
    outputs = build(images, net, variant)
    return keras.Model(images, outputs, name=variant.name)


def convolutions(model):
    """Lists the convolutions of `model` in the order of a darknet weights file.

    Returns:
        Pairs of a Conv2D and its BatchNormalization, which is None for an output
        layer: its convolution has a bias instead.
    """
    by_name = {layer.name: layer for layer in model.layers}
    convs = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    convs.sort(key=lambda layer: int(layer.name.split("_")[1]))
    return [
        (conv, by_name.get(conv.name.removesuffix("_conv") + "_bn")) for conv in convs
    ]


def layers_of(model, *parts):
    """Lists the layers of `model` that have weights and belong to `parts`."""
    return [
        layer
        for layer in model.layers
        if layer.variables and layer.name.split("_")[0] in parts
    ]


class _NetworkBuilder:
    """Adds layers to a network and numbers its convolutions as they are built."""

    def __init__(self, num_classes, random):
        self.num_classes = num_classes
        self.random = random
        self.numbers = itertools.count()

    def conv(self, x, part, filters, size, stride=1):
        """Convolution, BatchNorm, leaky ReLU: the usual layer of darknet."""
        name = f"{part}_{next(self.numbers):02d}"
        padding = "same"
        if stride == 2:
            # Darknet pads every side by one; at even sizes the right and bottom columns
            # are never read. "same" in Keras would pad only those two, and so shift the
            # image by a pixel.
            x = keras.layers.ZeroPadding2D(((1, 0), (1, 0)), name=f"{name}_pad")(x)
            padding = "valid"
        x = keras.layers.Conv2D(
            filters,
            size,
            stride,
            padding,
            use_bias=False,
            kernel_initializer="he_normal" if self.random else "zeros",
            name=f"{name}_conv",
        )(x)
        x = build_batch_norm(f"{name}_bn")(x)
        return keras.layers.LeakyReLU(negative_slope=0.1, name=f"{name}_leaky")(x)

    def output(self, x, num_anchors):
        """The last convolution of a scale, and its logits split by anchor."""
        depth = 5 + self.num_classes
        name = f"output_{next(self.numbers):02d}"
        x = keras.layers.Conv2D(
            num_anchors * depth,
            1,
            kernel_initializer=(
                keras.initializers.RandomNormal(stddev=0.01) if self.random else "zeros"
            ),
            bias_initializer=ObjectPrior(num_anchors),
            # Half precision ends here: loss and decoding need float32.
            dtype="float32",
            name=f"{name}_conv",
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
        """Halves the channels, doubles the grid and appends the finer features."""
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
        # The last pool has stride 1 and pads on the right and at the bottom, in darknet
        # as in Keras.
        stride = 1 if filters == 512 else 2
        x = keras.layers.MaxPooling2D(2, stride, "same")(x)
    x = net.conv(x, "backbone", 1024, 3)
    x = net.neck(x, 256, (1,))
    coarse = net.output(net.neck(x, 256, (3,)), variant.num_anchors(0))
    x = net.upsample_onto(x, skip, 128)
    fine = net.output(net.neck(x, 128, (3,)), variant.num_anchors(1))
    return [coarse, fine]
