"""Rollouts over real SSH: what each device runs afterwards, and what is said of it."""

import json
import py_compile
import shutil
from pathlib import Path

import pytest

from deployments.fleet import Device, Fleet
from deployments.program import SOURCE
from deployments.ssh import connect
from storage.errors import InputError
from storage.registry import Registry
from tasks.benchmark import BenchmarkConfig
from tasks.rollout import DeviceOutcome, FleetOutcome, RolloutConfig
from tests.processes import pids_with
from tests.releases import new_store
from tests.rollouts import record, roll_out
from tests.ssh_devices import SshDevice, StartDevices, fleet_of, new_key
from tests.waiting import wait_until

QUICK = RolloutConfig(
    connect_timeout_s=60,  # generous: a busy machine must not look like a dead device
    command_timeout_s=120,
    confirm_within_s=300,
    benchmark=BenchmarkConfig(runs=20, warmup=2, min_s=0, warmup_s=0, min_cpu_share=0),
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
    assert result.complete
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
    (figures,) = Registry(store).benchmarks("pi-2")
    second = result.devices[1].benchmark
    assert second and figures["p95_ms"] == second.p95_ms and figures["machine"]


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


def test_too_slow_a_release_is_not_switched_to_and_where_the_one_before_is_too_it_is_the_device(
    ssh_devices: StartDevices, tiny_releases: tuple[Path, Path]
) -> None:
    old, new = tiny_releases
    bare, ssh_device = ssh_devices(2)
    result = roll_out(new, fleet_of([bare]), TOO_STRICT)
    assert result.devices[0].outcome == "failed" and bare.current is None
    assert not result.accepted and result.stopped and "pi-1" in result.stopped
    ssh_device.runs(old)
    link = (ssh_device.root / "current").lstat().st_mtime_ns
    result = roll_out(new, fleet_of([ssh_device]), TOO_STRICT)
    (outcome,) = result.devices
    assert outcome.outcome == "faulty" and f"so does {old.name}" in outcome.reason
    assert outcome.running_release == ssh_device.current == old.name
    assert (ssh_device.root / "current").lstat().st_mtime_ns == link and not result.accepted


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
    wrong = python_in_which(second, new.name, "os.kill(os.getpid(), 11)")
    result = roll_out(new, Fleet(devices=(first.device, wrong)), QUICK)
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


def python_with(device: SshDevice, code: str) -> Device:
    """The same device, each Python of which runs `code` as it starts."""
    (device.folder / "sitecustomize.py").write_text(f"import os, sys\n{code}\n")
    return python_that(device, f"export PYTHONPATH={device.folder}")


_OPENING = """
import ai_edge_litert.interpreter as runtime
opens = runtime.Interpreter
def opening(model_path, **options):
    if {version!r} in os.path.realpath(model_path):
        {does}
    return opens(model_path=model_path, **options)
runtime.Interpreter = opening
"""


def python_in_which(device: SshDevice, version: str, does: str) -> Device:
    """The same device, on which a release, and only it, does something as it is opened."""
    return python_with(device, _OPENING.format(version=version, does=does))


def test_a_device_without_the_runtime_is_at_fault_and_says_the_remedy(
    ssh_device: SshDevice, tiny_releases: tuple[Path, Path]
) -> None:
    bare = python_with(ssh_device, "sys.modules['ai_edge_litert'] = sys.modules['tflite_runtime'] = None")
    (outcome,) = roll_out(tiny_releases[0], Fleet(devices=(bare,)), QUICK).devices
    assert outcome.outcome == "faulty" and "pip install ai-edge-litert" in outcome.reason
    assert ssh_device.current is None


def test_a_device_without_its_python_is_at_fault_and_points_to_the_inventory(
    ssh_device: SshDevice, tiny_releases: tuple[Path, Path]
) -> None:
    device = ssh_device.device.model_copy(update={"python": "/nowhere/python3"})
    (outcome,) = roll_out(tiny_releases[0], Fleet(devices=(device,)), QUICK).devices
    assert outcome.outcome == "faulty" and "`python` in the inventory" in outcome.reason


def test_a_damaged_release_is_refused_before_any_device_is_spoken_to(
    ssh_device: SshDevice, tiny_releases: tuple[Path, Path], tmp_path: Path
) -> None:
    copy = tmp_path / tiny_releases[0].name
    shutil.copytree(tiny_releases[0], copy)
    (copy / "model_int8.tflite").write_bytes(b"rot")
    with pytest.raises(InputError, match=r"model_int8\.tflite differ"):
        roll_out(copy, fleet_of([ssh_device]), QUICK)
    assert not ssh_device.root.exists()


def test_a_model_that_hangs_is_off_the_device_within_its_time_box_and_counts_against_the_release(
    ssh_device: SshDevice, tiny_releases: tuple[Path, Path]
) -> None:
    old, new = tiny_releases
    ssh_device.runs(old)
    spinning = python_in_which(ssh_device, new.name, "while True: pass")
    config = QUICK.model_copy(update={"command_timeout_s": 5.0})
    result = roll_out(new, Fleet(devices=(spinning,)), config)
    assert result.stopped and f"{new.name} hangs: no end within 5 s" in result.stopped
    wait_until(lambda: not pids_with(str(ssh_device.root)))  # what served us ends once its session is closed
    assert ssh_device.current == old.name


def test_a_device_that_the_program_before_left_is_updated_and_rid_of_it(
    ssh_device: SshDevice, tiny_releases: tuple[Path, Path]
) -> None:
    """Its state has fewer fields, its releases no mark that they were proven, and its timer a link."""
    old, new = tiny_releases
    ssh_device.runs(old)
    before = ssh_device.root / "program" / "device-0123456789abcdef.py"
    before.parent.mkdir()
    before.write_text("print('the program before')")
    kept = Path(py_compile.compile(str(before)) or "")
    arriving = before.with_suffix(".py.77.part")  # from another machine
    arriving.touch()
    (ssh_device.root / "device.py").symlink_to("program/device-0123456789abcdef.py")
    state = {"previous": None, "pending": None, "last_return": None}
    (ssh_device.root / "state.json").write_text(json.dumps(state))
    (outcome,) = roll_out(new, fleet_of([ssh_device]), QUICK).devices
    assert (outcome.outcome, outcome.running_release, ssh_device.current) == ("updated", new.name, new.name)
    assert not before.exists() and (ssh_device.root / "device.py").resolve().exists()
    assert not kept.exists() and arriving.exists()


def test_an_agent_behind_a_forced_command_is_updated_and_obeys_nothing_else(
    ssh_device: SshDevice, tiny_releases: tuple[Path, Path]
) -> None:
    """The key may start one program, which somebody else installed: no shell, no upload of a program."""
    keys = ssh_device.folder / "authorized_keys"
    agent = f"{ssh_device.device.python} {SOURCE} --root {ssh_device.root} --within-s 60 serve --agent"
    keys.write_text(f'command="{agent}",restrict {keys.read_text()}')
    (outcome,) = roll_out(tiny_releases[0], fleet_of([ssh_device]), QUICK).devices
    assert (outcome.outcome, ssh_device.current) == ("updated", tiny_releases[0].name)
    assert not (ssh_device.root / "program").exists()
    with connect(ssh_device.device) as connection:
        said = connection.run(["touch", str(ssh_device.folder / "obeyed")], stdin=b"").stdout
    assert json.loads(said)["agent"] is True and not (ssh_device.folder / "obeyed").exists()


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
