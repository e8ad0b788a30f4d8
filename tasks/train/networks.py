"""The architectures.

Every network: uint8 (N, P, P, C), P = `image_px` and C = `channels` of the data set, to
softmax float32 (N, 5) in the order of `CLASSES`. Scaling and enlarging are layers, so that
training, the INT8 file and the device can't disagree. Scaling comes first: bilinear resizing is
linear, so the order doesn't change the result, and 48x48 values are fewer than 160x160x3.
"""

import zipfile
from pathlib import Path

from storage.errors import ModelError
from tasks.classes import CLASSES, EMOTIONS
from tasks.config.train import ModelConfig
from tasks.prepare.labels import CLASS_SUMS

BACKBONE = "backbone"
"""Name of the layer that holds a pretrained network."""
HEAD = "probabilities"
"""Name of the last layer that learns."""


def build_network(config: ModelConfig, image_px: int, channels: int, *, kept: bool = False, seed: int = 0):
    """Build a network with random weights for uint8 images (N, image_px, image_px, channels).

    It learns, from weights that `seed` decides: with `config.emotions` its output is float32 (N, 8), of
    EMOTIONS; `in_classes` sums them up.
    `kept`: as it is handed on, with the same weights: its activations not rounded, its answers those of an
    image and its mirror image where `config.mirrored`.
    """
    import keras

    from tasks.train.fused import with_fused_batch_norm

    image = keras.Input((image_px, image_px, channels), dtype="uint8", name="image")
    build = {
        "mobilenet_v3_small": _mobilenet_v3_small,
        "custom_light": _custom_light,
        "resnet_native": _resnet_native,
    }[config.architecture]
    config = config.model_copy(update={"quantization_aware" if kept else "mirrored": False})
    # float32 even under mixed precision: a float16 softmax saturates
    units = len(EMOTIONS if config.emotions else CLASSES)
    head = keras.layers.Dense(units, "softmax", dtype="float32", name=HEAD)
    answers = head(build(image, config))
    if config.mirrored:
        answers = keras.ops.mean(keras.ops.reshape(answers, (2, -1, units)), axis=0)
    network = keras.Model(image, answers, name=config.architecture)
    return network if kept else with_fused_batch_norm(network, seed)


def load_network(path: Path):
    """A network as it was saved. ModelError where the file isn't a whole .keras."""
    import keras

    # Keras says "file not found" of one that is cut short
    if path.is_file() and not zipfile.is_zipfile(path):
        raise ModelError(
            f"{path}: expected a whole .keras file, got {path.stat().st_size} bytes that are none; delete it "
            "where the store has it in the experiment's folder, or train anew"
        )
    try:
        return keras.models.load_model(path, compile=False)
    except (ValueError, OSError) as error:
        raise ModelError(f"{path}: Keras can't load it: {error}; expected a .keras model") from error


def in_classes(network):
    """The network that is handed on: the same layers, emotions, where it has them, summed to classes."""
    import keras

    if network.output_shape[-1] == len(CLASSES):
        return network
    sums = keras.layers.Dense(len(CLASSES), use_bias=False, trainable=False, dtype="float32", name="classes")
    whole = keras.Model(network.input, sums(network.output), name=network.name)
    sums.set_weights([CLASS_SUMS])
    return whole


def _scaled(image, scale: float, offset: float, config: ModelConfig):
    """Scaled values of images (N, P, P, C); of them and then of their mirror images (2 N, P, P, C).

    Faces have no handedness, so the answers to both differ by error alone. Mirrored after scaling: before it,
    the converter would give the camera's pixels the range of the scaled ones, too.
    """
    from keras import layers, ops

    x = layers.Rescaling(scale, offset, name="scale")(image)
    return ops.concatenate([x, ops.flip(x, axis=2)], axis=0) if config.mirrored else x


def _enlarged_rgb(image, scale: float, offset: float, config: ModelConfig):
    """Scaled values (N, px, px, 3) of an image; a grey one gets three equal channels."""
    from keras import layers

    px = config.input_px
    x = _scaled(image, scale, offset, config)
    if image.shape[1] != px:
        x = layers.Resizing(px, px, interpolation="bilinear", name="enlarge")(x)
    return layers.Concatenate(name="to_rgb")([x, x, x]) if image.shape[-1] == 1 else x


def _mobilenet_v3_small(image, config: ModelConfig):
    """Phase document §2: backbone in [-1, 1], its last layers trainable, two dense layers of 256 and 128."""
    from keras import layers, regularizers

    x = _backbone(config)(_enlarged_rgb(image, 1 / 127.5, -1.0, config))
    x = layers.GlobalAveragePooling2D()(x)
    for units, dropout in ((256, config.dropout), (128, config.head_dropout)):
        x = layers.Dropout(dropout)(x)
        x = layers.Dense(units, "relu", kernel_regularizer=regularizers.L2(config.l2))(x)
        x = layers.BatchNormalization(momentum=config.batch_norm_momentum)(x)
    return x


def _backbone(config: ModelConfig):
    """Keras' MobileNetV3Small without its top, with our batch-norm momentum and activation."""
    import keras

    from tasks.train.rounding import with_rounding

    backbone = keras.applications.MobileNetV3Small(
        input_shape=(config.input_px, config.input_px, 3),
        include_top=False,
        include_preprocessing=False,
        weights=None,
        name=BACKBONE,
    )
    if config.activation == "relu6":
        backbone = keras.models.clone_model(backbone, clone_function=_with_relu6)
    frozen = len(backbone.layers) - config.trainable_layers
    for index, layer in enumerate(backbone.layers):
        layer.trainable = index >= frozen
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = config.batch_norm_momentum
    return with_rounding(backbone) if config.quantization_aware else backbone


def _with_relu6(layer):
    """A copy of a layer, ReLU6 where it was hard-swish."""
    import keras

    if isinstance(layer, keras.layers.Activation) and layer.activation is keras.activations.hard_swish:
        return keras.layers.ReLU(6.0, name=layer.name)
    return type(layer).from_config(layer.get_config())


def _custom_light(image, config: ModelConfig):
    """Phase document §2: one strided convolution, three separable ones, a dense layer of 128."""
    from keras import layers

    first, *others, last = config.channels_per_stage
    x = _enlarged_rgb(image, 1 / 255, 0.0, config)
    x = layers.Conv2D(first, 3, strides=2, padding="same", use_bias=False)(x)
    x = layers.MaxPooling2D()(_batch_norm_relu(x, config))
    for filters in others:
        x = layers.SeparableConv2D(filters, 3, padding="same", use_bias=False)(x)
        x = layers.MaxPooling2D()(_batch_norm_relu(x, config))
    x = _batch_norm_relu(layers.SeparableConv2D(last, 3, padding="same", use_bias=False)(x), config)
    x = layers.Dropout(config.dropout)(layers.GlobalAveragePooling2D()(x))
    return layers.Dense(128, "relu")(x)


def _resnet_native(image, config: ModelConfig):
    """Basic residual blocks (He et al., 2015, figure 5 left) at strides 1-2-2-2, no stem pooling.

    Plain convolutions, batch norm and ReLU only: all of it fuses, and INT8 loses almost nothing.
    """
    from keras import layers

    x = _scaled(image, 1 / 127.5, -1.0, config)
    x = layers.Conv2D(config.channels_per_stage[0], 3, padding="same", use_bias=False)(x)
    x = _batch_norm_relu(x, config)
    for stage, (filters, blocks) in enumerate(zip(config.channels_per_stage, config.blocks, strict=True)):
        for block in range(blocks):
            x = _residual_block(x, filters, 2 if stage and not block else 1, config)
    return layers.Dropout(config.dropout)(layers.GlobalAveragePooling2D()(x))


def _residual_block(x, filters: int, stride: int, config: ModelConfig):
    from keras import layers

    shortcut = x
    if stride != 1:
        # not a strided 1x1 convolution: with few channels its gradient crashes oneDNN (TensorFlow 2.21 on
        # x86); nor average pooling, which XNNPACK leaves out of its INT8 partition
        shortcut = layers.MaxPooling2D(stride, padding="same")(shortcut)
    if x.shape[-1] != filters:
        shortcut = layers.Conv2D(filters, 1, use_bias=False)(shortcut)
        shortcut = layers.BatchNormalization(momentum=config.batch_norm_momentum)(shortcut)
    x = layers.Conv2D(filters, 3, strides=stride, padding="same", use_bias=False)(x)
    x = _batch_norm_relu(x, config)
    x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
    x = layers.BatchNormalization(momentum=config.batch_norm_momentum)(x)
    return layers.ReLU()(layers.Add()([x, shortcut]))


def _batch_norm_relu(x, config: ModelConfig):
    from keras import layers

    return layers.ReLU()(layers.BatchNormalization(momentum=config.batch_norm_momentum)(x))
