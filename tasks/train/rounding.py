"""Activations rounded while a network learns, so that it learns to bear what INT8 will do to them.

Quantization-aware training (Jacob et al., 2018, "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", section 3), of the activations: weights have a scale for each channel and
lose little. The rounding has no weights of its own and is left out of the network that is kept; the converter
calibrates that as any other.
"""

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("stress_vision")
class Rounded(keras.layers.Layer):
    """A tensor as INT8 keeps it: 256 steps between its least and its largest value in this batch.

    Zero is one of them. The gradient passes unchanged (straight-through).
    """

    def call(self, values):
        exact = tf.cast(values, tf.float32)
        low, high = tf.minimum(tf.reduce_min(exact), 0.0), tf.maximum(tf.reduce_max(exact), 1e-6)
        rounded = tf.quantization.fake_quant_with_min_max_vars(exact, low, high)
        return values + tf.cast(tf.stop_gradient(rounded - exact), values.dtype)


def with_rounding(network):
    """The same layers and weights in the same order, each tensor rounded that INT8 would store.

    Batch norm and what follows a convolution are fused into it, so a tensor before a ReLU is never stored.
    """
    layers = keras.layers
    before_relu = {
        id(node.input_tensors[0])
        for layer in network.layers
        if isinstance(layer, layers.ReLU)
        for node in layer._inbound_nodes
    }
    stored = (layers.BatchNormalization, layers.ReLU, layers.Activation, layers.Add, layers.Multiply)

    def call(layer, *arguments, **keywords):
        values = layer(*arguments, **keywords)
        if isinstance(layer, stored) and id(network.get_layer(layer.name).output) not in before_relu:
            return Rounded(name=f"{layer.name}_rounded")(values)
        return values

    return keras.models.clone_model(network, call_function=call)
