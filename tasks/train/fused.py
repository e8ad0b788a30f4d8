"""Batch norm in one kernel while a network learns.

Keras 3 spells it out, a dozen operations forwards and back that each read and write all of a tensor.
TensorFlow has it in one each way, which saves an eighth to a third of the CPU time (docs/experiments.md).
"""

import keras
import tensorflow as tf


class BatchNormalization(keras.layers.BatchNormalization):
    """Keras' own layer with the same weights and values; feature maps (N, H, W, C) go the short way.

    Of the same name, by which files of weights know a layer.
    """

    def call(self, inputs, training=None, mask=None):
        if not (training and self.trainable and len(inputs.shape) == 4):
            return super().call(inputs, training=training, mask=mask)
        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            inputs, self.gamma, self.beta, epsilon=self.epsilon, is_training=True
        )
        # the kernel tells the variance of what the values were drawn from; Keras keeps that of the values
        count = tf.cast(tf.size(inputs) / tf.size(mean), variance.dtype)
        self._keep(self.moving_mean, mean)
        self._keep(self.moving_variance, variance * (count - 1) / count)
        return outputs

    def _keep(self, running, value) -> None:
        running.assign(running * self.momentum + value * (1 - self.momentum))


def with_fused_batch_norm(network):
    """The same layers in the same order, with weights of their own as random as before."""
    return keras.models.clone_model(network, clone_function=_fused, recursive=True)


def _fused(layer):
    is_norm = isinstance(layer, keras.layers.BatchNormalization)
    kind = BatchNormalization if is_norm else type(layer)
    return kind.from_config(layer.get_config())
