"""Rollouts as flows: what Prefect sees of each device, and what is promoted by hand."""

import resource
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.runtime import task_run

from deployments.fleet import Device, Fleet
from flows.benchmark import FleetBenchmarkRequest, benchmark_fleet
from flows.logs import log_our_errors_in_one_line
from flows.promote import promote
from flows.rollout import RolloutRequest, rollout
from storage.errors import StoreError
from storage.identity import store_identity
from storage.registry import Registry
from tasks.benchmark import BenchmarkConfig
from tasks.fleet_benchmark import DeviceBenchmark, FleetBenchmarkConfig, draw_history, keep
from tasks.rollout import RolloutConfig, per_device
from tasks.rollout.outcome import DeviceOutcome, FleetOutcome
from tasks.rollout.payload import Payload
from tasks.rollout.per_device import bring_with, serve_with, take_back_with
from tasks.rollout.waves import in_waves
from tests.ports import free_port
from tests.releases import make_champion, new_store
from tests.ssh_devices import SshDevice, write_inventory
from tests.tasks.small_run import latency
from tests.tasks.test_rollout_waves import fleet
from tests.waiting import wait_until

PAYLOAD = Payload("new", Path(), "", None, max_latency_ms=200)
SEEN = datetime(2026, 1, 31, tzinfo=UTC)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the task runs in which devices are spoken to; device 3 fails, and the rest is updated."""
    seen: list[str] = []

    def visit(device: Device, payload: Payload, config: RolloutConfig, hear: object) -> DeviceOutcome:
        seen.append(name := str(task_run.get_name()))
        wait_until(
            lambda: not name.endswith(" of 2") or len({one for one in seen if one.endswith(" of 2")}) == 2
        )
        kind, running = ("failed", "old") if device.name == "3" else ("updated", "new")
        facts = {"device": device.name, "outcome": kind, "reason": "why", "running_release": running}
        return DeviceOutcome.model_validate({**facts, "previous_release": "old", "seen_at": SEEN})

    def measure(
        device: Device, payload: Payload, config: RolloutConfig, outcome: DeviceOutcome
    ) -> DeviceOutcome:
        seen.append(str(task_run.get_name()))
        return outcome

    def take_back(device: Device, version: str, config: RolloutConfig, why: str) -> DeviceOutcome:
        seen.append(str(task_run.get_name()))
        reason = f"returned: {why}"
        return DeviceOutcome(device=device.name, outcome="failed", reason=reason, running_release="old")

    monkeypatch.setattr(per_device, "visit", visit)
    monkeypatch.setattr(per_device, "measure_updated", measure)
    monkeypatch.setattr(per_device, "return_device", take_back)
    monkeypatch.setattr("tasks.rollout.waves.visit", visit)
    monkeypatch.setattr("tasks.rollout.waves.measure_updated", measure)
    return seen


@flow(name="a-rollout")
def a_rollout(devices: Fleet, config: RolloutConfig) -> FleetOutcome:
    bring, take_back = bring_with(devices, PAYLOAD, config, print), take_back_with(PAYLOAD, config)
    return in_waves(devices, PAYLOAD, config, bring, take_back, serve=serve_with(devices))


@pytest.mark.usefixtures("prefect_server")
def test_each_visit_benchmark_and_return_is_a_task_named_by_its_device(names: list[str]) -> None:
    outcome = a_rollout(fleet(4), RolloutConfig(max_parallel=1, waves=(1.0,)))
    assert names == ["visit 1", "benchmark 1", "visit 2", "benchmark 2", "visit 3", "return 1", "return 2"]
    assert outcome.word == "RolloutFailed" and len(outcome.failed) == 3


@pytest.mark.usefixtures("prefect_server", "names")
def test_the_way_back_is_no_failed_task_and_nothing_dumps_what_a_state_carries(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[State] = []
    outcome_of = per_device._outcome  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(per_device, "_outcome", lambda state: (ended.append(state), outcome_of(state))[1])
    log_our_errors_in_one_line()
    a_rollout(fleet(3), RolloutConfig(max_parallel=1, waves=(1.0,)))
    names = [state.name for state in ended]
    assert names.count("Returned") == 2 and names.count("Failed") == 1
    assert "Finished in state Failed('why')" in caplog.text and "DeviceOutcome(" not in caplog.text


@pytest.mark.usefixtures("prefect_server")
def test_a_large_fleet_is_served_in_lanes_each_a_task(
    names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(per_device, "LARGE", 6)
    config = RolloutConfig(max_parallel=2, waves=(1.0,), max_failures_per_wave=1)
    outcome = a_rollout(fleet(8), config)
    assert len(outcome.updated) == 7 and outcome.stopped is None
    assert set(names) == {"wave 1: lane 1 of 1", "wave 2: lane 1 of 2", "wave 2: lane 2 of 2"}


@pytest.mark.usefixtures("prefect_server")
def test_ctrl_c_lets_each_lane_end_with_the_device_it_serves(
    ctrl_c: Callable[[], None], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ending, begun, done = threading.Event(), [], []
    close = per_device.Queue.close
    monkeypatch.setattr(per_device, "LARGE", 6)
    monkeypatch.setattr(per_device.Queue, "close", lambda queue: (close(queue), ending.set()))

    def work(device: Device) -> None:
        begun.append(device.name)
        if device.name == "2":
            ctrl_c()
        assert ending.wait(60)
        done.append(device.name)

    @flow
    def served() -> None:
        serve_with(fleet(8))("wave 1", fleet(8).devices, work, 2)

    with pytest.raises(KeyboardInterrupt):
        served()
    assert sorted(begun) == sorted(done) == ["1", "2"]
    assert caplog.text.count("told to end: the devices under way come to their end first") == 1


# ---------------------------------------------------------------- on real devices


QUICK = BenchmarkConfig(runs=10, warmup=1, min_s=0, warmup_s=0, min_cpu_share=0)


def run_of(state: State) -> FlowRun:
    with get_client(sync_client=True) as client:
        return client.read_flow_run(UUID(str(state.state_details.flow_run_id)))


@pytest.mark.usefixtures("prefect_server")
def test_an_older_release_is_brought_back_by_promoting_it_and_not_by_sending_it(
    ssh_device: SshDevice, tiny_releases: tuple[Path, Path], tmp_path: Path
) -> None:
    old, new = (release.name for release in tiny_releases)
    store = new_store(tmp_path / "store")
    registry, champion = Registry(store), make_champion(store, tiny_releases[0])
    registry.publish(tiny_releases[1], store_id=store_identity(store))
    config = RolloutConfig(
        inventory=write_inventory(tmp_path / "fleet.toml", ssh_device.device), measure=False, benchmark=QUICK
    )

    def roll_out(version: str) -> State:
        request = RolloutRequest(
            store=str(tmp_path / "store"), release=version, rollout=config, work_dir=str(tmp_path / "work")
        )
        return rollout(request, return_state=True)

    assert [roll_out(version).name for version in (old, new)] == ["Deployed", "Deployed"]
    refused = roll_out(old)
    assert refused.name == "RolloutFailed" and "going back needs an order" in str(refused.message)
    assert run_of(refused).name.endswith(f" rollout {old}")
    assert ssh_device.current == new and registry.devices()["pi-1"]["running_release"] == new

    assert promote(str(tmp_path / "store"), new).previous == champion
    assert registry.rollback_order(new) is None, "it is the newest"
    assert promote(str(tmp_path / "store"), old).version == old
    assert roll_out("champion").name == "Deployed" and ssh_device.current == old


@pytest.mark.usefixtures("prefect_server")
def test_a_fleet_is_measured_without_a_rollout_and_keeps_a_history(
    ssh_device: SshDevice, tiny_releases: tuple[Path, Path], tmp_path: Path
) -> None:
    store = new_store(tmp_path / "store")
    version = make_champion(store, tiny_releases[0])
    ssh_device.runs(tiny_releases[0])
    off = ssh_device.device.model_copy(update={"name": "off", "port": free_port(), "host_key": OTHER_KEY})
    request = FleetBenchmarkRequest(
        store=str(tmp_path / "store"),
        inventory=write_inventory(tmp_path / "fleet.toml", ssh_device.device, off),
        measuring=FleetBenchmarkConfig(threads=(1, 2), benchmark=QUICK),
    )
    state = benchmark_fleet(request, return_state=True)
    assert state.name == "Measured" and str(state.message).startswith("1 of 2 devices measured, p95 up to ")
    assert "off: device off" in str(state.message)
    (figures,) = Registry(store).benchmarks("pi-1")
    assert figures["release"] == version and isinstance(by := figures["by_threads"], dict)
    assert [each["threads"] for each in by.values()] == [1, 2]
    assert ssh_device.current == version


OTHER_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8g"
FIRST, SECOND = "20260101-000000-00000000", "20260102-000000-00000000"


def measured(release: str, p50_ms: float, day: int) -> DeviceBenchmark:
    at = datetime(2026, 1, day, tzinfo=UTC)
    return DeviceBenchmark(device="a", release=release, measured_at=at, figures=(latency(p50_ms),))


def test_a_device_is_compared_with_itself_under_the_release_before(tmp_path: Path) -> None:
    registry = Registry(new_store(tmp_path))
    assert keep(registry, measured(FIRST, 10, 1)).verdict == "within no limit known"
    assert keep(registry, measured(FIRST, 10, 2)).before_ms is None
    found = keep(registry, measured(SECOND, 15, 3))
    assert found.before_ms == 12 and found.verdict.endswith("; +50% of the release before")
    assert found.model_copy(update={"limit_ms": 17.0}).verdict.startswith("over at most 17 ms")
    row = found.row()
    assert (row["device"], row["p50 ms"], row["p99 ms"]) == ("a", 15, "≈ 22.500")
    picture = draw_history(registry, ["a", "unknown"], tmp_path / "history.png")
    assert picture and picture.read_bytes()[:4] == b"\x89PNG"
    assert draw_history(registry, ["unknown"], tmp_path / "none.png") is None


def test_a_picture_of_the_fleet_that_the_disk_has_no_room_for_is_refused_by_name(tmp_path: Path) -> None:
    registry, picture = Registry(new_store(tmp_path)), tmp_path / "history.png"
    keep(registry, measured(FIRST, 10, 1))
    draw_history(registry, ["a"], picture)  # Matplotlib writes its own caches the first time
    before = picture.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(StoreError, match=f"can't write {picture}"):
            draw_history(registry, ["a"], picture)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert picture.read_bytes() == before and [each.name for each in tmp_path.glob("*.png")] == [picture.name]
