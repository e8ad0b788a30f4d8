"""The demo's device: the same road as to a real one, on any machine."""

from pathlib import Path

import pytest

from deployments.demo_device import demo_device
from deployments.fleet import load_fleet
from deployments.ssh import connect
from storage.errors import DeviceError
from tasks.benchmark import BenchmarkConfig
from tasks.rollout import RolloutConfig
from tests.rollouts import roll_out
from tests.ssh_devices import new_key


def test_a_release_reaches_the_demo_device_over_ssh(tmp_path: Path, tiny_releases: tuple[Path, Path]) -> None:
    config = RolloutConfig(benchmark=BenchmarkConfig(runs=10, min_s=0, warmup_s=0, min_cpu_share=0))
    with demo_device(tmp_path / "a folder") as inventory:
        (outcome,) = roll_out(tiny_releases[0], load_fleet(inventory), config).devices
    assert outcome.outcome == "updated" and outcome.benchmark and outcome.benchmark.runs == 10
    assert (tmp_path / "a folder/root/current/model_int8.tflite").is_file()


def test_the_demo_device_opens_for_its_own_key_only(tmp_path: Path) -> None:
    new_key(tmp_path / "stranger")
    with demo_device(tmp_path / "device") as inventory:
        (device,) = load_fleet(inventory).devices
        stranger = device.model_copy(update={"key_file": tmp_path / "stranger"})
        with pytest.raises(DeviceError, match="refuses the key"), connect(stranger):
            pass
        with connect(device) as connection:
            assert connection.run(["sh", "-c", "cat; exit 3"], stdin=b"in").exit_status == 3
    assert (tmp_path / "device/client_key").stat().st_mode & 0o077 == 0


def test_the_demo_device_is_gone_with_its_block(tmp_path: Path) -> None:
    with demo_device(tmp_path) as inventory:
        (device,) = load_fleet(inventory).devices
    with pytest.raises(DeviceError, match="can't be reached"), connect(device):
        pass
