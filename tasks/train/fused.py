"""Batch norm in one kernel while a network learns.

Keras 3 spells it out, a dozen operations forwards and back that each read and write all of a tensor.
TensorFlow has it in one each way, which saves an eighth to a third of the CPU time (docs/experiments.md).
"""

import random
from typing import Any

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


def with_fused_batch_norm(network, seed: int):
    """The same layers in the same order, with first weights and dropout that follow from `seed` alone.

    Keras takes the seeds of a layer from Python's `random`, from which every other thread draws, too.
    """
    draws = random.Random(seed)

    def fused(layer):
        is_norm = isinstance(layer, keras.layers.BatchNormalization)
        kind = BatchNormalization if is_norm else type(layer)
        return kind.from_config(_seeded(layer.get_config(), draws))

    return keras.models.clone_model(network, clone_function=fused, recursive=True)


def _seeded(config: Any, draws: random.Random) -> Any:
    """A layer's configuration, its initializers' in it, with a seed wherever there is none."""
    if not isinstance(config, dict):
        return config
    return {
        key: draws.randrange(2**31) if key == "seed" and value is None else _seeded(value, draws)
        for key, value in config.items()
    }
