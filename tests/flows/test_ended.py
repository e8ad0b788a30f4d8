"""A command that is told to end while it runs."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.tasks.small_source import drawn_store


@pytest.mark.slow
def test_a_run_that_is_told_to_end_takes_its_server_along(tmp_path: Path) -> None:
    environment = os.environ | {"PREFECT_HOME": str(tmp_path / "prefect"), "PREFECT_PROFILE": "ephemeral"}
    environment.pop("PREFECT_API_URL", None)
    place = ("--store", str(drawn_store(tmp_path)), "--work_dir", str(tmp_path / "work"))
    log = tmp_path / "log"
    with log.open("w") as heard:
        command = [sys.executable, "-m", "flows.cli", "prepare", *place]
        process = subprocess.Popen(command, env=environment, stdout=heard, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 240
    while "Beginning flow run" not in log.read_text():
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == 128 + signal.SIGTERM, log.read_text()
    said = log.read_text()
    port = re.search(r"temporary server on http://127\.0\.0\.1:(\d+)", said)
    assert port, said
    assert not _servers(port[1])


def _servers(port: str) -> list[str]:
    """Command lines of the processes that were started to serve at a port."""
    lines = (path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline"))
    return [str(line) for line in lines if b"uvicorn" in line and port.encode() in line.split(b"\0")]
