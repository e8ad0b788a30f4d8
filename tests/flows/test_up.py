"""`stress-vision up` as a person starts and stops it."""

import json
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

import pytest
import yaml

from tests.ssh_devices import free_port

PREFECT_YAML = Path(__file__).parents[2] / "prefect.yaml"


@pytest.mark.slow
def test_up_deploys_the_schedule_and_goes_away_when_told_to(tmp_path):
    port = free_port()
    environment = {**os.environ, "PREFECT_HOME": str(tmp_path), "STRESS_VISION_WORK": str(tmp_path / "work")}
    command = [sys.executable, "-m", "flows.cli", "up", "--port", str(port)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    hanging = threading.Timer(240, process.kill)
    hanging.start()
    try:
        ready = next((line for line in process.stdout if line.startswith("Ready")), None)
        assert ready == f"Ready: http://127.0.0.1:{port}/deployments\n"
        deployments = {one["name"]: one for one in _deployments(port)}
        configured = yaml.safe_load(PREFECT_YAML.read_text())["deployments"]
        assert set(deployments) == {one["name"] for one in configured}
        assert deployments["nightly"]["schedules"][0]["schedule"]["cron"] == "15 2 * * *"
        assert deployments["nightly"]["global_concurrency_limit"]["limit"] == 1
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
        process.stdout.close()
        hanging.cancel()
    with pytest.raises(OSError):
        _deployments(port)


def _deployments(port: int) -> list[dict]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/api/deployments/filter",
        data=b"{}",
        headers={"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)
