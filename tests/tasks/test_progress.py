"""How far a stage is can be seen where somebody looks, and nowhere else."""

import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL

import tasks.progress
from tasks.progress import showing_progress

_COUNTS = """
from prefect import flow, get_run_logger
from tasks.progress import showing_progress
@flow
def counts():
    with showing_progress("ingest", "objects") as advanced:
        advanced(3, 10)
        get_run_logger().warning("as ever")
counts()
"""


@pytest.mark.usefixtures("prefect_server")
def test_a_bar_is_drawn_on_a_terminal_around_the_lines_of_the_log_and_nowhere_else() -> None:
    assert b"ingest" in (seen := _on_a_terminal()) and b"3/10" in seen and b"as ever" in seen
    piped = subprocess.run(
        [sys.executable, "-c", _COUNTS], env=_environment(), capture_output=True, check=True
    )
    assert b"as ever" in piped.stderr and piped.stdout == b""
    assert not any(mark in piped.stderr for mark in (b"3/10", b"\r", b"\x1b"))


@pytest.mark.usefixtures("prefect_server")
def test_the_run_s_page_is_told_now_and_then_and_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[float] = []
    real = tasks.progress.update_progress_artifact

    def update(artifact: object, share: float) -> None:
        told.append(share)
        real(artifact, share)  # pyright: ignore[reportArgumentType]

    _trains(monkeypatch, update)
    assert told == [0, 100]  # of epochs that last no time
    with get_client(sync_client=True) as client:
        (shown,) = [one for one in client.read_artifacts() if one.key == "test-progress"]
    assert (shown.type, shown.data) == ("progress", 100)


@pytest.mark.usefixtures("prefect_server")
def test_a_server_that_is_away_stops_no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise httpx.ConnectError("nobody there")

    assert _trains(monkeypatch, away)


def _trains(monkeypatch: pytest.MonkeyPatch, update: Callable[..., None]) -> bool:
    """Whether a run comes to its end."""
    monkeypatch.setattr(tasks.progress, "update_progress_artifact", update)

    @flow(name="trains")
    def trains() -> bool:
        with showing_progress("training", "epochs", key="test-progress") as advanced:
            for epoch in range(3):
                advanced(epoch + 1, 4)
        return True

    return trains()


def _on_a_terminal() -> bytes:
    ours, theirs = pty.openpty()
    subprocess.run(
        [sys.executable, "-c", _COUNTS], env=_environment(), stderr=theirs, timeout=300, check=True
    )
    os.close(theirs)
    seen = os.read(ours, 100_000)
    os.close(ours)
    return seen


def _environment() -> dict[str, str]:
    project = str(Path(tasks.progress.__file__).parents[1])
    return {**os.environ, "PYTHONPATH": project, "TERM": "xterm", "PREFECT_API_URL": PREFECT_API_URL.value()}
