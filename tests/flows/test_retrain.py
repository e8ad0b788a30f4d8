"""The night as a whole, on drawn faces, a real S3 server, real SSH devices and a real Prefect server."""

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.client.schemas.objects import State
from prefect.client.schemas.sorting import ArtifactSort

import flows.retrain
from deployments.fleet import Device
from flows.outcome import ended_of
from flows.retrain import retrain
from flows.rollout import RolloutRequest, rollout
from storage.errors import FleetError, InputError, StoreError
from storage.opening import open_store
from storage.registry import Registry
from tasks.config import RetrainConfig
from tasks.report.artifacts import KEYS
from tasks.rollout import FleetOutcome, RolloutConfig
from tasks.synthetic import write_dataset
from tests.ports import free_port
from tests.ssh_devices import write_inventory

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server")]

TINY = {
    "prepare": {"target_per_class": 0},
    "train": {"model": {"architecture": "custom_light", "input_px": 48}, "epochs": 1, "batch_size": 32},
    "convert": {"formats": ["int8"]},
}
ANY_CAMERA = {"min_camera_accuracy": 0.0, "max_camera_growth": 100, "class_recall_floors": {}}
LENIENT = {"min_accuracy": 0.0, "max_quantization_loss": 100, **ANY_CAMERA}


@pytest.fixture(scope="module")
def cut_off(tmp_path_factory, prefect_server) -> Path:
    """Store and work directory of a night that passed the gate, and whose power failed then."""
    home = tmp_path_factory.mktemp("night")
    write_dataset(home / "store", per_class=60, seed=3)

    def fail(*_: object) -> None:
        raise RuntimeError("the power failed")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flows.retrain, "release_candidate", fail)
        assert retrain(night(home), return_state=True).is_failed()
    return home


@pytest.fixture
def home(cut_off, tmp_path) -> Path:
    """A copy of it for one test; the night is taken up at the gate, without training again."""
    shutil.copytree(cut_off, tmp_path / "home")
    return tmp_path / "home"


@pytest.fixture
def no_training(monkeypatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("it trained again")

    monkeypatch.setattr(flows.retrain, "train_model", fail)


def night(home: Path, **changes: Any) -> RetrainConfig:
    place = {"store": str(home / "store"), "work_dir": str(home / "work")}
    return RetrainConfig.model_validate({**place, **TINY, "targets": LENIENT, **changes})


def run(home: Path, **changes: Any) -> State:
    return retrain(night(home, **changes), return_state=True)


def registry(home: Path) -> Registry:
    return Registry(open_store(home / "store"))


def champion(home: Path) -> str | None:
    found = registry(home).champion()
    return found.version if found else None


def experiments(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "work/experiments").iterdir())


def inventory(path: Path, devices: Sequence[Device]) -> dict[str, str]:
    """What the configuration says of the file that reaches these devices."""
    return {"inventory": write_inventory(path, *devices)}


def ended(state: State) -> tuple[str, str]:
    return state.type.value, state.name or ""


def said(state: State) -> str:
    return state.message or ""


def report_of(state: State) -> Path:
    found = ended_of(state)
    assert found and found.report
    return found.report


def fleet_of(state: State) -> FleetOutcome:
    found = ended_of(state)
    assert found and found.fleet
    return found.fleet


def off(device: Device, name: str | None = None) -> Device:
    """The same device, switched off."""
    return device.model_copy(update={"name": name or device.name, "port": free_port()})


def test_fer2013_alone_gives_a_release_that_says_which_class_it_cannot_tell(tmp_path):
    write_dataset(tmp_path / "store", per_class=60, seed=3)
    shutil.rmtree(tmp_path / "store/datasets/custom")
    state = run(tmp_path)
    assert ended(state) == ("COMPLETED", "Registered")
    [version] = registry(tmp_path).versions()
    assert registry(tmp_path).manifest(version).absent_classes == ("fatigue",)
    report = report_of(state)
    assert "Not judged: fatigue." in report.read_text()
    assert "It can't tell fatigue" in (report.parent / "MODEL_CARD.md").read_text()


def test_a_model_under_the_target_is_rejected_and_leaves_its_report(home, monkeypatch):
    monkeypatch.setattr(flows.retrain, "this_run", lambda: "the first")
    state = run(home, targets={"min_accuracy": 1.0})
    assert ended(state) == ("COMPLETED", "Rejected")
    assert "accuracy" in said(state)
    report = report_of(state)
    assert "at least 100.0 %" in report.read_text()
    stored = open_store(home / "store").list(f"experiments/{report.parent.name}")
    assert {
        "final_model.keras", "model_config.json", "experiment_config.json", "training_history.json",
        "training_history.png", "checkpoints/best_model.keras", "report.html", "model_int8.tflite",
    } <= {info.key.split("/", 2)[2] for info in stored}  # fmt: skip
    assert registry(home).versions() == []

    retried = run(home, targets={"min_accuracy": 1.0})
    assert (ended(retried), said(retried), report_of(retried)) == (ended(state), said(state), report)
    monkeypatch.setattr(flows.retrain, "this_run", lambda: "the next night's")
    again = run(home, targets={"min_accuracy": 1.0})
    assert ended(again) == ("COMPLETED", "Skipped")
    assert "ended as Rejected" in said(again) and "force" in said(again)


@pytest.mark.usefixtures("no_training")
def test_a_run_says_on_prefect_s_pages_when_it_was_with_what_and_how_it_ended(home):
    state = run(home)
    with get_client(sync_client=True) as client:
        found = client.read_flow_run(_run_id(state))
        assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d balanced · Registered", found.name)
        assert {"balanced", "Registered", "fer2013"} <= set(found.tags) and "auto" not in found.tags
        of_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[found.id]))
        artifacts = client.read_artifacts(artifact_filter=of_run, sort=ArtifactSort.ID_DESC)
    shown = {one.key: one for one in artifacts}
    assert set(shown) == set(KEYS) - {"fleet", "latency", "training-progress"}
    assert all(len(str(one.data)) < 100_000 for one in artifacts)
    assert report_of(state).as_uri().rpartition("/work/")[2] in str(shown["report"].data)


def _run_id(state: State) -> UUID:
    assert state.state_details.flow_run_id
    return state.state_details.flow_run_id


@pytest.mark.usefixtures("no_training")
def test_without_a_fleet_the_release_is_registered_and_becomes_champion(home):
    state = run(home)
    assert ended(state) == ("COMPLETED", "Registered")
    version = champion(home)
    assert version and version in said(state)
    keys = {info.key for info in open_store(home / "store").list("models")}
    assert f"models/{version}/report.html" in keys
    assert run(home).name == "Skipped"


@pytest.mark.usefixtures("no_training")
def test_no_success_is_claimed_for_a_device_that_was_away_and_the_next_night_brings_it_the_release(
    home, ssh_devices, tmp_path
):
    first, second = (one.device for one in ssh_devices(2))
    state = run(home, rollout=inventory(tmp_path / "fleet.toml", [off(second), first]))
    assert ended(state) == ("COMPLETED", "PartlyDeployed")
    assert f"{second.name}: unreachable" in said(state)
    assert [device.outcome for device in fleet_of(state).devices] == ["unreachable", "updated"]
    assert registry(home).devices()[second.name]["outcome"] == "unreachable"
    assert champion(home) == fleet_of(state).release

    both = inventory(tmp_path / "fleet.toml", [second, first])
    state = run(home, rollout=both)
    assert ended(state) == ("COMPLETED", "Deployed")
    assert registry(home).devices()[second.name]["running_release"] == champion(home)
    state = run(home, rollout=both)
    assert state.name == "Skipped" and "the fleet runs it" in said(state)


@pytest.mark.usefixtures("no_training")
def test_a_night_that_reached_no_device_is_gone_on_with_and_registers_nothing_twice(
    home, ssh_device, tmp_path
):
    state = run(home, rollout=inventory(tmp_path / "fleet.toml", [off(ssh_device.device)]))
    assert ended(state) == ("FAILED", "NotDeployed")
    assert champion(home) is None
    state = run(home, rollout=inventory(tmp_path / "fleet.toml", [ssh_device.device]))
    assert ended(state) == ("COMPLETED", "Deployed")
    assert registry(home).versions() == [ssh_device.current] == [champion(home)]
    assert len(experiments(home)) == 1


@pytest.mark.usefixtures("no_training")
def test_a_rollout_that_failed_is_no_champion_and_is_tried_again_the_next_night(home, ssh_device, tmp_path):
    fleet = inventory(tmp_path / "fleet.toml", [ssh_device.device])
    too_strict = {**fleet, "max_latency_ms": 0.0001, "benchmark": {"min_cpu_share": 0}}
    state = run(home, rollout=too_strict)
    assert ended(state) == ("FAILED", "RolloutFailed")
    assert "wave 1: 1 failed of 1 visited" in (fleet_of(state).stopped or "")
    assert champion(home) is None and ssh_device.current is None
    assert ended(run(home, rollout=fleet)) == ("COMPLETED", "Deployed")


@pytest.mark.usefixtures("no_training")
def test_a_night_killed_after_it_registered_goes_on_with_that_release(home, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(flows.retrain, "promote_release", _killed)
        assert run(home).is_failed()
    [version] = registry(home).versions()
    assert champion(home) is None
    assert ended(run(home)) == ("COMPLETED", "Registered")
    assert registry(home).versions() == [version] == [champion(home)]


@pytest.mark.usefixtures("no_training")
def test_one_killed_before_it_noted_its_release_makes_the_same_one_again(home, monkeypatch):
    register = flows.retrain.register_release

    def killed_at_once(*arguments: Any) -> None:
        register(*arguments)
        _killed()

    with monkeypatch.context() as patch:
        patch.setattr(flows.retrain, "register_release", killed_at_once)
        assert run(home).is_failed()
    assert ended(run(home)) == ("COMPLETED", "Registered")
    assert registry(home).versions() == [champion(home)]


def _killed(*_: object, **__: object) -> None:
    raise RuntimeError("killed")


def test_a_champion_promoted_meanwhile_is_not_replaced_by_one_that_never_met_it(
    home, monkeypatch, tiny_releases
):
    def promoted_meanwhile(*_: object) -> None:
        found = registry(home)
        version = found.publish(tiny_releases[0], store_id=_store_id(home))
        found.promote(version, expected=None, store_id=_store_id(home))

    with monkeypatch.context() as patch:
        patch.setattr(flows.retrain, "keep_experiment", promoted_meanwhile)
        patch.setattr(flows.retrain, "train_model", _killed)
        state = run(home)
    with pytest.raises(StoreError, match=f"the champion is {tiny_releases[0].name}"):
        state.result()
    assert champion(home) == tiny_releases[0].name
    state = run(home)
    assert state.name in ("Rejected", "Registered")
    assert f"champion {tiny_releases[0].name}" in report_of(state).read_text().lower()


def _store_id(home: Path) -> str:
    return json.loads((home / "store/store.json").read_text())["id"]


def test_a_store_that_vanishes_in_the_night_is_refused_and_not_made_anew(home, monkeypatch):
    store, away = home / "store", home / "unmounted"
    judge = flows.retrain.judge_candidate

    def unmounted_meanwhile(*arguments: Any) -> Any:
        store.rename(away)
        return judge(*arguments)

    monkeypatch.setattr(flows.retrain, "judge_candidate", unmounted_meanwhile)
    with pytest.raises(StoreError, match="store"):
        run(home).result()
    assert not (store / "models").exists() and not (store / "nights").exists()
    assert not (away / "models").exists()
    assert not store.exists()


def test_nights_of_two_configurations_do_not_forget_each_other(home):
    assert run(home).name == "Registered"
    assert run(home, targets={"min_accuracy": 1.0}).name == "Rejected"
    assert run(home).name == "Skipped"
    assert run(home, targets={"min_accuracy": 1.0}).name == "Skipped"


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"rollout": {"inventory": "/nowhere/fleet.toml"}}, InputError, "there is no inventory"),
        ({"work_dir": "/proc/version/work"}, StoreError, "can't write"),
        ({"store": "/proc/nowhere"}, InputError, "is it mounted"),
    ],
)
def test_what_would_fail_in_the_end_is_told_before_anything_begins(tmp_path, changes, error, words):
    write_dataset(tmp_path / "store", per_class=2, seed=1)
    with pytest.raises(error, match=words):
        retrain(night(tmp_path, **changes))
    assert not (tmp_path / "work/experiments").exists()


def test_a_group_that_no_device_belongs_to_is_an_error_that_names_the_groups(home, ssh_device, tmp_path):
    fleet = inventory(tmp_path / "fleet.toml", [ssh_device.device])
    with pytest.raises((InputError, FleetError), match="default"):
        run(home, rollout={**fleet, "group": "kitchen"}).result()


def test_a_registered_release_is_rolled_out_by_hand(home, ssh_device, tmp_path):
    assert run(home).name == "Registered"
    fleet = inventory(tmp_path / "fleet.toml", [ssh_device.device])
    request = RolloutRequest(
        store=str(home / "store"), work_dir=str(home / "work"), rollout=RolloutConfig.model_validate(fleet)
    )
    assert ended(rollout(request, return_state=True)) == ("COMPLETED", "Deployed")
    silent = RolloutConfig.model_validate(inventory(tmp_path / "fleet.toml", [off(ssh_device.device)]))
    state = rollout(request.model_copy(update={"rollout": silent}), return_state=True)
    assert ended(state) == ("FAILED", "NotDeployed")


def test_a_night_on_s3_ends_like_one_on_a_directory(s3_uri, cut_off, tmp_path):
    remote = open_store(s3_uri)
    for path in sorted(file for file in (cut_off / "store/datasets").rglob("*") if file.is_file()):
        remote.upload(path, path.relative_to(cut_off / "store").as_posix())
    config = night(tmp_path).model_copy(update={"store": s3_uri})
    state = retrain(config, return_state=True)
    assert ended(state) == ("COMPLETED", "Registered")
    found = Registry(remote).champion()
    assert found and found.version in said(state)


def test_nights_that_start_from_the_champion_begin_before_there_is_one_and_name_it_afterwards(tmp_path):
    write_dataset(tmp_path / "store", per_class=30, seed=6)
    warm = {"train": {**TINY["train"], "init_from": "champion"}}
    first = run(tmp_path, **warm)
    assert first.name == "Registered"
    assert _started_from(first) == ""
    assert run(tmp_path, **warm).name == "Skipped"

    write_dataset(tmp_path / "fresh", per_class=5, seed=60)
    for path in (tmp_path / "fresh/datasets/custom/fatigue").iterdir():
        shutil.copyfile(path, tmp_path / f"store/datasets/custom/fatigue/new-{path.name}")
    before = champion(tmp_path)
    second = run(tmp_path, **warm)
    assert _started_from(second) == f"release:{before}"
    assert "test images seen before" in report_of(second).read_text()


def _started_from(state: State) -> str:
    facts = json.loads((report_of(state).parent / "experiment_config.json").read_text())
    return facts["train"]["init_from"]


def test_a_night_whose_data_has_shifted_stops_before_training_if_told_to(home, monkeypatch):
    assert run(home).name == "Registered"
    path = home / "store/datasets/fer2013/fer2013.csv"
    header, *rows = path.read_text().splitlines()
    split = [row.split(",") for row in rows]
    dark = [f"{e},{' '.join(str(int(p) // 3) for p in pixels.split())},{usage}" for e, pixels, usage in split]
    path.write_text("\n".join([header, *dark]))
    monkeypatch.setattr(flows.retrain, "train_model", _killed)
    state = run(home, drift={"stop": True})
    assert ended(state) == ("COMPLETED", "Drifted")
    assert "brightness" in said(state)
    report = report_of(state)
    page = report.read_text()
    assert "What to do" in page and "drift.stop" in page and "brightness" in page
    assert "Champion&#39;s data and tonight&#39;s" in page
    stored = {info.key for info in open_store(home / "store").list(f"experiments/{report.parent.name}")}
    assert {f"experiments/{report.parent.name}/{name}" for name in ("report.html", "drift.png")} <= stored
