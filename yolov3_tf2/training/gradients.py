"""What happens to gradients before the optimizer: float16's loss scale, clipping."""

import tensorflow as tf


class LossScale:
    """Keeps float16 gradients from becoming zero (https://arxiv.org/abs/1710.03740).

    The loss is multiplied by a scale, which doubles after 2,000 steps without an
    overflow and halves after a step whose gradients overflow. The gradients of such a
    step are set to zero.
    """

    GROWTH_STEPS = 2000

    def __init__(self, start=2.0**15):
        self.scale = tf.Variable(start, trainable=False, name="loss_scale")
        self.good_steps = tf.Variable(0, trainable=False, name="good_steps")

    def update(self, is_finite):
        """Adapts the scale after a step; `is_finite`: its gradients are finite."""
        good_steps = tf.where(is_finite, self.good_steps + 1, 0)
        grows = good_steps >= self.GROWTH_STEPS
        factor = tf.where(is_finite, tf.where(grows, 2.0, 1.0), 0.5)
        self.scale.assign(tf.clip_by_value(self.scale * factor, 1.0, 2.0**24))
        self.good_steps.assign(tf.where(grows, 0, good_steps))


def clip_gradients(gradients, clip_norm, loss_scale=None):
    """Divides gradients by the loss scale and clips their global norm.

    Args:
        gradients: list of tensors.
        clip_norm: the largest norm.
        loss_scale: the `LossScale` of the loss; None without one.

    Returns:
        The gradients, all zero where a scaled gradient overflowed; and their norm
        before clipping.
    """
    scale = loss_scale.scale if loss_scale else 1.0
    norm = tf.linalg.global_norm(gradients) / scale
    factor = clip_norm / tf.maximum(norm, clip_norm) / scale
    if loss_scale:
        factor = tf.where(tf.math.is_finite(norm), factor, 0.0)
    # Multiplying all gradients takes as long as some layers.
    gradients = tf.cond(
        tf.equal(factor, 1.0),
        lambda: gradients,
        lambda: [tf.math.multiply_no_nan(g, factor) for g in gradients],
    )
    return gradients, norm
