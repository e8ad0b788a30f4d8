"""A Keras network to the bytes of a .tflite file.

In: a network uint8 (N, P, P, C) to float32 (N, 5), calibration images uint8 (K, P, P, C).
Out: batch 1. INT8 takes uint8 (1, P, P, C) with scale 1 and zero point 0, the camera's own bytes, and gives
uint8 (1, 5) with the tensor's own scale; float16 and float32 take and give float32, pixels as 0 to 255.
"""

import re
import warnings
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from storage.errors import ModelError
from tasks.config.convert import Format

_COUNTED = re.compile(r"(_\d+)+$")


def to_tflite(network, format_: Format, images: np.ndarray) -> bytes:
    """Convert with TensorFlow's converter; `images` calibrate INT8. Raises ModelError where it refuses."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_concrete_functions([_frozen(network)])
    if format_ != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if format_ == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if format_ == "int8":
        converter.representative_dataset = lambda: representative_dataset(images)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.uint8
    try:
        with warnings.catch_warnings():
            # said of the step before calibration; the converter goes on to calibrate
            warnings.filterwarnings("ignore", "Statistics for quantized inputs were expected")
            return converter.convert()
    except Exception as error:  # of many kinds, ConverterError, RuntimeError and ValueError among them
        raise ModelError(f"{network.name} can't be converted to {format_}: {error}") from error


def representative_dataset(images: np.ndarray) -> Iterator[list[np.ndarray]]:
    """Each image, and the first once more with a black and a white pixel.

    These two pixels pin the input's range to 0..255 and so its scale to exactly 1.
    """
    whole_range = images[:1].copy()
    whole_range.flat[0], whole_range.flat[-1] = 0, 255
    for image in (*images, whole_range[0]):
        yield [image[None].astype(np.float32)]


def _frozen(network):
    """The network as one function of a float32 image (1, P, P, C), its weights constants, dropout off.

    With the network's own uint8 input the graph would begin with a float CAST, which no delegate takes.
    """
    import keras
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    shape = network.input_shape[1:]
    floating = keras.models.clone_model(
        type(network).from_config(_renamed(network.get_config(), _plain_names(network))),
        input_tensors=keras.Input(shape, dtype="float32", name="image"),
        clone_function=_centred_first,
    )
    floating.set_weights(network.get_weights())

    signature = [tf.TensorSpec((1, *shape), tf.float32, name="image")]
    probabilities: Any = tf.function(lambda image: floating(image, training=False), signature)
    return convert_variables_to_constants_v2(probabilities.get_concrete_function())


def _plain_names(network) -> dict[str, str]:
    """Every layer's name to the one that it would have in a process that built this network alone.

    Keras goes on counting over all networks of a process, and names are a part of the file: without this, the
    same weights would give other bytes in a night that was taken up again.
    """
    counts: Counter[str] = Counter()
    plain: dict[str, str] = {}
    for name in _names(network):
        if name not in plain:
            base = _COUNTED.sub("", name)
            plain[name] = f"{base}_{counts[base]}" if counts[base] else base
            counts[base] += 1
    return plain


def _names(network) -> Iterator[str]:
    yield network.name
    for layer in getattr(network, "layers", ()):
        yield from _names(layer)


def _renamed(config: Any, names: dict[str, str]) -> Any:
    """A network's configuration with other names of layers, wherever it refers to them."""
    if isinstance(config, dict):
        return {key: _renamed(value, names) for key, value in config.items()}
    if isinstance(config, list | tuple):
        return type(config)(_renamed(value, names) for value in config)
    return names.get(config, config) if isinstance(config, str) else config


def _centred_first(layer):
    """A copy of the layer; a rescaling with an offset adds before it multiplies.

    Of x * scale + offset the converter gives the product a range that spans both results, -1 to 2 where the
    sum's is -1 to 1: a third of the camera's 256 grey levels would be lost before the first convolution.
    """
    import keras

    if not isinstance(layer, keras.layers.Rescaling) or not layer.offset:
        return layer.__class__.from_config(layer.get_config())
    scale, centre = layer.scale, layer.offset / layer.scale
    return keras.layers.Lambda(lambda image: (image + centre) * scale, name=layer.name)
