"""Optimizers, the learning rate's schedule, and the precision of the arithmetic."""

import keras
import tensorflow as tf

OPTIMIZERS = ("adamw", "sgd")


# Warm-up: a tenth of the steps, and no more than darknet's burn-in (yolov3.cfg).
WARMUP_SHARE = 0.1


WARMUP_STEPS = 1000


# Where the cosine ends, as a share of the peak.
FINAL_SHARE = 0.01


# Neither biases nor the numbers of BatchNorm are drawn to zero.
NOT_DECAYED = ["gamma", "beta", "bias"]


def build_optimizer(kind, variables, peak, steps, weight_decay, name):
    """Builds an optimizer for `variables`.

    The learning rate rises over the first tenth of the steps, 1,000 at most, and
    falls as a cosine to a hundredth.

    Args:
        kind: one of `OPTIMIZERS`: AdamW, or SGD with a Nesterov momentum of 0.9.
        variables: list of the `keras.Variable` that it is to change.
        peak: the highest learning rate.
        steps: steps of the whole training.
        weight_decay: what a step takes off the kernels, as a share of the learning
            rate; 0 for none.
        name: of the optimizer and its variables.
    """
    warmup_steps = max(1, min(WARMUP_STEPS, int(steps * WARMUP_SHARE)))
    schedule = keras.optimizers.schedules.CosineDecay(
        peak / warmup_steps,
        max(1, steps - warmup_steps),
        alpha=FINAL_SHARE,
        warmup_target=peak,
        warmup_steps=warmup_steps,
    )
    options = {"learning_rate": schedule, "weight_decay": weight_decay, "name": name}
    if kind == "sgd":
        optimizer = SGD(momentum=0.9, nesterov=True, **options)
    else:
        optimizer = AdamW(**options)
    optimizer.exclude_from_weight_decay(var_names=NOT_DECAYED)
    optimizer.build(variables)
    return optimizer


def rate_factor(kind, replicas):
    """By how much the learning rate grows with the number of replicas.

    As many pictures more a step make a gradient less noisy: SGD takes as much longer
    steps (1706.02677), Adam, which divides by the noise, the square root (2205.10287).
    """
    return replicas if kind == "sgd" else replicas**0.5


class _Summed:
    """An optimizer whose gradients the caller has added up over the replicas."""

    def _all_reduce_sum_gradients(self, grads_and_vars):
        return grads_and_vars


class SGD(_Summed, keras.optimizers.SGD):
    """`keras.optimizers.SGD` of gradients that are summed already."""


class AdamW(_Summed, keras.optimizers.AdamW):
    """`keras.optimizers.AdamW` of gradients that are summed already.

    With the operation that passes over a variable once, where Keras has a dozen.
    """

    def _apply_weight_decay(self, variables):
        pass  # In `update_step`.

    def update_step(self, gradient, variable, learning_rate):
        index = self._get_variable_index(variable)
        if self._use_weight_decay(variable):
            variable.assign(variable * (1.0 - self.weight_decay * learning_rate))
        step = tf.cast(self.iterations.value + 1, tf.float32)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=tf.pow(self.beta_1, step),
            beta2_power=tf.pow(self.beta_2, step),
            lr=tf.cast(learning_rate, tf.float32),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=gradient,
            use_locking=True,
        )


class LossScale:
    """Keeps the gradients of float16 above zero (https://arxiv.org/abs/1710.03740).

    The loss is multiplied by a number that doubles after 2,000 good steps and halves
    when a gradient overflows; such a step has gradients of zero.
    """

    GROWTH_STEPS = 2000

    def __init__(self, start=2.0**15):
        self.scale = tf.Variable(start, trainable=False, name="loss_scale")
        self.good_steps = tf.Variable(0, trainable=False, name="good_steps")

    def update(self, is_finite):
        """Moves the scale after a step; `is_finite` tells of its gradients."""
        good_steps = tf.where(is_finite, self.good_steps + 1, 0)
        grows = good_steps >= self.GROWTH_STEPS
        factor = tf.where(is_finite, tf.where(grows, 2.0, 1.0), 0.5)
        self.scale.assign(tf.clip_by_value(self.scale * factor, 1.0, 2.0**24))
        self.good_steps.assign(tf.where(grows, 0, good_steps))
