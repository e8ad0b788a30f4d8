"""A command that is told to end while it runs."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.tasks.small_source import drawn_store


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
    assert not _servers(port[1])


def _running(home: Path) -> tuple[subprocess.Popen[bytes], Path]:
    """A command in a group of its own, at work, and its log."""
    environment = os.environ | {"PREFECT_HOME": str(home / "prefect"), "PREFECT_PROFILE": "ephemeral"}
    environment |= {"PREFECT_CLIENT_MAX_RETRIES": "1"}
    environment.pop("PREFECT_API_URL", None)
    place = ("--store", str(drawn_store(home)), "--work_dir", str(home / "work"))
    # whoever runs the tests in the background has Ctrl-C ignored, which a process hands on
    command = ["env", "--default-signal=INT", sys.executable, "-m", "flows.cli", "prepare", *place]
    log = home / "log"
    with log.open("w") as heard:
        process = subprocess.Popen(command, env=environment, stdout=heard, stderr=heard, process_group=0)
    deadline = time.monotonic() + 240
    # in the midst of a task: Prefect takes no signal well while it sets one up
    while not any((home / "work" / "prepared").glob("*")):
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
    return process, log


def _servers(port: str) -> list[str]:
    """Command lines of the processes that were started to serve at a port."""
    lines = (path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline"))
    return [str(line) for line in lines if b"uvicorn" in line and port.encode() in line.split(b"\0")]
