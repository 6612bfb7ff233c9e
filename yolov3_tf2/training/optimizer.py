"""The optimizers, AdamW and SGD, with the schedule of their learning rate."""

import keras
import tensorflow as tf

from yolov3_tf2.errors import InputError

# Warm-up: a tenth of the steps, at most as many as darknet's burn-in (yolov3.cfg).
WARMUP_SHARE = 0.1
WARMUP_STEPS = 1000
# Where the cosine ends, as a fraction of the peak.
FINAL_SHARE = 0.01
# Weight decay applies to kernels, not to biases or BatchNorm.
NOT_DECAYED = ["gamma", "beta", "bias"]

# The version of Keras whose private names the classes below use.
KERAS_VERSION = "3.15"


def build_optimizer(kind, variables, peak, steps, weight_decay, name):
    """Builds an optimizer for `variables`.

    The learning rate rises over the first tenth of the steps, at most 1,000 of them,
    and then falls along a cosine to a hundredth of its peak.

    Args:
        kind: one of `OPTIMIZERS`: AdamW, or SGD with a Nesterov momentum of 0.9.
        variables: list of the `keras.Variable` to update.
        peak: the highest learning rate.
        steps: number of steps of the whole training run.
        weight_decay: the fraction of the kernels that a step subtracts, multiplied by
            the learning rate; 0 for none.
        name: of the optimizer and its variables.

    Raises:
        InputError: the installed version of Keras lacks what these optimizers need.
    """
    _check_kind(kind)
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
        options |= {"momentum": 0.9, "nesterov": True}
    optimizer = OPTIMIZERS[kind](**options)
    optimizer.exclude_from_weight_decay(var_names=NOT_DECAYED)
    optimizer.build(variables)
    return optimizer


def rate_factor(kind, replicas):
    """Returns the factor by which the learning rate grows with the number of replicas.

    A larger batch makes gradients less noisy. SGD takes steps longer by the same factor
    (1706.02677); Adam, which divides by the noise, by its square root (2205.10287).
    """
    _check_kind(kind)
    return replicas if kind == "sgd" else replicas**0.5


class _Summed:
    """An optimizer whose gradients are already summed over the replicas.

    The trainer clips the summed gradients, so it sums them itself. Keras has no public
    way to skip its own sum: a private method is overridden here. If Keras renamed it,
    gradients would be summed twice without an error, so `build` checks that it exists.
    """

    _hooks = ("_all_reduce_sum_gradients",)
    _hook_variables = ()

    def build(self, variables):
        for hook in self._hooks:
            _check_hook(super(), hook)
        super().build(variables)
        for hook in self._hook_variables:
            _check_hook(self, hook)

    def _all_reduce_sum_gradients(self, grads_and_vars):
        return grads_and_vars


class SGD(_Summed, keras.optimizers.SGD):
    """`keras.optimizers.SGD` for gradients that are already summed."""


class AdamW(_Summed, keras.optimizers.AdamW):
    """`keras.optimizers.AdamW` for gradients that are already summed.

    It uses TensorFlow's fused operation, which passes over a variable once; Keras uses
    a dozen operations. That needs the private names of Keras in `_hooks`.
    """

    _hooks = (
        *_Summed._hooks,
        "_apply_weight_decay",
        "_get_variable_index",
        "_use_weight_decay",
    )
    _hook_variables = ("_momentums", "_velocities")

    def _apply_weight_decay(self, variables):
        pass  # `update_step` does it.

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


OPTIMIZERS = {"adamw": AdamW, "sgd": SGD}


def _check_kind(kind):
    if kind not in OPTIMIZERS:
        raise ValueError(
            f"optimizer: expected one of {', '.join(OPTIMIZERS)}, got {kind!r}."
        )


def _check_hook(owner, hook):
    """Raises an `InputError` if the installed version of Keras lacks a private name."""
    if not hasattr(owner, hook):
        raise InputError(
            f"keras: expected version {KERAS_VERSION}, got {keras.__version__}, whose "
            f"optimizers lack {hook}, which training needs; install the version in "
            "requirements.txt."
        )
