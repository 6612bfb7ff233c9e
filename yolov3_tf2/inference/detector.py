"""Inference: pictures to boxes, scores and labels in the pixels of the originals."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from yolov3_tf2.boxes import geometry
from yolov3_tf2.boxes.letterbox import letterbox, letterbox_to_boxes, to_float
from yolov3_tf2.inference import nms


class Detections(NamedTuple):
    """What was found in one picture, the highest score first.

    Attributes:
        boxes_px: `[detections, 4]` xyxy in pixels of the original, inside it.
        scores: `[detections]` objectness times class probability, in [0, 1].
        labels: `[detections]` class indices.
    """

    boxes_px: np.ndarray
    scores: np.ndarray
    labels: np.ndarray


class NetworkInput(NamedTuple):
    """A picture as a `Detector` looks at it.

    Attributes:
        image: `[size, size, 3]` uint8 RGB tensor, letterboxed.
        picture_size: (width, height) of the original, pixels.
    """

    image: tf.Tensor
    picture_size: tuple[int, int]


class Detector:
    """Finds objects in pictures.

    `prepare` each picture, in any thread, and call it with those of a batch.
    """

    def __init__(self, model, variant, size, **thresholds):
        """Builds the graphs, so that no picture waits for them.

        Args:
            model: the result of `build_model`.
            variant: its `variants.Variant`.
            size: side of the network's input, pixels.
            **thresholds: see `select`.
        """

        def network(images):
            logits = model(to_float(images), training=False)
            return nms.suppress(logits, variant, **thresholds)

        self._size = size
        self._network = _graph(network, (None, size, size, 3))
        self._letterbox = _graph(lambda image: letterbox(image, size), (None, None, 3))

    def prepare(self, array):
        """Fits a picture, `[height, width, 3]` uint8 RGB of any size, onto the input.

        Returns:
            `Prepared`.
        """
        return NetworkInput(self._letterbox(tf.constant(array)), array.shape[1::-1])

    def __call__(self, prepared):
        """Returns a list of the `Detections` in a list of `Prepared`."""
        images = tf.stack([picture.image for picture in prepared])
        selected = [tensor.numpy() for tensor in self._network(images)]
        return [
            to_image_pixels(*(part[i] for part in selected), picture_size, self._size)
            for i, (_, picture_size) in enumerate(prepared)
        ]


def _graph(function, shape):
    """Builds the graph of a function of uint8 pixels of a shape."""
    # Autograph has nothing to convert here, and takes 0.3 s to find that out.
    function = tf.function(function, autograph=False)
    return function.get_concrete_function(tf.TensorSpec(shape, tf.uint8))


def to_image_pixels(boxes, scores, labels, number, picture_size, size):
    """Maps what `select` kept of one letterboxed picture back to its own pixels.

    Args:
        boxes, scores, labels, number: one row each of the results of `select`.
        picture_size: (width, height) of the picture, pixels.
        size: side of the network's input, pixels.

    Returns:
        `Detections`.
    """
    boxes_px = boxes_to_pixels(boxes[:number], picture_size, size)
    # A box may lie in the grey beside the picture, and has no area in it then.
    inside = (boxes_px[:, 2:] > boxes_px[:, :2]).all(axis=-1)
    return Detections(
        boxes_px[inside],
        scores[:number][inside],
        labels[:number][inside].astype("int32"),
    )


def boxes_to_pixels(boxes, picture_size, size):
    """Maps boxes from fractions of the input to pixels of the picture, clipped to it.

    Args:
        boxes: `[boxes, 4]` xyxy.
        picture_size: (width, height) of the picture, pixels.
        size: side of the network's input, pixels.

    Returns:
        `[boxes, 4]` float32 array.
    """
    return _boxes_to_pixels(boxes, picture_size, size).numpy()


# One graph: operation by operation it takes ten times as long.
@tf.function(
    input_signature=[
        tf.TensorSpec((None, 4)),
        tf.TensorSpec((2,), tf.int32),
        tf.TensorSpec((), tf.int32),
    ],
    autograph=False,
)
def _boxes_to_pixels(boxes, picture_size, size):
    width, height = tf.unstack(picture_size)
    boxes = letterbox_to_boxes(boxes, width, height, size)
    sides = tf.cast(tf.tile(picture_size, [2]), tf.float32)
    return geometry.clip(boxes * sides, width, height)
