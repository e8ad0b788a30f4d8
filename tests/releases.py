"""Fixtures: release directories of two tiny, real INT8 models, built as the register stage builds them."""

import hashlib
import warnings
from pathlib import Path

import numpy as np
import pytest

from storage.identity import MARKER, store_identity
from storage.objects import ObjectStore
from storage.opening import open_store
from storage.registry import Registry
from tasks.convert import TensorInfo, TfliteModel
from tasks.prepare import PreparedData
from tasks.register import RegisterConfig, ReleaseNotes, build_release
from tests.tasks.small_model import prepared_data


def tiny_int8(path: Path, seed: int) -> Path:
    """A network with random weights, uint8 in and out, converted for real."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tensorflow as tf

        tf.keras.utils.set_random_seed(seed)
        layers = tf.keras.layers
        network = tf.keras.Sequential(
            [
                tf.keras.Input((48, 48, 1), batch_size=1),
                layers.Rescaling(1 / 255),
                layers.Conv2D(8, 3, strides=4, activation="relu"),
                layers.Flatten(),
                layers.Dense(5, activation="softmax"),
            ]
        )
        converter = tf.lite.TFLiteConverter.from_keras_model(network)
        images = np.random.default_rng(seed).integers(0, 256, (20, 1, 48, 48, 1)).astype(np.float32)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([image] for image in images)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.uint8
        path.write_bytes(converter.convert())
    return path


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory) -> PreparedData:
    return prepared_data(tmp_path_factory.mktemp("prepared"), per_class=8)


def describe(path: Path) -> TfliteModel:
    """What the convert stage would say of the file, as far as a release repeats it."""
    tensor = TensorInfo(shape=(1, 48, 48, 1), dtype="uint8", scale=1.0, zero_point=0)
    content = path.read_bytes()
    return TfliteModel(
        format="int8",
        path=path,
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        input=tensor,
        output=tensor,
        min_runtime_version="2.14.0",
        delegate_partitions=1,
        undelegated=(),
    )


def notes(day: int = 1) -> ReleaseNotes:
    """What a release of that day says of itself."""
    return ReleaseNotes(
        experiment_id=f"202601{day:02}_000000", metrics={"accuracy": 0.5}, max_latency_ms=200.0
    )


def new_store(root: Path) -> ObjectStore:
    """A directory store that has its identity already."""
    root.mkdir(parents=True, exist_ok=True)
    store = open_store(root)
    store.write(MARKER, b'{"id": "0123456789abcdef"}')
    return store


def make_champion(store: ObjectStore, release: Path) -> str:
    """Publish a release to a store that has its identity, as its first champion; returns its version."""
    registry, store_id = Registry(store), store_identity(store)
    version = registry.publish(release, store_id=store_id)
    registry.promote(version, expected=None, store_id=store_id)
    return version


@pytest.fixture(scope="session")
def tiny_releases(tmp_path_factory: pytest.TempPathFactory, tiny_data: PreparedData) -> tuple[Path, Path]:
    """Two releases; the second is the newer one. Tests must not change them: copy first."""
    folder = tmp_path_factory.mktemp("releases")
    return tiny_release(folder, 1, tiny_data), tiny_release(folder, 2, tiny_data)


def tiny_release(folder: Path, day: int, data: PreparedData) -> Path:
    """The release of that day: its number in the store is the day's."""
    model = describe(tiny_int8(folder / f"{day}.tflite", seed=day))
    return build_release(model, data, notes(day), RegisterConfig(), folder, sequence=day)
