"""A run that hangs ends by itself, and says so."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL

from flows.time_limit import time_limit

_HANGS = """
import signal
from prefect import flow
from flows.time_limit import time_limit

@flow(name="hangs")
def hangs():
    with time_limit(1 / 3600):
        # as in a driver: what a signal's handler or an exception would do comes to nothing
        signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 32))
        signal.sigwait({signal.SIGUSR1})

hangs()
"""


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_a_run_that_hangs_is_ended_with_all_that_it_started_and_marked_with_the_reason(
    tmp_path: Path,
) -> None:
    script = tmp_path / "hangs.py"
    script.write_text(_HANGS)
    environment = {**os.environ, "PREFECT_API_URL": PREFECT_API_URL.value() or ""}
    done = subprocess.run([sys.executable, script], env=environment, timeout=300, check=False)
    assert done.returncode == 1
    with get_client(sync_client=True) as client:
        (run,) = [
            one for one in client.read_flow_runs() if one.name and one.flow_id == _flow(client, "hangs")
        ]
    assert run.state and (run.state.type.value, run.state.name) == ("FAILED", "TimedOut")
    assert "time_limit_h" in (run.state.message or "")


def _flow(client, name: str):
    (flow,) = [one for one in client.read_flows() if one.name == name]
    return flow.id


def test_what_is_done_in_time_is_left_alone() -> None:
    with time_limit(1):
        pass
