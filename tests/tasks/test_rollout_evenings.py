"""Evenings that no single fault makes: good and bad releases in turn, and a road that carries nothing."""

import hashlib
import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from storage.manifest import FileFacts
from tasks.benchmark import BenchmarkConfig
from tasks.rollout import RolloutConfig
from tests.benchmarks.relay import Relay
from tests.rollouts import roll_out
from tests.ssh_devices import SshDevice, StartDevices, fleet_of

CONFIG = RolloutConfig(
    measure=False,
    benchmark=BenchmarkConfig(runs=10, warmup=1, min_s=0, warmup_s=0, min_cpu_share=0),
)


def made(release: Path, folder: Path, day: int, *, good: bool = True) -> Path:
    """A release of that day; a bad one holds golden outputs that its model doesn't give."""
    model = (release / "model_int8.tflite").read_bytes() + bytes([day])
    version = f"2026020{day}-000000-{hashlib.sha256(model).hexdigest()[:8]}"
    directory = shutil.copytree(release, folder / f"good is {good}" / version)
    (directory / "model_int8.tflite").write_bytes(model)
    if not good:
        with np.load(release / "golden.npz") as golden:
            np.savez(directory / "golden.npz", inputs=golden["inputs"], outputs=golden["outputs"][::-1])
    manifest = json.loads((directory / "manifest.json").read_text())
    files = {name: FileFacts.of(directory / name).model_dump() for name in manifest["files"]}
    changed = {**manifest, "version": version, "sequence": day, "files": files}
    (directory / "manifest.json").write_text(json.dumps(changed))
    return directory


def test_good_and_bad_releases_in_turn_leave_the_fleet_on_the_last_good_one(
    ssh_devices: StartDevices, tiny_releases: tuple[Path, Path], tmp_path: Path
) -> None:
    devices = ssh_devices(2)
    days = [made(tiny_releases[0], tmp_path, day, good=day % 2 == 1) for day in range(1, 5)]
    words = [roll_out(release, fleet_of(devices), CONFIG).word for release in days]
    assert words == ["Deployed", "RolloutFailed", "Deployed", "RolloutFailed"]
    assert [device.current for device in devices] == [days[2].name] * 2
    state = json.loads((devices[0].root / "state.json").read_text())
    assert (state["previous"], state["pending"], state["sequence"]) == (days[0].name, None, 3)
    mended = made(tiny_releases[0], tmp_path, 4)
    assert roll_out(mended, fleet_of(devices), CONFIG).word == "Deployed", "it is sent whole, and judged anew"


@pytest.mark.parametrize("bytes_at_once", [1, 0])
def test_a_road_that_carries_a_byte_at_a_time_or_none_ends_within_its_time(
    ssh_device: SshDevice, tiny_releases: tuple[Path, Path], bytes_at_once: int
) -> None:
    with Relay(ssh_device.device.port, 0.02, bytes_at_once) as relay:
        slow = SshDevice(ssh_device.device.model_copy(update={"port": relay.port}), ssh_device.folder)
        started = time.monotonic()
        config = CONFIG.model_copy(update={"connect_timeout_s": 2.0})
        (outcome,) = roll_out(tiny_releases[0], fleet_of([slow]), config).devices
    assert outcome.outcome == "unreachable" and "no SSH session" in outcome.reason
    assert time.monotonic() - started < 30 and ssh_device.current is None
