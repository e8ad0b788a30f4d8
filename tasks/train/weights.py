"""The weights that training starts with: ImageNet's, a file's, the object store's or another model's."""

import socket
import tempfile
from pathlib import Path

from storage.errors import ModelError
from storage.objects import ObjectStore, open_store
from tasks.train.config import TrainConfig
from tasks.train.networks import BACKBONE

_HOW = (
    "give a Keras weights file of it: --train.model.weights PATH, store:KEY or s3://bucket/key, "
    "or none to start at random"
)
_DOWNLOAD_TIMEOUT_S = 20
_STORE = "store:"


def set_start_weights(network, config: TrainConfig, store: ObjectStore | None) -> None:
    """Give a new network the weights that `config` names; raises ModelError where they can't be had."""
    weights = config.model.weights
    if config.init_from:
        _copy_weights(network, Path(config.init_from))
    elif config.model.architecture != "mobilenet_v3_small" or weights == "none":
        return
    elif weights == "imagenet":
        network.get_layer(BACKBONE).set_weights(_imagenet_weights())
    elif weights.startswith(_STORE):
        _load_from_store(network.get_layer(BACKBONE), weights.removeprefix(_STORE), store)
    elif "://" in weights:
        uri, _, key = weights.rpartition("/")
        _load_from_store(network.get_layer(BACKBONE), key, open_store(uri))
    else:
        _load_file(network.get_layer(BACKBONE), Path(weights))


def _copy_weights(network, path: Path) -> None:
    import keras

    try:
        start = keras.models.load_model(path, compile=False)
        network.set_weights(start.get_weights())
    except (OSError, ValueError) as error:
        raise ModelError(
            f"init_from {path}: its weights don't fit {network.name} as configured: {error}. "
            "Give a .keras model of the same architecture, filters and channels, or leave init_from empty."
        ) from error


def _imagenet_weights() -> list:
    """Keras' own ImageNet weights of MobileNetV3Small, from its cache or its download."""
    import keras

    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_DOWNLOAD_TIMEOUT_S)
    try:
        # at 224 px, the only size for which Keras doesn't warn; the weights don't depend on it
        return keras.applications.MobileNetV3Small(
            input_shape=(224, 224, 3), include_top=False, include_preprocessing=False, weights="imagenet"
        ).get_weights()
    except Exception as error:  # Keras wraps what the network throws in a bare Exception
        raise ModelError(
            f"ImageNet weights of MobileNetV3Small can't be downloaded ({error}); {_HOW}."
        ) from error
    finally:
        socket.setdefaulttimeout(before)


def _load_file(backbone, path: Path) -> None:
    if not path.is_file():
        raise ModelError(f"Weights of MobileNetV3Small: no file {path}; {_HOW}.")
    try:
        backbone.load_weights(path)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"Weights file {path} is not one of MobileNetV3Small(include_top=False): {error}; {_HOW}."
        ) from error


def _load_from_store(backbone, key: str, store: ObjectStore | None) -> None:
    if store is None:
        raise ModelError(f"Weights {_STORE}{key}: this run has no object store; {_HOW}.")
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / Path(key).name
        store.download(key, path)
        _load_file(backbone, path)
