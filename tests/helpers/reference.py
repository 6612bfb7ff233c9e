"""The darknet importer of OpenCV, as a reference for the networks."""

import cv2
import darknet_cfg
import numpy as np

from yolov3_tf2.network.model import convolutions


class OpenCvDarknet:
    """A darknet network run by OpenCV.

    `options` are those of the functions in `darknet_cfg.CFGS`.
    """

    def __init__(self, name, size, num_classes, weights_path, **options):
        cfg = darknet_cfg.CFGS[name](size, num_classes, **options).encode()
        self.net = cv2.dnn.readNetFromDarknet(
            np.frombuffer(cfg, np.uint8), np.fromfile(weights_path, np.uint8)
        )
        names = self.net.getLayerNames()
        # The layer before each [yolo] puts the channels last: the raw outputs.
        self.yolo = [name for name in names if name.startswith("yolo")]
        self.raw = [names[names.index(name) - 1] for name in self.yolo]

    def outputs(self, images):
        """Raw outputs `[batch, rows, cols, channels]` of `images`, coarse first."""
        self.net.setInput(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
        return self.net.forward(self.raw)

    def boxes(self, images):
        """Per scale the boxes `[cells * anchors, 4]` of one image, coarse first.

        They are centre and size as fractions of the input; anchors last.
        """
        self.net.setInput(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
        return [found[:, :4] for found in self.net.forward(self.yolo)]


def flat(logits):
    """Returns logits with anchors and depth in one axis, as darknet has them."""
    return np.reshape(logits, (*np.shape(logits)[:3], -1))


def calibrate(model, images):
    """Sets the statistics of every BatchNorm of a model to those of `images`."""
    norms = [bn for _, bn in convolutions(model) if bn is not None]
    momentum = norms[0].momentum
    for bn in norms:
        bn.momentum = 0.0
    model(images, training=True)
    for bn in norms:
        bn.momentum = momentum
