"""BatchNorm in one operation, for TensorFlow."""

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("yolov3_tf2")
class FusedBatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization` over the channels of `[batch, h, w, channels]`.

    Keras' own is a chain of operations on float32 copies of its inputs: a quarter of
    a training step in bfloat16 on a processor. This one reads them as they are and
    computes in float32 all the same. Several replicas still share their statistics
    through Keras' chain.
    """

    def call(self, inputs, training=None, mask=None):
        learns = training and self.trainable
        if learns and tf.distribute.get_strategy().num_replicas_in_sync > 1:
            return super().call(inputs, training=training, mask=mask)
        nothing = tf.zeros(0)
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=tf.convert_to_tensor(self.gamma.value),
            offset=tf.convert_to_tensor(self.beta.value),
            mean=nothing if learns else tf.convert_to_tensor(self.moving_mean.value),
            variance=(
                nothing if learns else tf.convert_to_tensor(self.moving_variance.value)
            ),
            epsilon=self.epsilon,
            is_training=bool(learns),
        )
        if learns:
            # The operation divides by one less than there are, Keras by all.
            number = tf.cast(tf.reduce_prod(tf.shape(inputs)[:-1]), tf.float32)
            variance *= (number - 1) / number
            for moving, now in (
                (self.moving_mean, mean),
                (self.moving_variance, variance),
            ):
                moving.assign(moving * self.momentum + now * (1 - self.momentum))
        return outputs
