"""`stress-vision up` as a person starts and stops it, and as the night finds it."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.up import ROOT
from tests.ssh_devices import free_port

_DEADLINE_S = 120


@pytest.fixture(params=["checkout", "wheel"])
def code(request: pytest.FixtureRequest) -> Path:
    """Where the packages lie that `up` runs."""
    return ROOT if request.param == "checkout" else request.getfixturevalue("installed_wheel")


@pytest.mark.slow
def test_up_deploys_starts_what_is_scheduled_and_goes_away_when_told_to(code: Path, tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "store/datasets").mkdir(parents=True)
    (tmp_path / "store/datasets/list.txt").touch()
    # a user's shell knows nothing of the server that other tests share, which does without a scheduler
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment = {
        **ours,
        "PYTHONPATH": str(code),
        "PREFECT_HOME": str(tmp_path),
        "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "2",
        "STRESS_VISION_STORE": str(tmp_path / "store"),
        "STRESS_VISION_WORK": str(tmp_path / "work"),
    }
    command = [sys.executable, "-m", "flows.cli", "up", "--port", str(port)]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    hanging = threading.Timer(300, process.kill)
    hanging.start()
    try:
        ready = next((line for line in process.stdout if line.startswith("Ready")), None)
        assert ready == f"Ready: http://127.0.0.1:{port}/deployments\n"
        deployments = {one["name"]: one for one in _ask(port, "deployments/filter", {})}
        configured = yaml.safe_load((code / "flows/prefect.yaml").read_text())["deployments"]
        assert set(deployments) == {one["name"] for one in configured}
        assert all(str(code) in json.dumps(one["pull_steps"]) for one in deployments.values())
        assert deployments["nightly"]["global_concurrency_limit"]["limit"] == 1
        _check_that_nights_are_scheduled(port, deployments["nightly"])
        _check_that_a_scheduled_run_starts_and_ends(port, deployments["release"])
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
        process.stdout.close()
        hanging.cancel()
    with pytest.raises(OSError):
        _ask(port, "deployments/filter", {})


def _check_that_nights_are_scheduled(port: int, nightly: dict[str, Any]) -> None:
    """The cron string alone starts nothing: the server's scheduler has to have made runs of it."""
    runs = _wait_for(lambda: _runs(port, nightly))
    starts = {datetime.fromisoformat(run["expected_start_time"]).strftime("%H:%M") for run in runs}
    assert starts == {"02:15"}
    assert {run["state_type"] for run in runs} == {"SCHEDULED"}


def _check_that_a_scheduled_run_starts_and_ends(port: int, release: dict[str, Any]) -> None:
    """There is no release to roll out yet: that the run says so is proof that it was our code."""
    soon = datetime.now(UTC) + timedelta(seconds=8)
    schedule = {"interval": 86_400, "anchor_date": soon.isoformat(), "timezone": "UTC"}
    _ask(port, f"deployments/{release['id']}/schedules", [{"schedule": schedule, "active": True}])
    ended = _wait_for(lambda: [run for run in _runs(port, release) if run["end_time"]])
    assert datetime.fromisoformat(ended[0]["expected_start_time"]) == soon
    assert ended[0]["state_name"] == "Failed"
    assert "no champion yet" in ended[0]["state"]["message"]


def _wait_for(found: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    deadline = time.monotonic() + _DEADLINE_S
    while not (runs := found()):
        assert time.monotonic() < deadline, "the server made or ended no run in time"
        time.sleep(0.5)
    return runs


def _runs(port: int, deployment: dict[str, Any]) -> list[dict[str, Any]]:
    return _ask(port, "flow_runs/filter", {"deployments": {"id": {"any_": [deployment["id"]]}}})


def _ask(port: int, path: str, content: Any) -> Any:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/api/{path}",
        data=json.dumps(content).encode(),
        headers={"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)
