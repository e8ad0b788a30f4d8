"""The program on a device that has tflite-runtime 2.14 and numpy 1, in such an environment."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from deployments.program import SOURCE
from tests.ssh_devices import SshDevice, as_device_runs, fleet_of
from tests.tflite_runtime import REQUIREMENTS

pytestmark = pytest.mark.slow


def ask(python: Path, root: Path, command: str, *words: str) -> dict[str, Any]:
    done = subprocess.run(
        [str(python), str(SOURCE), "--root", str(root), command, *words],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def root(tmp_path: Path, tiny_releases: tuple[Path, Path]) -> Path:
    as_device_runs(tmp_path / "root", tiny_releases[0])
    return tmp_path / "root"


def test_a_release_proves_itself_and_is_measured(
    root: Path, tflite_runtime_python: Path, tiny_releases: tuple[Path, Path]
) -> None:
    version = tiny_releases[0].name
    machine = ask(tflite_runtime_python, root, "inspect")["machine"]
    assert (machine["runtime"], machine["runtime_version"]) == ("tflite-runtime", "2.14.0")
    checked = ask(tflite_runtime_python, root, "check", "--version", version)
    assert checked["ok"] and checked["runtime"] == "tflite-runtime 2.14.0"
    assert checked["worst_lsb"] <= checked["allowed_lsb"] == 16
    measured = ask(tflite_runtime_python, root, "benchmark", "--version", version, "--runs", "20")
    assert measured["ok"] and 0 < measured["p50_ms"] <= measured["p99_ms"]


def test_another_model_than_the_golden_set_was_made_with_is_refused(
    root: Path, tflite_runtime_python: Path, tiny_releases: tuple[Path, Path]
) -> None:
    other = root / "releases" / tiny_releases[1].name
    shutil.copytree(tiny_releases[1], other)
    manifest = json.loads((other / "manifest.json").read_text())
    theirs = json.loads((tiny_releases[0] / "manifest.json").read_text())
    shutil.copy(tiny_releases[0] / "golden.npz", other)
    manifest["files"]["golden.npz"] = theirs["files"]["golden.npz"]
    (other / "manifest.json").write_text(json.dumps(manifest))
    refused = ask(tflite_runtime_python, root, "check", "--version", other.name)
    assert not refused["ok"] and "golden images" in refused["error"] and "tflite-runtime" in refused["error"]


def test_a_rollout_brings_such_a_device_the_release(
    ssh_device: SshDevice, tflite_runtime_python: Path, tiny_releases: tuple[Path, Path]
) -> None:
    from tests.rollouts import roll_out
    from tests.tasks.test_rollout import QUICK

    device = ssh_device.device.model_copy(update={"python": str(tflite_runtime_python)})
    (outcome,) = roll_out(tiny_releases[0], fleet_of([SshDevice(device, ssh_device.folder)]), QUICK).devices
    assert outcome.outcome == "updated" and outcome.running_release == tiny_releases[0].name
    assert outcome.benchmark and outcome.benchmark.runtime.startswith("tflite-runtime 2.14.0")


def test_every_package_of_the_devices_environments_is_pinned() -> None:
    for path in REQUIREMENTS.parent.glob("requirements-*.txt"):
        lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
        assert lines and all(line.count("==") == 1 for line in lines), path
