"""A release says what it is: hashes, tensors, golden outputs, and who signed it."""

import json

import numpy as np
import pytest

from storage.errors import InputError, ModelError
from tasks.benchmark import BenchmarkConfig
from tasks.litert import quantized_outputs
from tasks.prepare.splits import load_split
from tasks.register import RegisterConfig, build_release, golden_inputs
from tasks.rollout import RolloutConfig, roll_out
from tests.releases import describe, notes
from tests.ssh_devices import fleet_of, new_key


def test_golden_outputs_are_those_of_the_model_on_validation_images(tiny_releases, tiny_data):
    with np.load(tiny_releases[0] / "golden.npz") as golden:
        assert golden["inputs"].shape == (16, 48, 48, 1) and golden["inputs"].dtype == np.uint8
        assert golden["outputs"].shape == (16, 5) and golden["outputs"].dtype == np.uint8
        again = quantized_outputs(tiny_releases[0] / "model_int8.tflite", golden["inputs"])
        assert np.array_equal(golden["outputs"], again)
        validation = {image.tobytes() for image in load_split(tiny_data.directory, "val").images}
        assert all(image.tobytes() in validation for image in golden["inputs"])


def test_fewer_validation_images_than_wanted_are_all_taken(tiny_data):
    assert len(golden_inputs(tiny_data.directory, 256)) == 40


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
