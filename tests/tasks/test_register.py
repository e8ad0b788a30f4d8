"""A release says what it is: hashes, tensors, golden outputs, and who signed it."""

import json

import numpy as np
import pytest
from prefect.logging import disable_run_logger

from storage.errors import InputError, ModelError, StoreError
from storage.identity import store_identity
from storage.registry import Registry
from tasks.benchmark import BenchmarkConfig
from tasks.litert import quantized_outputs
from tasks.prepare.splits import load_split
from tasks.register import (
    RegisterConfig,
    Release,
    build_release,
    fetch_release,
    register,
)
from tasks.rollout import RolloutConfig
from tasks.signing import check_signing_key
from tests.releases import describe, make_champion, new_store, notes
from tests.rollouts import roll_out
from tests.ssh_devices import fleet_of, new_key


def test_golden_outputs_are_those_of_the_model(tiny_releases):
    with np.load(tiny_releases[0] / "golden.npz") as golden:
        assert golden["inputs"].shape == (16, 48, 48, 1) and golden["inputs"].dtype == np.uint8
        assert golden["outputs"].shape == (16, 5) and golden["outputs"].dtype == np.uint8
        again = quantized_outputs(tiny_releases[0] / "model_int8.tflite", golden["inputs"])
        assert np.array_equal(golden["outputs"], again)


def test_a_golden_set_shows_no_image_of_the_data_set(tiny_releases, tiny_data):
    theirs = {
        image.tobytes()
        for name in ("train", "val", "test")
        for image in np.asarray(load_split(tiny_data.directory, name).images)
    }
    with np.load(tiny_releases[0] / "golden.npz") as golden:
        assert theirs and not theirs & {image.tobytes() for image in golden["inputs"]}


def test_a_release_is_the_same_however_often_it_is_made(tiny_releases, tiny_data, tmp_path):
    model = describe(tiny_releases[0] / "model_int8.tflite")
    again = build_release(model, tiny_data, notes(), RegisterConfig(), tmp_path, sequence=1)
    assert again.name == tiny_releases[0].name == f"20260101-000000-{model.sha256[:8]}"
    for path in tiny_releases[0].iterdir():
        assert (again / path.name).read_bytes() == path.read_bytes()
    (again / "model_int8.tflite").write_bytes(b"rot")
    assert build_release(model, tiny_data, notes(), RegisterConfig(), tmp_path, sequence=1) == again
    assert (again / "model_int8.tflite").read_bytes() == model.path.read_bytes()


def test_registering_again_gives_the_release_that_is_there(tiny_releases, tiny_data, tmp_path):
    store = new_store(tmp_path / "store")
    model = describe(tiny_releases[0] / "model_int8.tflite")

    def registered(work: str, accuracy: float = 0.5) -> Release:
        said = notes().model_copy(update={"metrics": {"accuracy": accuracy}})
        store_id, releases = store_identity(store), tmp_path / work
        return register(Registry(store), store_id, model, tiny_data, said, RegisterConfig(), releases)

    first = registered("work")
    before = store.list("models")
    # on another machine, with a last digit that differs there: what is registered stands
    again = registered("elsewhere", accuracy=0.5000001)
    assert (again.version, again.manifest_sha256) == (first.version, first.manifest_sha256)
    assert again.directory.parent == tmp_path / "elsewhere"
    assert store.list("models") == before and Registry(store).versions() == [first.version]


def test_a_store_that_vanished_meanwhile_gets_no_release(tiny_releases, tiny_data, tmp_path):
    store = new_store(tmp_path / "store")
    store_id, model = store_identity(store), describe(tiny_releases[0] / "model_int8.tflite")
    (tmp_path / "store").rename(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="not the store that this run began with"):
        register(Registry(store), store_id, model, tiny_data, notes(), RegisterConfig(), tmp_path / "work")
    assert not (tmp_path / "store").exists()


def test_a_key_is_tried_before_the_training(tmp_path, monkeypatch):
    monkeypatch.delenv("STRESS_VISION_SIGNING_KEY", raising=False)
    check_signing_key()
    new_key(tmp_path / "signer")
    monkeypatch.setenv("STRESS_VISION_SIGNING_KEY", str(tmp_path / "signer"))
    check_signing_key()
    monkeypatch.setenv("STRESS_VISION_SIGNING_KEY", str(tmp_path / "absent"))
    with pytest.raises(InputError, match=r"can't sign with the key that STRESS_VISION_SIGNING_KEY names"):
        check_signing_key()


def test_the_first_champion_is_fetched_by_that_name(tiny_releases, tmp_path):
    store = new_store(tmp_path / "store")
    with disable_run_logger(), pytest.raises(InputError, match=r"has no champion yet; name one of \[\]"):
        fetch_release.fn(store.uri, "champion", tmp_path)
    version = make_champion(store, tiny_releases[0])
    with disable_run_logger():
        release = fetch_release.fn(store.uri, "champion", tmp_path)
    assert release.version == version and release.uri == f"{store.uri}/models/{version}"
    assert release.directory == tmp_path / "releases" / version


def test_the_manifest_hashes_every_file_and_names_the_model(tiny_releases):
    manifest = json.loads((tiny_releases[0] / "manifest.json").read_text())
    assert manifest["version"] == tiny_releases[0].name
    assert manifest["version"].endswith(manifest["files"]["model_int8.tflite"]["sha256"][:8])
    names = {path.name for path in tiny_releases[0].iterdir()} - {"manifest.json"}
    assert set(manifest["files"]) == names


def test_a_release_that_can_not_be_made_leaves_nothing_behind(tiny_data, tmp_path):
    (tmp_path / "broken.tflite").write_bytes(b"TFL3 this is no model")
    with pytest.raises(ModelError, match=r"ai-edge-litert can't load it"):
        build_release(
            describe(tmp_path / "broken.tflite"), tiny_data, notes(), RegisterConfig(), tmp_path / "r"
        )
    assert list((tmp_path / "r").iterdir()) == []


def test_figures_that_are_no_numbers_are_refused(tiny_releases, tiny_data, tmp_path):
    model = describe(tiny_releases[0] / "model_int8.tflite")
    bad = notes().model_copy(update={"metrics": {"accuracy": float("nan")}})
    with pytest.raises(ValueError, match="finite number"):
        build_release(model, tiny_data, bad, RegisterConfig(), tmp_path / "r")


def test_a_key_that_can_not_sign_is_an_error_without_its_content(
    tiny_releases, tiny_data, tmp_path, monkeypatch
):
    (tmp_path / "key").write_text("topsecret")
    monkeypatch.setenv("STRESS_VISION_SIGNING_KEY", str(tmp_path / "key"))
    with pytest.raises(InputError, match=r"STRESS_VISION_SIGNING_KEY") as caught:
        build_release(
            describe(tiny_releases[0] / "model_int8.tflite"), tiny_data, notes(), RegisterConfig(), tmp_path
        )
    assert "topsecret" not in str(caught.value)


def test_a_device_that_knows_the_signer_takes_only_releases_signed_by_them(
    ssh_device, tiny_releases, tiny_data, tmp_path, monkeypatch
):
    signer = new_key(tmp_path / "signer")
    ssh_device.root.mkdir()
    (ssh_device.root / "allowed_signers").write_text(f"stress-vision {signer}\n")
    config = RolloutConfig(benchmark=BenchmarkConfig(runs=10, min_cpu_share=0))

    def outcome(release):
        return roll_out(release, fleet_of([ssh_device]), config).devices[0]

    assert "no signature" in outcome(tiny_releases[0]).reason

    monkeypatch.setenv("STRESS_VISION_SIGNING_KEY", str(tmp_path / "signer"))
    model = describe(tiny_releases[0] / "model_int8.tflite")
    signed = build_release(model, tiny_data, notes(), RegisterConfig(), tmp_path / "signed")
    assert outcome(signed).outcome == "updated"

    manifest = json.loads((signed / "manifest.json").read_text())
    (signed / "manifest.json").write_text(json.dumps({**manifest, "max_latency_ms": 1e9}))
    refused = outcome(signed)
    assert refused.outcome == "failed" and "signature" in refused.reason
