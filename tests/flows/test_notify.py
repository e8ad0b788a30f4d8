"""Messages to a person, as they arrive at a receiver on this machine."""

import json
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from uuid import uuid4

import pytest

from deployments.fleet import Device, Fleet
from flows.notify import automations
from flows.site import Site
from flows.unseen import sentence, unseen
from storage.registry import Registry
from tests.ports import free_port
from tests.releases import new_store
from tests.up_process import Up, wait_for


class Receiver:
    """Takes what is posted to `address`."""

    def __init__(self) -> None:
        self.messages: queue.Queue[dict[str, str]] = queue.Queue()
        messages = self.messages

        class Taking(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                messages.put(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                self.send_response(204)
                self.end_headers()

            def log_message(self, format: str, *_: object) -> None:
                """Nothing on the test's own output."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Taking)
        self.address = f"http://127.0.0.1:{self.server.server_port}/hook"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def next(self) -> dict[str, str]:
        return self.messages.get(timeout=300)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.server.shutdown()
    receiver.server.server_close()


def stress_vision(up: Up, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flows.cli", *arguments]
    return subprocess.run(
        command, env=up.environment, cwd=up.home, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.mark.slow
def test_a_person_is_told_of_a_rejected_night_of_a_crash_and_of_a_device_that_is_away(
    tmp_path: Path, receiver: Receiver
) -> None:
    (tmp_path / "store/datasets/fer2013").mkdir(parents=True)
    (tmp_path / "store/datasets/fer2013/fer2013.csv").touch()
    up = Up(tmp_path)
    with up.running():
        done = stress_vision(up, "notify", receiver.address, "--port", str(up.port))
        assert done.returncode == 0, done.stderr
        assert receiver.next()["subject"] == "Stress Vision"
        assert receiver.address not in json.dumps(
            up.ask("block_documents/filter", {"include_secrets": False})
        )
        _end(up, "balanced · Rejected", "COMPLETED", "Rejected")
        message = receiver.next()
        assert message["subject"] == "Rejected: balanced · Rejected"
        assert "as it was said" in message["body"] and "/runs/flow-run/" in message["body"]
        _end(up, "balanced · Registered", "COMPLETED", "Registered")
        _end(up, "balanced", "CRASHED", "Crashed")
        assert receiver.next()["subject"] == "Crashed: balanced"
        seen = {
            "occurred": datetime.now(UTC).isoformat(),
            "event": "stress-vision.device.unseen",
            "resource": {"prefect.resource.id": "stress-vision.device.pi-1", "prefect.resource.name": "pi-1"},
            "payload": {"seen_at": "2026-11-01", "said": sentence("2026-11-01")},
            "id": "7d3f6a70-3c6e-4a0e-9d0a-3a6f5f5f5f5f",
        }
        up.ask("events", [seen])
        message = receiver.next()
        assert "pi-1" in message["subject"] and "since 2026-11-01" in message["body"]
        assert receiver.messages.empty()


def _end(up: Up, name: str, kind: str, word: str) -> None:
    """A run that ends so: what the server makes of it is the same whoever ran it."""
    flow = up.deployment("nightly")["flow_id"]
    run = up.ask("flow_runs/", {"flow_id": flow, "name": name, "tags": ["stress-vision"]})["id"]
    for state in ({"type": "RUNNING"}, {"type": kind, "name": word, "message": "as it was said"}):
        up.ask(f"flow_runs/{run}/set_state", {"state": state, "force": True})
    wait_for(lambda: up.run(run)["state_name"] == word)


def test_without_a_server_the_error_says_how_to_start_one(tmp_path: Path) -> None:
    port = free_port()
    done = stress_vision(Up(tmp_path), "notify", "http://127.0.0.1:1/", "--port", str(port))
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert f"127.0.0.1:{port}" in done.stderr and "stress-vision up" in done.stderr


def test_each_end_that_needs_a_person_is_listed_by_the_name_that_its_event_carries() -> None:
    from flows.cli import _EXIT

    first, *_ = automations(uuid4())
    expected = first.trigger.expect  # pyright: ignore[reportAttributeAccessIssue]
    assert {f"prefect.flow-run.{name}" for name in (*_EXIT, "Failed", "Crashed", "TimedOut")} <= expected


def test_a_device_is_unseen_when_it_told_nothing_for_a_week(tmp_path: Path, ssh_device) -> None:
    now = datetime(2026, 11, 24, 3, 0, tzinfo=UTC)
    registry = Registry(new_store(tmp_path))
    lines = {
        "here": ("seen_at", 1),
        "away": ("seen_at", 8),
        "mute": ("tried_since", 8),
        "late": ("tried_since", 6),
    }
    for name, (field, days) in lines.items():
        at = (now - timedelta(days=days)).isoformat()
        registry.record_device(name, {"device": name, "outcome": "updated", "reason": "", field: at})
    devices = [_named(ssh_device.device, name) for name in (*lines, "new")]
    site = Site(store=str(tmp_path), store_id="id", work=tmp_path, fleet=Fleet(devices=tuple(devices)))
    found = unseen(site, now)
    assert found == {"away": "2026-11-16", "mute": "never"}
    assert "since 2026-11-16" in sentence(found["away"]) and "ever heard" in sentence(found["mute"])


def _named(device: Device, name: str) -> Device:
    return device.model_copy(update={"name": name})
