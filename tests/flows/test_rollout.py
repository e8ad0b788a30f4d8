"""Rollouts as flows: what Prefect sees of each device, and what is promoted by hand."""

import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prefect import flow
from prefect.runtime import task_run

from deployments.fleet import Device, Fleet
from tasks.rollout import RolloutConfig, per_device
from tasks.rollout.outcome import DeviceOutcome, FleetOutcome
from tasks.rollout.per_device import bring_with, serve_with, take_back_with
from tasks.rollout.visit import Payload
from tasks.rollout.waves import in_waves
from tests.tasks.test_rollout_waves import fleet

PAYLOAD = Payload("new", Path(), "", None, max_latency_ms=200)
SEEN = datetime(2026, 1, 31, tzinfo=UTC)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the task runs in which devices are spoken to; device 3 fails, and the rest is updated."""
    seen: list[str] = []

    def visit(device: Device, payload: Payload, config: RolloutConfig, hear: object) -> DeviceOutcome:
        seen.append(str(task_run.get_name()))
        time.sleep(0.1)  # long enough for another lane to take the next one
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
        return DeviceOutcome(device=device.name, outcome="failed", reason=why, running_release="old")

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
    assert outcome.word == "RolloutFailed" and outcome.counts["failed"] == 3


@pytest.mark.usefixtures("prefect_server")
def test_a_large_fleet_is_served_in_lanes_each_a_task(
    names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(per_device, "LARGE", 6)
    config = RolloutConfig(max_parallel=2, waves=(1.0,), max_failures_per_wave=1)
    outcome = a_rollout(fleet(8), config)
    assert outcome.counts["updated"] == 7 and outcome.stopped is None
    assert set(names) == {"wave 1: lane 1 of 1", "wave 2: lane 1 of 2", "wave 2: lane 2 of 2"}
