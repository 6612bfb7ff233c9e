"""Layers of the networks that Keras does not have, and the settings of BatchNorm."""

import keras
import numpy as np
from keras import ops

# Of darknet on the processor (blas.c) and of OpenCV's importer; darknet on CUDA has
# 1e-5, which moves the raw outputs of the official tiny weights by 2e-3. Keras' own
# 1e-3 changes a channel of variance 0.01 by 5 %, 72 layers one after the other.
BATCH_NORM_EPSILON = 1e-6


# darknet's on the processor. With Keras' 0.99 the averages lag hundreds of steps
# behind the weights: the built-in sample then ends at an AP50 of 0.80 in place of 1.00.
BATCH_NORM_MOMENTUM = 0.9


# The share of cells that hold an object at the first step of a training from scratch:
# without it the loss of the many empty cells drowns the rest (RetinaNet, 1708.02002).
OBJECT_PRIOR = 0.01


def build_batch_norm(name):
    options = {"momentum": BATCH_NORM_MOMENTUM, "epsilon": BATCH_NORM_EPSILON}
    options["name"] = name
    if keras.backend.backend() != "tensorflow":
        return keras.layers.BatchNormalization(**options)
    from yolov3_tf2.network.batch_norm import FusedBatchNormalization

    # Statistics of the whole batch, however many devices share it.
    return FusedBatchNormalization(synchronized=True, **options)


@keras.saving.register_keras_serializable("yolov3_tf2")
class SplitAnchors(keras.layers.Layer):
    """Splits the channels `anchors * depth` of a grid into two axes."""

    def __init__(self, num_anchors, **kwargs):
        super().__init__(**kwargs)
        self.num_anchors = num_anchors

    def call(self, inputs):
        _, rows, cols, channels = ops.shape(inputs)
        depth = channels // self.num_anchors
        return ops.reshape(inputs, (-1, rows, cols, self.num_anchors, depth))

    def compute_output_shape(self, input_shape):
        batch, rows, cols, channels = input_shape
        return (batch, rows, cols, self.num_anchors, channels // self.num_anchors)

    def get_config(self):
        return {**super().get_config(), "num_anchors": self.num_anchors}


class SharedLayer(keras.layers.Layer):
    """A layer of another model, under its name.

    Used itself, it would keep this model in memory as long as the other one.
    """

    def __init__(self, layer):
        super().__init__(name=layer.name, dtype=layer.dtype_policy)
        self.layer = layer
        self.built = True

    def call(self, inputs, training=None):
        if isinstance(self.layer, keras.layers.BatchNormalization):
            return self.layer(inputs, training=training)
        return self.layer(inputs)

    def compute_output_shape(self, input_shape):
        return self.layer.compute_output_shape(input_shape)


@keras.saving.register_keras_serializable("yolov3_tf2")
class ObjectPrior(keras.initializers.Initializer):
    """Biases `[anchors * depth]` with which each cell holds an object rarely."""

    def __init__(self, num_anchors):
        self.num_anchors = num_anchors

    def __call__(self, shape, dtype=None):
        bias = np.zeros((self.num_anchors, shape[0] // self.num_anchors))
        bias[:, 4] = -np.log((1 - OBJECT_PRIOR) / OBJECT_PRIOR)
        return ops.convert_to_tensor(bias.reshape(shape), dtype)

    def get_config(self):
        return {"num_anchors": self.num_anchors}
