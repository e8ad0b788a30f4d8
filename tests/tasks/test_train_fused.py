"""The short way of batch norm says what Keras' long one says, and stays inside training."""

import os
import platform
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from tasks.train import ModelConfig
from tasks.train.fused import BatchNormalization
from tasks.train.networks import build_network

V3 = ModelConfig(architecture="mobilenet_v3_small", input_px=32, weights="none")
IMAGES = (6, 5, 7, 4)


def _norms(network) -> list:
    layers = network._flatten_layers(include_self=False)
    return [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]


def _learnt(kind, values, *, dtype: str = "float32", trainable: bool = True):
    """Of a step of training: the output, the gradients, the statistics kept."""
    layer = kind(momentum=0.9, epsilon=1e-2, dtype=dtype, trainable=trainable)
    layer.build(values.shape)
    layer.set_weights([np.float32(np.arange(4) + start) for start in (1, -2, 3, 5)])
    with tf.GradientTape() as tape:
        tape.watch(values)
        output = layer(values, training=True)
        weights = tf.constant(np.random.default_rng(1).normal(size=values.shape), output.dtype)
        weighted = tf.reduce_sum(output * weights)
    gradients = tape.gradient(weighted, [values, layer.gamma, layer.beta])
    return [
        keras.ops.convert_to_numpy(one).astype(np.float32)
        for one in (output, *gradients, *layer.get_weights()[2:])
    ]


@pytest.mark.parametrize("trainable", [True, False])
def test_outputs_gradients_and_statistics_are_those_of_keras(trainable):
    values = tf.constant(np.random.default_rng(0).normal(3, 2, IMAGES).astype(np.float32))
    both = (_learnt(kind, values, trainable=trainable) for kind in (
        BatchNormalization, keras.layers.BatchNormalization
    ))  # fmt: skip
    for ours, theirs in zip(*both, strict=True):
        assert np.abs(theirs).max() > 0.1
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("training", [True, False])
def test_one_kernel_does_it_while_a_network_learns_and_only_then(dtype, training):
    layer = BatchNormalization(dtype=dtype)
    images = tf.TensorSpec(IMAGES, layer.compute_dtype)
    graph = tf.function(lambda x: layer(x, training=training)).get_concrete_function(images).graph
    assert ("FusedBatchNormV3" in {one.type for one in graph.get_operations()}) == training


def test_in_bfloat16_the_statistics_are_float32():
    values = np.random.default_rng(0).normal(3, 2, IMAGES)
    short = _learnt(BatchNormalization, tf.constant(values, "bfloat16"), dtype="mixed_bfloat16")
    exact = _learnt(BatchNormalization, tf.constant(values, "float32"))
    np.testing.assert_allclose(short[0], exact[0], atol=0.05)
    np.testing.assert_allclose(short[4:], exact[4:], rtol=0.01)


@pytest.mark.parametrize("config", [ModelConfig(architecture="resnet_native"), V3])
def test_a_network_learns_the_short_way_and_is_kept_with_keras_own_layers(config):
    learning, kept = build_network(config, 48, 1), build_network(config, 48, 1, kept=True)
    assert {type(layer) for layer in _norms(learning)} == {BatchNormalization}
    assert {type(layer) for layer in _norms(kept)} == {keras.layers.BatchNormalization}
    shapes = [[weight.shape for weight in one.weights] for one in (learning, kept)]
    assert shapes[0] == shapes[1]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="left to TensorFlow elsewhere")
@pytest.mark.parametrize(("given", "on"), [(None, True), ("0", False), ("1", True)])
def test_convolutions_are_onednns_unless_someone_says_no(given, on):
    environment = {name: value for name, value in os.environ.items() if name != "TF_ENABLE_ONEDNN_OPTS"}
    asked = (
        "from tasks.tensorflow_start import start_tensorflow; start_tensorflow();"
        "from tensorflow.python.util import _pywrap_util_port; print(_pywrap_util_port.IsMklEnabled())"
    )
    done = subprocess.run(
        [sys.executable, "-c", asked],
        env=environment | ({"TF_ENABLE_ONEDNN_OPTS": given} if given else {}),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stdout.split() == [str(on)]
