"""Rollouts over real SSH: what each device runs afterwards, and what is said of it."""

import json
import shutil
from pathlib import Path

import pytest

from deployments.fleet import Device, Fleet
from deployments.ssh import connect
from storage.errors import InputError
from storage.registry import Registry
from tasks.benchmark import BenchmarkConfig
from tasks.rollout import DeviceOutcome, FleetOutcome, RolloutConfig, record, roll_out
from tests.releases import new_store
from tests.ssh_devices import SshDevice, StartDevices, fleet_of, new_key

QUICK = RolloutConfig(
    connect_timeout_s=60,  # generous: a busy machine must not look like a dead device
    command_timeout_s=120,
    confirm_within_s=300,
    benchmark=BenchmarkConfig(runs=20, warmup=2, min_cpu_share=0),
)
TOO_STRICT = QUICK.model_copy(update={"max_latency_ms": 1e-6})


def outcomes(result: FleetOutcome) -> dict[str, str]:
    return {device.device: device.outcome for device in result.devices}


@pytest.fixture
def three(ssh_devices: StartDevices) -> list[SshDevice]:
    return ssh_devices(3)


def test_every_device_runs_the_release_and_reports_its_latency(
    three: list[SshDevice], tiny_releases: tuple[Path, Path], tmp_path: Path
) -> None:
    heard: list[DeviceOutcome] = []
    result = roll_out(tiny_releases[0], fleet_of(three), QUICK, on_outcome=heard.append)
    assert result.counts == {"updated": 3, "failed": 0, "unreachable": 0, "inconclusive": 0}
    assert {device.current for device in three} == {tiny_releases[0].name} == {result.release}
    for device in result.devices:
        figures = device.benchmark
        assert figures and 0 < figures.p50_ms <= figures.p95_ms <= figures.p99_ms
        assert figures.runs == 20 and figures.fps == pytest.approx(1000 / figures.mean_ms)
        assert figures.machine.cpus and figures.runtime.startswith("ai-edge-litert ")
    assert {outcome.device for outcome in heard} == set(outcomes(result))
    assert result.accepted and result.complete
    assert [row["device"] for row in result.table()] == ["pi-1", "pi-2", "pi-3"]

    store = new_store(tmp_path / "store")
    record(Registry(store), result)
    ledger = Registry(store).devices()
    assert {facts["running_release"] for facts in ledger.values()} == {result.release}
    figures = json.loads(store.read(f"fleet/benchmarks/{result.release}/pi-2.json"))
    second = result.devices[1].benchmark
    assert second and figures["p95_ms"] == second.p95_ms and figures["machine"]["model"]


def test_the_next_release_replaces_it_and_a_repeat_changes_nothing(
    ssh_device: SshDevice, tiny_releases: tuple[Path, Path]
) -> None:
    old, new = tiny_releases
    fleet = fleet_of([ssh_device])
    ssh_device.runs(old)
    (second,) = roll_out(new, fleet, QUICK).devices
    assert (second.outcome, second.previous_release, second.running_release) == (
        "updated",
        old.name,
        new.name,
    )
    before = (ssh_device.root / "current").lstat().st_mtime_ns
    (again,) = roll_out(new, fleet, QUICK).devices
    assert (
        again.outcome == "updated"
        and again.benchmark
        and again.benchmark.runs == 20
        and "already" in again.reason
    )
    assert (ssh_device.root / "current").lstat().st_mtime_ns == before


def test_a_device_that_is_off_is_unreachable_and_the_others_are_updated(
    ssh_devices: StartDevices, tiny_releases: tuple[Path, Path]
) -> None:
    off, on = ssh_devices(2)
    off.stop()
    result = roll_out(tiny_releases[0], fleet_of([off, on]), QUICK)
    assert outcomes(result) == {"pi-1": "unreachable", "pi-2": "updated"}
    assert "is it switched on" in result.devices[0].reason and "pi-1" in result.devices[0].reason
    assert result.accepted and not result.complete and result.stopped is None


def test_another_host_key_than_the_pinned_one_is_refused_with_both_fingerprints(
    ssh_device: SshDevice, tiny_releases: tuple[Path, Path], tmp_path: Path
) -> None:
    pinned = ssh_device.device.model_copy(update={"host_key": new_key(tmp_path / "foreign")})
    (outcome,) = roll_out(tiny_releases[0], fleet_of([SshDevice(pinned, tmp_path)]), QUICK).devices
    assert outcome.outcome == "unreachable"
    assert outcome.reason.count("SHA256:") == 2 and "ssh-keygen -lf" in outcome.reason
    assert not ssh_device.root.exists()


def test_too_slow_a_release_is_not_switched_to(
    ssh_device: SshDevice, tiny_releases: tuple[Path, Path]
) -> None:
    old, new = tiny_releases
    ssh_device.runs(old)
    link = (ssh_device.root / "current").lstat().st_mtime_ns
    result = roll_out(new, fleet_of([ssh_device]), TOO_STRICT)
    (outcome,) = result.devices
    assert outcome.outcome == "failed" and "expected at most 1e-06 ms" in outcome.reason
    assert outcome.running_release == ssh_device.current == old.name
    assert (ssh_device.root / "current").lstat().st_mtime_ns == link
    assert not result.accepted and result.stopped and "pi-1" in result.stopped


def test_a_failed_canary_spares_the_other_devices(
    three: list[SshDevice], tiny_releases: tuple[Path, Path]
) -> None:
    result = roll_out(tiny_releases[0], fleet_of(three), TOO_STRICT)
    assert outcomes(result) == {"pi-1": "failed", "pi-2": "inconclusive", "pi-3": "inconclusive"}
    assert "not visited" in result.devices[2].reason
    assert not three[1].root.exists()


def test_a_stopped_rollout_takes_its_own_devices_back(
    ssh_devices: StartDevices, tiny_releases: tuple[Path, Path]
) -> None:
    old, new = tiny_releases
    first, second = devices = ssh_devices(2)
    for device in devices:
        device.runs(old)
    (second.root / "releases" / new.name).write_text("in the way: staging fails on this device")
    result = roll_out(new, fleet_of(devices), QUICK)
    assert result.stopped and not result.accepted
    assert first.current == second.current == old.name
    assert outcomes(result) == {"pi-1": "failed", "pi-2": "failed"}
    assert result.devices[0].reason.startswith("returned") and result.devices[0].running_release == old.name


def python_that(device: SshDevice, first: str) -> Device:
    """The same device with a Python of its own, which does `first` before it runs."""
    wrapper = device.folder / "python"
    wrapper.write_text(f'#!/bin/sh\n{first}\nexec {device.device.python} "$@"\n')
    wrapper.chmod(0o755)
    return device.device.model_copy(update={"python": str(wrapper)})


def test_a_device_without_the_runtime_fails_with_the_remedy(
    ssh_device: SshDevice, tiny_releases: tuple[Path, Path]
) -> None:
    bare = python_that(ssh_device, 'set -- -S "$@"')
    (outcome,) = roll_out(tiny_releases[0], Fleet(devices=(bare,)), QUICK).devices
    assert outcome.outcome == "failed" and "pip install ai-edge-litert" in outcome.reason
    assert ssh_device.current is None


def test_a_device_without_its_python_fails_and_points_to_the_inventory(
    ssh_device: SshDevice, tiny_releases: tuple[Path, Path]
) -> None:
    device = ssh_device.device.model_copy(update={"python": "/nowhere/python3"})
    (outcome,) = roll_out(tiny_releases[0], Fleet(devices=(device,)), QUICK).devices
    assert outcome.outcome == "failed" and "`python` in the inventory" in outcome.reason


def test_a_damaged_release_is_refused_before_any_device_is_spoken_to(
    ssh_device: SshDevice, tiny_releases: tuple[Path, Path], tmp_path: Path
) -> None:
    copy = tmp_path / tiny_releases[0].name
    shutil.copytree(tiny_releases[0], copy)
    (copy / "model_int8.tflite").write_bytes(b"rot")
    with pytest.raises(InputError, match=r"model_int8\.tflite differ"):
        roll_out(copy, fleet_of([ssh_device]), QUICK)
    assert not ssh_device.root.exists()


def test_a_connection_lost_after_the_switch_ends_on_the_release_before(
    ssh_device: SshDevice, tiny_releases: tuple[Path, Path]
) -> None:
    """The connection's server dies under the check that follows the switch."""
    old, new = tiny_releases
    ssh_device.runs(old)
    # $PPID is the connection's own sshd: a login shell replaces itself by its only command
    dying = python_that(ssh_device, 'case "$*" in *" check "*--current*) kill -9 $PPID; exit 1;; esac')
    (outcome,) = roll_out(new, Fleet(devices=(dying,)), QUICK).devices
    assert outcome.outcome == "failed" and "connection lost" in outcome.reason
    assert outcome.reason.endswith(f"returned to {old.name}")
    assert outcome.running_release == ssh_device.current == old.name


def test_a_throttled_device_is_inconclusive_and_keeps_its_release(
    ssh_device: SshDevice, tiny_releases: tuple[Path, Path]
) -> None:
    old, new = tiny_releases
    ssh_device.runs(old)
    # what a Pi's firmware answers when the power supply is too weak
    vcgencmd = ssh_device.folder / "bin" / "vcgencmd"
    vcgencmd.parent.mkdir()
    vcgencmd.write_text("#!/bin/sh\necho throttled=0x50005\n")
    vcgencmd.chmod(0o755)
    weak = python_that(ssh_device, f"export PATH={vcgencmd.parent}:$PATH")
    (outcome,) = roll_out(new, Fleet(devices=(weak,)), QUICK).devices
    assert (outcome.outcome, outcome.reason) == ("inconclusive", "throttled: under-voltage, throttled")
    assert ssh_device.current == old.name


def test_an_upload_that_broke_off_is_gone_on_with(
    ssh_device: SshDevice, tiny_releases: tuple[Path, Path]
) -> None:
    incoming = ssh_device.root / "incoming" / tiny_releases[0].name
    incoming.mkdir(parents=True)
    (incoming / "model_int8.tflite").write_bytes(b"half a mod")
    (incoming / "golden.npz.17.part").write_bytes(b"left behind")
    (outcome,) = roll_out(tiny_releases[0], fleet_of([ssh_device]), QUICK).devices
    assert outcome.outcome == "updated"
    assert not incoming.exists()


def test_ssh_leaves_no_connection_behind(ssh_device: SshDevice) -> None:
    with connect(ssh_device.device) as connection:
        assert connection.run(["true"]).exit_status == 0
        transport = connection._transport
    assert not transport.is_alive() or not transport.is_active()
