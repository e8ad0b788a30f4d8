"""`stress-vision up` as a person starts and stops it, and as the night finds it."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.unit import unit
from flows.up import ROOT, Services
from storage.errors import StressVisionError
from storage.lease import exclusively
from tests.ports import free_port
from tests.up_process import Up, wait_for


@pytest.fixture(params=["checkout", "wheel"])
def code(request: pytest.FixtureRequest) -> Path:
    """Where the packages lie that `up` runs."""
    return ROOT if request.param == "checkout" else request.getfixturevalue("installed_wheel")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "store/datasets/fer2013").mkdir(parents=True)
    (tmp_path / "store/datasets/fer2013/fer2013.csv").touch()
    return tmp_path


@pytest.mark.slow
def test_up_deploys_starts_what_is_scheduled_and_goes_away_when_told_to(code: Path, home: Path) -> None:
    up = Up(home, code)
    with up.running():
        deployments = {one["name"]: one for one in up.ask("deployments/filter", {})}
        configured = yaml.safe_load((code / "flows/prefect.yaml").read_text())["deployments"]
        assert set(deployments) == {one["name"] for one in configured}
        assert all(str(code) in json.dumps(one["pull_steps"]) for one in deployments.values())
        assert deployments["nightly"]["global_concurrency_limit"]["limit"] == 1
        _check_that_nights_are_scheduled(up)
        _check_that_a_scheduled_run_starts_and_ends(up)
        assert _automations(up) == ["stress-vision: runs that fell silent"]
    with pytest.raises(OSError):
        up.ask("deployments/filter", {})


@pytest.mark.slow
def test_a_dead_worker_is_replaced_and_runs_that_are_late_after_a_downtime_all_come_to_their_end(
    home: Path,
) -> None:
    """One after the other, and none is cancelled, nor the one that the worker was about to begin; nor are
    things set up twice by a second start."""
    up = Up(home)
    with up.running() as process:
        taken = up.begin("release", {})
        wait_for(lambda: up.run(taken)["state_type"] == "PENDING")
        (worker,) = up.processes("worker start")
        os.kill(worker, signal.SIGKILL)
        assert process.stdout
        assert any("the worker ended with status -9: starting it again" in line for line in process.stdout)
        assert up.ended(taken)["state_name"] == "Failed"
        kept = up.ask("automations/filter", {})
        slot = [up.deployment("nightly")["global_concurrency_limit"]["name"]]
        held = up.ask("v2/concurrency_limits/increment-with-lease", {"names": slot, "slots": 1})["lease_id"]
        soon = datetime.now(UTC) + timedelta(seconds=20)
        due = [up.begin("release", {}, at=soon) for _ in range(3)]
        scheduled = _schedule(up, "fleet", in_s=20)
        assert wait_for(lambda: _runs(up, "fleet"))
    with up.running():
        # a run under way would take the refusal of its slot for an order to end
        up.ask(f"v2/concurrency_limits/leases/{held}/renew", {"lease_duration": 300})
        late = [up.ended(run, within_s=400) for run in due]
        made_up = wait_for(lambda: [run for run in _runs(up, "fleet") if run["end_time"]], within_s=400)
        assert [datetime.fromisoformat(run["expected_start_time"]) for run in made_up] == [scheduled]
        assert {run["state_name"] for run in late} == {"Failed"}
        starts = sorted((run["start_time"], run["end_time"]) for run in late)
        assert all(end <= start for (_, end), (start, _) in pairwise(starts))
        # the same to its ids: an update would forget the runs that it watches
        assert up.ask("automations/filter", {}) == kept


def test_a_port_that_is_taken_is_named_before_anything_begins(home: Path) -> None:
    with socket.socket() as another:
        another.bind(("127.0.0.1", 0))
        another.listen()
        port = another.getsockname()[1]
        said = _refused(Up(home, port=port))
    assert f"port {port}" in said and "--port" in said
    assert not list(home.glob("*.db"))


def test_pages_that_can_not_be_served_end_neither_server_nor_worker(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Somebody took their port after all was checked."""
    services = Services(free_port(), tmp_path)
    services.start("server", "http.server", "--bind", "127.0.0.1", str(free_port()))
    services.start("reports", "http.server", "--bind", "127.0.0.1", "no port")
    try:
        while "reports are not served any more" not in (said := capsys.readouterr().out):
            services.start_ended()
            time.sleep(0.1)
        assert "5th end within 10 minutes" in said and str(tmp_path / "reports.log") in said
        services.start("another", "http.server", "no port")
        with pytest.raises(StressVisionError, match="the another ended with status"):
            wait_for(services.start_ended)
    finally:
        services.stop()


def test_a_second_up_on_the_same_prefect_home_is_refused_and_names_the_first(home: Path) -> None:
    with exclusively(home / "stress-vision-up"):
        said = _refused(Up(home))
    assert f"in use by process {os.getpid()}" in said and "Traceback" not in said


def test_paths_that_count_from_here_are_absolute_for_what_starts_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STRESS_VISION_STORE", "store")
    monkeypatch.setenv("STRESS_VISION_INVENTORY", "~/fleet.toml")
    assert f'Environment="STRESS_VISION_STORE={tmp_path}/store"\n' in unit(4300)
    services = Services(4300, tmp_path)
    services.start("worker", "timeit", "-n1", "-r1", "import os; print(os.environ['STRESS_VISION_STORE'])")
    try:
        wait_for(lambda: f"{tmp_path}/store\n" in (tmp_path / "worker.log").read_text())
    finally:
        services.stop()


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
def test_systemd_takes_the_unit_and_every_setting_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STRESS_VISION_STORE", '/it\'s a "$STORE" of 100 %h\\n')
    monkeypatch.setattr(sys, "executable", str(shutil.copy("/bin/true", tmp_path / "100 %h $HOME")))
    path = tmp_path / "stress-vision.service"
    path.write_text(unit(4300))
    command = ["systemd-analyze", "verify", "--user", path]
    environment = os.environ | {"XDG_RUNTIME_DIR": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_unit_starts_this_installation_with_its_settings_and_without_its_secrets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("STRESS_VISION_STORE", "s3://faces/100%")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    printed = unit(4300)
    assert f"ExecStart={sys.executable} -m flows.cli up --port 4300\n" in printed
    assert 'Environment="STRESS_VISION_STORE=s3://faces/100%%"\n' in printed
    assert "hush" not in printed


def _refused(up: Up) -> str:
    process = up.start()
    said, _ = process.communicate(timeout=180)
    assert process.returncode == 1
    return said


def _automations(up: Up) -> list[str]:
    return [one["name"] for one in up.ask("automations/filter", {})]


def _check_that_nights_are_scheduled(up: Up) -> None:
    """The cron string alone starts nothing: the server's scheduler has to have made runs of it."""
    runs = wait_for(lambda: _runs(up, "nightly"))
    starts = {datetime.fromisoformat(run["expected_start_time"]).strftime("%H:%M") for run in runs}
    assert starts == {"02:15"}
    assert {run["state_type"] for run in runs} == {"SCHEDULED"}


def _check_that_a_scheduled_run_starts_and_ends(up: Up) -> None:
    """There is no release to roll out yet: that the run says so is proof that it was our code."""
    soon = _schedule(up, "release")
    ended = wait_for(lambda: [run for run in _runs(up, "release") if run["end_time"]])
    assert datetime.fromisoformat(ended[0]["expected_start_time"]) == soon
    assert ended[0]["state_name"] == "Failed"
    assert "no champion yet" in ended[0]["state"]["message"]


def _schedule(up: Up, name: str, in_s: float = 8) -> datetime:
    soon = datetime.now(UTC) + timedelta(seconds=in_s)
    schedule = {"interval": 86_400, "anchor_date": soon.isoformat(), "timezone": "UTC"}
    path = f"deployments/{up.deployment(name)['id']}/schedules"
    up.ask(path, [{"schedule": schedule, "active": True}])
    return soon


def _runs(up: Up, name: str) -> list[dict[str, Any]]:
    return up.ask("flow_runs/filter", {"deployments": {"id": {"any_": [up.deployment(name)["id"]]}}})
