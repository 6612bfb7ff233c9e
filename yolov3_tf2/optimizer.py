"""Optimizers, the learning rate's schedule, and the precision of the arithmetic."""

from pathlib import Path

import keras
import tensorflow as tf

OPTIMIZERS = ("adamw", "sgd")
PRECISIONS = ("auto", "float32", "bfloat16", "float16")

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
        optimizer = keras.optimizers.SGD(momentum=0.9, nesterov=True, **options)
    else:
        optimizer = keras.optimizers.AdamW(**options)
    optimizer.exclude_from_weight_decay(var_names=NOT_DECAYED)
    optimizer.build(variables)
    return optimizer


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


def choose_precision(name):
    """Returns the precision that `auto` stands for on this machine, or `name` itself.

    float16 on GPUs with tensor cores, bfloat16 on processors that multiply it
    (AVX512-BF16 or AMX), float32 elsewhere.
    """
    if name != "auto":
        return name
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
        volta = (7, 0)  # The first with tensor cores.
        has_cores = all(d.get("compute_capability", (0, 0)) >= volta for d in details)
        return "float16" if has_cores else "float32"
    return "bfloat16" if _multiplies_bfloat16() else "float32"


def set_precision(name):
    """Makes models built from now on compute in `name`; variables stay float32."""
    keras.config.set_dtype_policy(name if name == "float32" else f"mixed_{name}")


def _multiplies_bfloat16():
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.is_file():
        return False
    flags = set(cpuinfo.read_text().split())
    return bool(flags & {"avx512_bf16", "amx_bf16"})
