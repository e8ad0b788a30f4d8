"""The night as a whole, on drawn faces, a real S3 server, real SSH devices and a real Prefect server."""

import json
import shutil

import pytest

from flows.config import RetrainConfig
from flows.retrain import retrain
from flows.rollout import RolloutRequest, rollout
from storage.errors import InputError
from storage.opening import open_store
from storage.registry import Registry
from tasks.rollout import RolloutConfig
from tasks.synthetic import write_dataset
from tests.ssh_devices import free_port

pytestmark = pytest.mark.usefixtures("prefect_server")

TINY = {
    "prepare": {"target_per_class": 0},
    "train": {"model": {"architecture": "custom_light", "input_px": 48}, "epochs": 1, "batch_size": 32},
    "convert": {"formats": ["int8"]},
}
LENIENT = {"min_accuracy": 0.0, "max_quantization_loss": 100}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A directory store with drawn faces. Tests of this module share it, and so its champion."""
    directory = tmp_path_factory.mktemp("store")
    write_dataset(directory, per_class=60, seed=3)
    return directory


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("work")


def config(store, work, **changes) -> RetrainConfig:
    return RetrainConfig.model_validate({"store": str(store), "work_dir": str(work), **TINY, **changes})


def inventory(path, devices):
    """Write the TOML file that reaches these devices."""
    tables = []
    for device in devices:
        facts = device.model_dump(mode="json")
        tables.append(
            "[[devices]]\n" + "\n".join(f"{key} = {json.dumps(value)}" for key, value in facts.items())
        )
    path.write_text("\n".join(tables))
    return str(path)


def test_a_model_under_the_target_is_rejected_and_leaves_its_report(store, work):
    state = retrain(config(store, work), return_state=True)
    assert (state.type.value, state.name) == ("COMPLETED", "Rejected")
    assert "accuracy" in state.message
    report = state.result().report
    assert "at least 84.0 %" in report.read_text()
    keys = {info.key.split("/", 2)[2] for info in open_store(store).list(f"experiments/{report.parent.name}")}
    assert {
        "final_model.keras", "model_config.json", "experiment_config.json", "training_history.json",
        "training_history.png", "checkpoints/best_model.keras", "report.html", "model_int8.tflite",
    } <= keys  # fmt: skip
    assert Registry(open_store(store)).versions() == []


def test_a_night_with_nothing_new_is_skipped_and_says_why(store, work):
    state = retrain(config(store, work), return_state=True)
    assert (state.type.value, state.name) == ("COMPLETED", "Skipped")
    assert "ended as Rejected" in state.message and "force" in state.message


def test_a_good_model_reaches_the_devices_that_are_there_and_no_success_is_claimed_for_the_others(
    store, work, ssh_devices, tmp_path
):
    first, second = (device.device for device in ssh_devices(2))
    gone = second.model_copy(update={"name": "pi-gone", "port": free_port()})
    path = inventory(tmp_path / "fleet.toml", [gone, first, second])
    state = retrain(config(store, work, targets=LENIENT, rollout={"inventory": path}), return_state=True)
    assert state.name == "PartlyDeployed" and "pi-gone: unreachable" in state.message
    fleet = state.result().fleet
    assert fleet.counts == {"updated": 2, "failed": 0, "unreachable": 1, "inconclusive": 0}
    registry = Registry(open_store(store))
    assert registry.champion().version == fleet.release
    assert registry.devices()["pi-1"]["benchmark"]["runs"] == 100
    assert registry.devices()["pi-gone"]["outcome"] == "unreachable"
    assert f"models/{fleet.release}/report.html" in {info.key for info in open_store(store).list("models")}


def test_a_registered_release_is_rolled_out_by_hand(store, work, ssh_devices, tmp_path):
    path = inventory(tmp_path / "fleet.toml", [device.device for device in ssh_devices(1)])
    request = RolloutRequest(store=str(store), work_dir=str(work), rollout=RolloutConfig(inventory=path))
    state = rollout(request, return_state=True)
    assert (state.type.value, state.name) == ("COMPLETED", "Deployed")


def test_a_rollout_on_which_every_device_is_silent_is_a_failure(store, work, ssh_devices, tmp_path):
    device = ssh_devices(1)[0].device.model_copy(update={"port": free_port()})
    path = inventory(tmp_path / "fleet.toml", [device])
    request = RolloutRequest(store=str(store), work_dir=str(work), rollout=RolloutConfig(inventory=path))
    state = rollout(request, return_state=True)
    assert (state.type.value, state.name) == ("FAILED", "NotDeployed")


def test_without_a_fleet_the_release_is_registered_and_becomes_champion_from_s3_too(s3_uri, tmp_path):
    write_dataset(tmp_path / "faces", per_class=40, seed=5)
    remote, local = open_store(s3_uri), tmp_path / "faces"
    for path in sorted(file for file in local.rglob("*") if file.is_file()):
        remote.upload(path, path.relative_to(local).as_posix())
    state = retrain(config(s3_uri, tmp_path / "work", targets=LENIENT), return_state=True)
    assert (state.type.value, state.name) == ("COMPLETED", "Registered")
    assert Registry(remote).champion().version in state.message


def test_nights_that_start_from_the_champion_begin_before_there_is_one_and_name_it_afterwards(tmp_path):
    store, work = tmp_path / "store", tmp_path / "work"
    write_dataset(store, per_class=30, seed=6)
    warm = {**TINY, "train": {**TINY["train"], "init_from": "champion"}, "targets": LENIENT}
    first = retrain(config(store, work, **warm), return_state=True)
    assert first.name == "Registered"
    assert _started_from(first) == ""
    assert retrain(config(store, work, **warm), return_state=True).name == "Skipped"

    champion = Registry(open_store(store)).champion().version
    write_dataset(tmp_path / "fresh", per_class=5, seed=60)
    for path in (tmp_path / "fresh/datasets/custom/fatigue").iterdir():
        shutil.copyfile(path, store / f"datasets/custom/fatigue/new-{path.name}")
    second = retrain(config(store, work, **warm), return_state=True)
    assert _started_from(second) == f"release:{champion}"
    assert "test images seen before" in second.result().report.read_text()


def _started_from(state) -> str:
    facts = json.loads((state.result().report.parent / "experiment_config.json").read_text())
    return facts["train"]["init_from"]


def test_a_store_without_data_ends_the_run_with_the_layout_it_expects(tmp_path):
    with pytest.raises(InputError, match=r"fer2013\.csv"):
        retrain(config(tmp_path / "empty", tmp_path / "work"))


def test_a_night_whose_data_has_shifted_stops_before_training_if_told_to(store, work, tmp_path):
    darker = tmp_path / "darker"
    shutil.copytree(store, darker)
    path = darker / "datasets/fer2013/fer2013.csv"
    header, *rows = path.read_text().splitlines()
    split = [row.split(",") for row in rows]
    dark = [f"{e},{' '.join(str(int(p) // 3) for p in pixels.split())},{usage}" for e, pixels, usage in split]
    path.write_text("\n".join([header, *dark]))
    state = retrain(config(darker, work, targets=LENIENT, drift={"stop": True}), return_state=True)
    assert (state.type.value, state.name) == ("COMPLETED", "Drifted")
    assert "brightness" in state.message and "drift.stop" in state.message
    report = state.result().report
    page = report.read_text()
    assert "What to do" in page and "brightness" in page and "Champion&#39;s data and tonight&#39;s" in page
    stored = {info.key for info in open_store(darker).list(f"experiments/{report.parent.name}")}
    assert {f"experiments/{report.parent.name}/{name}" for name in ("report.html", "drift.png")} <= stored
