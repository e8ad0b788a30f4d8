"""A command that is told to end while it runs."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.convert.instructions import smallest_model
from tests.processes import pids_with
from tests.waiting import wait_until


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tell", "status"),
    [
        pytest.param(lambda process: process.terminate(), 128 + signal.SIGTERM, id="told to end"),
        # as a terminal does at Ctrl-C: all that the command has started hears of it
        pytest.param(lambda process: os.killpg(process.pid, signal.SIGINT), 130, id="Ctrl-C"),
        # as an init system does: there is nobody left to tell of the end
        pytest.param(lambda process: os.killpg(process.pid, signal.SIGTERM), 1, id="all at once"),
    ],
)
def test_a_run_ends_soon_and_takes_its_server_along(
    tmp_path: Path, tell: Callable[[subprocess.Popen[bytes]], None], status: int
) -> None:
    process, log = _running(tmp_path)
    tell(process)
    assert process.wait(120) == status, log.read_text()
    said = log.read_text()
    assert "Traceback" not in said
    port = re.search(r"temporary server on http://127\.0\.0\.1:(\d+)", said)
    assert port, said
    wait_until(lambda: not pids_with("uvicorn", port[1]))


def _running(home: Path) -> tuple[subprocess.Popen[bytes], Path]:
    """A command in a group of its own, at work until it is told to end, and its log."""
    environment = os.environ | {"PREFECT_HOME": str(home / "prefect"), "PREFECT_PROFILE": "ephemeral"}
    environment |= {"PREFECT_CLIENT_MAX_RETRIES": "1"}
    environment.pop("PREFECT_API_URL", None)
    file, log = home / "model.tflite", home / "log"
    file.write_bytes(smallest_model())
    # whoever runs the tests in the background has Ctrl-C ignored, which a process hands on
    command = ["env", "--default-signal=INT", sys.executable, "-m", "flows.cli", "benchmark", str(file)]
    with log.open("w") as heard:
        process = subprocess.Popen(command, env=environment, stdout=heard, stderr=heard, process_group=0)
    # what times the file is halted: the command waits for it in the midst of its task, and imports nothing,
    # which takes no exception well
    wait_until(lambda: process.poll() is not None or bool(pids_with("trial.py", str(file))), 240)
    for trial in pids_with("trial.py", str(file)):
        os.kill(trial, signal.SIGSTOP)
    assert process.poll() is None, log.read_text()
    return process, log
