"""Training: what comes out, and that a killed run ends as if it had not been."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from pydantic import ValidationError

from storage.errors import InputError, ModelError, StoreError
from tasks.prepare import load_split
from tasks.prepare.blocks import hash_images
from tasks.synthetic import draw_faces
from tasks.train import (
    AugmentationConfig,
    ModelConfig,
    OptimizerConfig,
    TrainConfig,
    name_start,
    train,
)
from tasks.train.fit import computes_bfloat16
from tasks.train.networks import build_network
from tasks.train.weights import seen_by_start, set_start_weights
from tests.releases import make_champion, new_store
from tests.tasks.small_model import prepared_data

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")

SMALL = TrainConfig(
    model=ModelConfig(architecture="custom_light", input_px=32, filters=(8, 8, 8, 8), emotions=True),
    epochs=3,
    keep_checkpoints=2,
)

TRAIN_IN_A_PROCESS = """
import sys
from pathlib import Path
from types import SimpleNamespace
from tasks.prepare import PreparedData
from tasks.train import TrainConfig, train
data, config, directory = sys.argv[1:]
train(PreparedData.model_validate_json(data), TrainConfig.model_validate_json(config), Path(directory))
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return prepared_data(tmp_path_factory.mktemp("train") / "data", per_class=20)


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    lines = []
    result = train(data, SMALL, tmp_path_factory.mktemp("train") / "20261122_031500", report=lines.append)
    return result, lines


def _weights(path):
    import keras

    return keras.models.load_model(path, compile=False).get_weights()


def test_an_experiment_holds_every_promised_file(trained):
    result, _ = trained
    names = {str(path.relative_to(result.directory)) for path in result.directory.rglob("*")}
    assert names >= {
        "final_model.keras",
        "model_config.json",
        "experiment_config.json",
        "training_history.json",
        "training_history.png",
        "training_log.csv",
        "checkpoints/best_model.keras",
        "tensorboard/train",
        "tensorboard/validation",
    }
    assert not [name for name in names if "writing" in name or name.endswith(".part")]
    assert result.experiment_id == "20261122_031500"
    assert result.keras_bytes == result.model_path.stat().st_size


def test_the_history_has_the_named_metrics_for_every_epoch(trained):
    result, _ = trained
    for name in ("loss", "accuracy", "precision", "recall", "auc"):
        assert len(result.history[name]) == len(result.history[f"val_{name}"]) == SMALL.epochs
    assert json.loads((result.directory / "training_history.json").read_text()) == result.history
    with (result.directory / "training_log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3]
    assert [float(row["val_loss"]) for row in rows] == result.history["val_loss"]


def test_progress_says_how_long_it_will_still_take(trained):
    _, lines = trained
    assert len(lines) == SMALL.epochs
    assert lines[0].startswith("epoch 1/3") and "min left" in lines[0] and "images/s" in lines[0]


def test_the_final_model_is_the_best_epochs_and_takes_raw_bytes(trained, data):
    import keras

    result, _ = trained
    model = keras.models.load_model(result.model_path)
    images = load_split(data.directory, "val").images
    assert model.input_shape == (None, 48, 48, 1) and model.inputs[0].dtype == "uint8"
    answers = model.predict(images, verbose=0)
    assert answers.shape == (len(images), 5) and np.allclose(answers.sum(1), 1, atol=1e-5)
    accuracy = (answers.argmax(1) == load_split(data.directory, "val").labels).mean()
    assert accuracy == pytest.approx(max(result.history["val_accuracy"]), abs=1e-6)
    best = result.directory / "checkpoints/best_model.keras"
    for ours, theirs in zip(model.get_weights()[:-1], _weights(best), strict=True):
        assert np.array_equal(ours, theirs)


def test_models_open_in_keras_alone(trained):
    result, _ = trained
    program = (
        "import sys, keras; [keras.models.load_model(name, compile=False) for name in sys.argv[1:]]\n"
        "print([name for name in sys.modules if name.split('.')[0] == 'tasks'])"
    )
    names = [str(result.directory / name) for name in ("final_model.keras", "checkpoints/best_model.keras")]
    opened = subprocess.run(
        [sys.executable, "-I", "-c", program, *names], capture_output=True, text=True, timeout=120, check=True
    )
    assert opened.stdout.strip() == "[]"


def test_only_the_newest_checkpoints_stay(trained):
    result, _ = trained
    kept = sorted(path.name for path in (result.directory / "checkpoints").glob("epoch_*"))
    assert kept == ["epoch_0002.weights.h5", "epoch_0003.weights.h5"]


def test_a_finished_experiment_is_not_trained_again(trained, data):
    result, _ = trained
    lines = []
    again = train(data, SMALL, result.directory, report=lines.append)
    assert not lines
    assert again.history == result.history and again.best_epoch == result.best_epoch


def test_another_configuration_in_the_same_directory_is_refused(trained, data):
    result, _ = trained
    with pytest.raises(InputError, match="other train than asked for"):
        train(data, SMALL.model_copy(update={"seed": 1}), result.directory)


def test_an_empty_split_is_an_error(data, tmp_path):
    empty = prepared_data(tmp_path / "data", per_class=1)
    with np.load(empty.directory / "val_data.npz") as split:
        members = {name: split[name][:0] for name in split.files}
    np.savez(empty.directory / "val_data.npz", **members)
    with pytest.raises(InputError, match=r"val split is empty.* Give more photos"):
        train(empty, SMALL, tmp_path / "experiment")


@pytest.mark.parametrize(
    "flags, computes",
    [
        ("flags\t\t: fpu avx2 avx512f avx512_bf16 vaes", True),
        ("flags\t\t: fpu avx2 amx_bf16", True),
        ("Features\t: fp asimd i8mm bf16 dgh", True),
        ("flags\t\t: fpu avx2 avx512f avx512_vnni", False),
    ],
)
def test_a_processor_says_whether_it_computes_bfloat16(flags, computes, tmp_path):
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{flags}\n")
    assert computes_bfloat16(tmp_path / "cpuinfo") == computes


def test_bfloat16_on_a_processor_without_it_is_an_error(data, tmp_path, monkeypatch):
    monkeypatch.setattr("tasks.train.fit.computes_bfloat16", lambda: False)
    with pytest.raises(InputError, match=r"lacks instructions .* train\.precision = \"auto\""):
        train(data, SMALL.model_copy(update={"precision": "bfloat16"}), tmp_path / "experiment")


@pytest.mark.slow
def test_a_run_killed_between_epochs_ends_with_the_weights_of_an_uninterrupted_one(data, tmp_path):
    config = SMALL.model_copy(
        update={
            "epochs": 3,
            "optimizer": OptimizerConfig(
                name="adamw", plateau_patience=1, ema_momentum=0.5, learning_rate=0.002
            ),
            "augmentation": AugmentationConfig(mixup_alpha=0.2),
        }
    )
    arguments = [sys.executable, "-c", TRAIN_IN_A_PROCESS, data.model_dump_json(), config.model_dump_json()]
    _kill_after_an_epoch([*arguments, str(tmp_path / "killed")], tmp_path / "killed")
    lines = []
    resumed = train(data, config, tmp_path / "killed", report=lines.append)
    whole = train(data, config, tmp_path / "whole", report=lambda _: None)
    assert 0 < len(lines) < config.epochs
    assert resumed.history == whole.history
    last = "checkpoints/epoch_0003.weights.h5"
    assert _checkpoint(tmp_path / "killed" / last) == _checkpoint(tmp_path / "whole" / last)
    for ours, theirs in zip(_weights(resumed.model_path), _weights(whole.model_path), strict=True):
        assert np.array_equal(ours, theirs)


def _kill_after_an_epoch(command, directory):
    """kill -9 as soon as the first epoch is committed."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (directory / "checkpoints/progress.json").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def _checkpoint(path):
    """Every number of a weights file, the optimiser's included."""
    import h5py

    found = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: found.update({name: item[()].tobytes()}) if hasattr(item, "shape") else None
        )
    assert any("optimizer" in name for name in found)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("ema_momentum", [0.0, 0.998])
def test_validation_follows_training_within_a_few_epochs(ema_momentum, tmp_path):
    same = prepared_data(tmp_path / "data", per_class=20)
    shutil.copyfile(same.directory / "train_data.npz", same.directory / "val_data.npz")
    config = TrainConfig(
        model=ModelConfig(architecture="custom_light", input_px=48, filters=(16, 16, 32, 32), dropout=0),
        optimizer=OptimizerConfig(learning_rate=0.005, ema_momentum=ema_momentum),
        augmentation=AugmentationConfig(enabled=False),
        epochs=8,
        batch_size=10,
    )
    history = train(same, config, tmp_path / "experiment", report=lambda _: None).history
    assert history["accuracy"][-1] > 0.6
    # with Keras' own batch-norm momentum of 0.999, or an average that starts slowly, it stays at chance, 0.2
    assert max(history["val_accuracy"]) > 0.4


@pytest.mark.slow
def test_early_stopping_ends_a_run_that_no_longer_improves(data, tmp_path):
    still = OptimizerConfig(name="sgd", learning_rate=1e-6, schedule="cosine", warmup_epochs=0)
    config = SMALL.model_copy(update={"epochs": 30, "early_stopping_patience": 1, "optimizer": still})
    result = train(data, config, tmp_path / "experiment", report=lambda _: None)
    assert result.epochs < 30
    again = train(data, config, tmp_path / "experiment", report=lambda _: pytest.fail("trained on"))
    assert again.epochs == result.epochs


def test_a_run_whose_loss_is_no_number_is_an_error_and_leaves_no_model(tmp_path):
    data = prepared_data(tmp_path / "data", per_class=8)
    with np.load(data.directory / "train_data.npz") as split:
        members = {name: split[name] for name in split.files}
    np.savez(data.directory / "train_data.npz", **{**members, "emotions": members["emotions"] * np.nan})
    with pytest.raises(ModelError, match=r"in epoch 1.*train\.optimizer\.learning_rate"):
        train(data, SMALL, tmp_path / "experiment", report=lambda _: None)
    assert not (tmp_path / "experiment/final_model.keras").exists()


def test_a_disk_without_room_for_an_epoch_is_named_before_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library that writes it ends the process without a word."""
    data = prepared_data(tmp_path / "data", per_class=8)
    monkeypatch.setattr("tasks.train.callbacks.shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(StoreError, match=r"can't write .*/experiment/checkpoints: 0 MB are free"):
        train(data, SMALL, tmp_path / "experiment", report=lambda _: None)
    assert list((tmp_path / "experiment/checkpoints").iterdir()) == []


def test_a_network_too_large_for_memory_is_an_error_that_says_what_to_lower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import keras
    import tensorflow as tf

    def out_of_memory(*_: object, **__: object) -> None:
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    data = prepared_data(tmp_path / "data", per_class=8)
    monkeypatch.setattr(keras.Model, "fit", out_of_memory)
    with pytest.raises(ModelError, match=r"doesn't fit into memory.*train\.model\.filters"):
        train(data, SMALL, tmp_path / "experiment", report=lambda _: None)
    with pytest.raises(ValidationError, match="numbers of 1 to 2048"):
        ModelConfig(architecture="custom_light", filters=(32, 64, 128, 1_000_000))


@pytest.mark.slow
def test_warm_start_begins_with_the_other_models_weights(trained, data, tmp_path):
    champion, _ = trained
    config = SMALL.model_copy(
        update={
            "init_from": str(champion.model_path),
            "epochs": 1,
            "optimizer": OptimizerConfig(name="sgd", learning_rate=1e-6),
        }
    )
    result = train(data, config, tmp_path / "experiment", report=lambda _: None)
    for ours, theirs in zip(_weights(result.model_path)[:1], _weights(champion.model_path)[:1], strict=True):
        assert np.allclose(ours, theirs, atol=1e-3)


def test_a_model_file_brings_along_which_images_it_has_learnt_from(tmp_path: Path) -> None:
    known = np.array([3, 5, 8], np.uint64)
    np.save(tmp_path / "seen_images.npy", known)
    config = SMALL.model_copy(update={"init_from": str(tmp_path / "final_model.keras")})
    assert (seen_by_start(config, None) == known).all()
    assert not len(seen_by_start(SMALL, None))


@pytest.mark.parametrize("content", [None, b"no array", np.array([1.5])], ids=["absent", "broken", "floats"])
def test_a_model_of_which_it_is_unknown_what_it_learnt_from_can_not_be_a_start(
    tmp_path: Path, content: bytes | np.ndarray | None
) -> None:
    if isinstance(content, bytes):
        (tmp_path / "seen_images.npy").write_bytes(content)
    elif content is not None:
        np.save(tmp_path / "seen_images.npy", content)
    data = prepared_data(tmp_path / "data", per_class=1)
    config = SMALL.model_copy(update={"init_from": str(tmp_path / "final_model.keras")})
    with pytest.raises(ModelError, match=r"seen_images\.npy can't be read.*Lay the file .* beside it"):
        train(data, config, tmp_path / "experiment", report=lambda _: None)
    assert not list((tmp_path / "experiment").glob("checkpoints/*"))


@pytest.fixture
def store(tmp_path, trained, tiny_releases):
    """A store with a release whose float model is the one trained here."""
    model, _ = trained
    store = new_store(tmp_path / "store")
    make_champion(store, tiny_releases[0])
    for name in ("final_model.keras", "seen_images.npy"):
        store.upload(model.directory / name, f"experiments/20260101_000000/{name}")
    return store


@pytest.mark.slow
def test_a_run_that_starts_from_a_release_begins_with_its_float_model_and_inherits_what_it_has_seen(
    trained, data, store, tiny_releases, tmp_path
):
    champion, _ = trained
    other = prepared_data(tmp_path / "other", per_class=5)
    frozen = OptimizerConfig(name="sgd", learning_rate=1e-6)
    start = {"init_from": f"release:{tiny_releases[0].name}", "epochs": 1, "optimizer": frozen}
    config = SMALL.model_copy(update=start)
    result = train(other, config, tmp_path / "experiment", store=store, report=lambda _: None)
    for ours, theirs in zip(_weights(result.model_path)[:1], _weights(champion.model_path)[:1], strict=True):
        assert np.allclose(ours, theirs, atol=1e-3)
    seen = np.load(result.directory / "seen_images.npy")
    assert np.isin(load_split(data.directory, "train").digests, seen).all()
    assert np.isin(load_split(other.directory, "val").digests, seen).all()
    assert not np.isin(hash_images(draw_faces(5, 99)[0]), seen).any()


def test_the_champion_is_named_in_the_configuration_and_before_the_first_there_is_none():
    config = SMALL.model_copy(update={"init_from": "champion"})
    assert name_start(config, "20261122-031500-0a1b2c3d").init_from == "release:20261122-031500-0a1b2c3d"
    assert name_start(config, None).init_from == ""
    assert name_start(SMALL, "20261122-031500-0a1b2c3d") == SMALL


def test_a_release_whose_float_model_is_gone_is_an_error_that_says_what_to_do(store, tiny_releases):
    store.delete("experiments/20260101_000000/final_model.keras")
    config = SMALL.model_copy(update={"init_from": f"release:{tiny_releases[0].name}"})
    with pytest.raises(ModelError, match=r"no experiments/.*final_model\.keras.*leave init_from empty"):
        set_start_weights(build_network(config.model, 48, 1), config, store)


@pytest.mark.parametrize(
    ("model", "px", "said"),
    [
        ({"filters": (4, 8, 8, 16)}, 48, "don't fit"),
        ({"architecture": "resnet_native", "filters": ()}, 48, "other layers"),
        ({}, 64, r"images of \(48, 48, 1\), the data set has \(64, 64, 1\)"),
    ],
)
def test_a_release_of_another_network_or_for_other_images_can_not_be_a_start(
    store, tiny_releases, model, px, said
):
    release = f"release:{tiny_releases[0].name}"
    network = ModelConfig.model_validate({**SMALL.model.model_dump(), **model})
    config = SMALL.model_copy(update={"model": network, "init_from": release})
    with pytest.raises(ModelError, match=said):
        set_start_weights(build_network(network, px, 1), config, store)


TRAIN_ON_TWO_DEVICES = """
import sys
from pathlib import Path
from types import SimpleNamespace
import tensorflow as tf
(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from tasks.prepare import PreparedData
from tasks.train import TrainConfig, fit, train
shared_by = fit._shared_by
# two halves of this CPU in the place of two GPUs
fit._shared_by = lambda gpus: shared_by(tf.config.list_logical_devices("CPU"))
data, config, directory = sys.argv[1:]
train(PreparedData.model_validate_json(data), TrainConfig.model_validate_json(config), Path(directory))
"""


@pytest.mark.slow
def test_a_batch_is_shared_out_among_several_devices(trained, data, tmp_path):
    alone, _ = trained
    arguments = [data.model_dump_json(), SMALL.model_dump_json(), str(tmp_path / "shared")]
    command = [sys.executable, "-c", TRAIN_ON_TWO_DEVICES, *arguments]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    history = json.loads((tmp_path / "shared/training_history.json").read_text())
    assert len(history["loss"]) == SMALL.epochs
    # each device normalises its own half of a batch: near what one device learns, and not the same
    assert history["loss"] != alone.history["loss"]
    assert np.allclose(history["loss"], alone.history["loss"], atol=0.3)
    assert (tmp_path / "shared/final_model.keras").exists()
