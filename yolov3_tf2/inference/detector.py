"""A model with its preprocessing and suppression: RGB images in, detections out."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from yolov3_tf2.boxes.letterbox import CELL, letterbox, to_float
from yolov3_tf2.inference import nms


class Detections(NamedTuple):
    """The objects detected in one image, the highest score first.

    Attributes:
        boxes_px: `[detections, 4]` xyxy in pixels of the original image, inside it.
        scores: `[detections]` objectness times class probability, in [0, 1].
        labels: `[detections]` class indices.
        is_full: whether there are `max_boxes` of them, so that others may be missing.
    """

    boxes_px: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    is_full: bool = False

    def above(self, score_threshold):
        """Returns the detections with a score above a threshold.

        These are the ones that a detector with that threshold finds: suppression goes
        from the highest score down, so boxes with a lower score neither suppress them
        nor take their place among `max_boxes`.
        """
        # In float32, as TensorFlow compares them.
        is_above = self.scores > np.float32(score_threshold)
        return Detections(
            self.boxes_px[is_above],
            self.scores[is_above],
            self.labels[is_above],
            self.is_full and bool(is_above.all()),
        )


class NetworkInput(NamedTuple):
    """An image that is ready for a `Detector`.

    Attributes:
        letterboxed: `[size, size, 3]` uint8 RGB tensor.
        original_size: (width, height) of the original image, pixels.
    """

    letterboxed: tf.Tensor
    original_size: tuple[int, int]


class Detector:
    """Detects objects in images.

    Call `prepare` for each image, in any thread, and then the detector with a batch of
    the results.
    """

    def __init__(self, model, variant, size, **thresholds):
        """Builds the graphs, so that the first image is as fast as the others.

        Args:
            model: the result of `build_model`.
            variant: the `variants.Variant` of the model.
            size: width and height of the network's input, pixels.
            **thresholds: the keyword arguments of `nms.suppress`.
        """

        def network(images):
            logits = model(to_float(images), training=False)
            return nms.suppress(logits, variant, **thresholds)

        self._size = size
        self._network = _build_graph(network, (None, size, size, 3))
        self._letterbox = _build_graph(
            lambda image: letterbox(image, size), (None, None, 3)
        )

    def prepare(self, array):
        """Returns the `NetworkInput` of an image.

        Args:
            array: `[height, width, 3]` uint8 RGB, of any height and width.
        """
        return NetworkInput(self._letterbox(tf.constant(array)), array.shape[1::-1])

    def __call__(self, prepared):
        """Returns a list with the `Detections` of each `NetworkInput` of a list."""
        images = tf.stack([each.letterboxed for each in prepared])
        suppressed = [tensor.numpy() for tensor in self._network(images)]
        return [
            to_detections(
                *(part[i] for part in suppressed), each.original_size, self._size
            )
            for i, each in enumerate(prepared)
        ]


def _build_graph(function, shape):
    """Returns the graph of a function of a uint8 tensor of a shape."""
    # Autograph would find nothing to convert, and takes 0.3 s for that.
    function = tf.function(function, autograph=False)
    return function.get_concrete_function(tf.TensorSpec(shape, tf.uint8))


def to_detections(boxes, scores, labels, number, original_size, size):
    """Returns the `Detections` of one image in pixels of the original.

    Args:
        boxes, scores, labels, number: the results of `nms.suppress` for the image.
        original_size: (width, height) of the original image, pixels.
        size: width and height of the network's input, pixels.
    """
    boxes_px = boxes_to_pixels(boxes[:number], original_size, size)
    # A box in the grey border beside the image has no area after clipping.
    has_area = (boxes_px[:, 2:] > boxes_px[:, :2]).all(axis=-1)
    return Detections(
        boxes_px[has_area],
        scores[:number][has_area],
        labels[:number][has_area].astype("int32"),
        int(number) == len(boxes),
    )


def boxes_to_pixels(boxes, original_size, size):
    """Maps boxes from fractions of the network's input to pixels of the original image.

    The inverse of `letterbox.boxes_to_letterbox` for boxes in pixels. This runs for
    every image, and numpy takes a twentieth of the time of TensorFlow for it. So it
    computes where the image lies by itself, as `letterbox.fit_image` does with tensors.

    Args:
        boxes: `[boxes, 4]` float32 xyxy.
        original_size: (width, height) of the original image, pixels.
        size: width and height of the network's input, pixels.

    Returns:
        `[boxes, 4]` float32 array, clipped to the image.
    """
    original_size = np.array(original_size, "int64")
    inner = np.maximum(original_size * size // original_size.max(), 1)
    corner = (size - inner) // 2 // CELL * CELL
    # [4], x then y, twice. The order of the float32 operations decides the last digit.
    scale = np.tile(inner, 2).astype("float32") / np.float32(size)
    offset = np.tile(corner, 2).astype("float32") / np.float32(size)
    limits = np.tile(original_size, 2).astype("float32")
    return np.clip((boxes - offset) / scale * limits, 0, limits)
