"""The weights that training starts with: ImageNet's, a file's, a release's or another model's."""

import io
import socket
import tempfile
from pathlib import Path

import numpy as np

from storage.errors import MissingObject, ModelError
from storage.objects import ObjectStore
from storage.opening import open_store
from storage.registry import Registry
from tasks.config.train import TrainConfig
from tasks.train.networks import BACKBONE
from tasks.train.seen import SEEN_IMAGES, read_seen

_HOW = (
    "give a Keras weights file of it: --train.model.weights PATH, store:KEY or s3://bucket/key, "
    "or none to start at random"
)
_DOWNLOAD_TIMEOUT_S = 20
_STORE = "store:"
_CHAMPION, _RELEASE = "champion", "release:"


def name_start(config: TrainConfig, champion: str | None) -> TrainConfig:
    """The config with the champion's version for init_from = champion, so that a run can be repeated.

    Empty where there is no champion: the first night has to begin somehow.
    """
    if config.init_from != _CHAMPION:
        return config
    return config.model_copy(update={"init_from": f"{_RELEASE}{champion}" if champion else ""})


def seen_by_start(config: TrainConfig, store: ObjectStore | None) -> np.ndarray:
    """Digests uint64 (N,) of the images that the network of init_from has seen; none where it is empty.

    Raises ModelError where it can't be told: the candidate would be tested on images that it may know.
    """
    if not config.init_from:
        return np.empty(0, np.uint64)
    if _is_release(config):
        return _seen_by_release(config, store)
    return _seen_by_file(Path(config.init_from))


def _is_release(config: TrainConfig) -> bool:
    return config.init_from.startswith(_RELEASE)


def _seen_by_release(config: TrainConfig, store: ObjectStore | None) -> np.ndarray:
    store, experiment = _release_of(config, store)
    key = f"experiments/{experiment}/{SEEN_IMAGES}"
    try:
        return read_seen(io.BytesIO(store.read(key)))
    except (MissingObject, EOFError, ValueError) as error:
        raise ModelError(
            f"init_from {config.init_from}: {key} can't be read ({error}), so it can't be told which test "
            "images the release has learnt from; leave init_from empty for one night."
        ) from None


def _seen_by_file(model: Path) -> np.ndarray:
    path = model.with_name(SEEN_IMAGES)
    try:
        return read_seen(path)
    except (OSError, EOFError, ValueError) as error:
        raise ModelError(
            f"init_from {model}: {path} can't be read ({error}), so it can't be told which test images the "
            "model has learnt from. Lay the file of its experiment beside it, or, if it never saw an image "
            "of this data, one without entries: numpy.save(path, numpy.empty(0, 'uint64'))."
        ) from None


def set_start_weights(network, config: TrainConfig, store: ObjectStore | None) -> None:
    """Give a new network the weights that `config` names; raises ModelError where they can't be had."""
    weights = config.model.weights
    if _is_release(config):
        _load_from_release(network, config, store)
    elif config.init_from:
        _copy_weights(network, Path(config.init_from), config.init_from)
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


def _release_of(config: TrainConfig, store: ObjectStore | None) -> tuple[ObjectStore, str]:
    """The store that has the release of init_from, and its experiment."""
    if store is None:
        raise ModelError(f"init_from {config.init_from}: this run has no object store; give a .keras path.")
    return store, Registry(store).manifest(config.init_from.removeprefix(_RELEASE)).experiment_id


def _load_from_release(network, config: TrainConfig, store: ObjectStore | None) -> None:
    store, experiment = _release_of(config, store)
    key = f"experiments/{experiment}/final_model.keras"
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "final_model.keras"
        try:
            store.download(key, path)
        except MissingObject:
            raise ModelError(
                f"init_from {config.init_from}: {store.uri} has no {key}, the release's float model; "
                "leave init_from empty for one night."
            ) from None
        _copy_weights(network, path, config.init_from)


def _copy_weights(network, path: Path, name: str) -> None:
    import keras

    from tasks.train.networks import in_classes

    whole = in_classes(network)
    try:
        start = keras.models.load_model(path, compile=False)
        if start.input_shape != network.input_shape:
            raise ValueError(
                f"it takes images of {start.input_shape[1:]}, the data set has {network.input_shape[1:]}"
            )
        if _layer_kinds(start) != _layer_kinds(whole):
            raise ValueError(f"it is a {start.name} of other layers")
        whole.set_weights(start.get_weights())
    except (OSError, ValueError) as error:
        raise ModelError(
            f"init_from {name}: its weights don't fit {network.name} as configured: {error}. Give a model of "
            "the same architecture, filters and activation, trained on images of the same size and channels, "
            "or leave init_from empty for one night."
        ) from error


def _layer_kinds(network) -> list[str]:
    """The classes of all layers: weights of equal shape fit another activation, too. Rounding has none."""
    nested = (_layer_kinds(one) if hasattr(one, "layers") else [type(one).__name__] for one in network.layers)
    return [kind for kinds in nested for kind in kinds if kind != "Rounded"]


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
