"""The moving average of a network's weights, which is evaluated and saved."""

import tensorflow as tf


class MovingAverage:
    """Keeps a second network whose weights are the moving average of a first one's.

    Attributes:
        averaged: the second network; the first one itself where no average is kept.
    """

    def __init__(self, model, averaged, decay):
        """Changes nothing yet.

        Args:
            model: the network that is trained.
            averaged: another network of the same layers, or `model`.
            decay: the share of the average that a step keeps. In the first steps it
                is smaller, (1 + step) / (10 + step).
        """
        self.averaged = averaged
        self._model = model
        self._decay = decay

    def start(self):
        """Sets the average to the model's weights."""
        if self.averaged is not self._model:
            for average, variable in self._pairs():
                average.assign(variable)

    def update(self, step):
        """Moves the average towards the model's weights; `step` counts from 1."""
        if self.averaged is self._model:
            return
        decay = tf.minimum(self._decay, (1 + step) / (10 + step))
        # The average of a frozen layer is the layer itself.
        for average, variable in self._pairs(only_trainable=True):
            average.assign_sub((1 - decay) * (average - variable))

    def _pairs(self, only_trainable=False):
        """Returns pairs of the average of a variable and the variable."""
        layers = zip(self.averaged.layers, self._model.layers, strict=True)
        return [
            (average.value, variable.value)
            for averages, layer in layers
            if layer.trainable or not only_trainable
            for average, variable in zip(
                averages.variables, layer.variables, strict=True
            )
        ]
