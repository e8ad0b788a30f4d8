"""`stress-vision up` as a process, and what its server answers."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from flows.up import ROOT
from tests.ports import free_port

Found = TypeVar("Found")


class Up:
    """One `up`, its Prefect home, store and work directory under `home`, on a port of its own."""

    def __init__(self, home: Path, code: Path = ROOT, port: int = 0, **environment: str):
        self.home, self.code, self.port = home, code, port or free_port()
        # a user's shell knows nothing of the server that other tests share, which does without a scheduler
        ours = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        self.environment = {
            **ours,
            "PYTHONPATH": str(code),
            "PREFECT_HOME": str(home),
            "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "2",
            "STRESS_VISION_STORE": str(home / "store"),
            "STRESS_VISION_WORK": str(home / "work"),
            **environment,
        }

    def start(self) -> subprocess.Popen[str]:
        """Begin it; what it prints can be read from the process."""
        return subprocess.Popen(
            [sys.executable, "-m", "flows.cli", "up", "--port", str(self.port)],
            cwd=self.home,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[str]]:
        """From when it says Ready until it is told to stop, which it has to do with status 0."""
        process = self.start()
        hanging = threading.Timer(600, process.kill)
        hanging.start()
        try:
            self.await_ready(process)
            yield process
        finally:
            ran = process.poll() is None
            process.send_signal(signal.SIGTERM)
            said, _ = process.communicate(timeout=120)
            hanging.cancel()
            assert not ran or process.returncode == 0, said

    def await_ready(self, process: subprocess.Popen[str]) -> None:
        """Until it says Ready; what it said instead is in the error."""
        assert process.stdout
        said: list[str] = []
        for line in process.stdout:
            if line == f"Ready: http://127.0.0.1:{self.port}/deployments\n":
                return
            said.append(line)
        raise AssertionError(f"up ended with status {process.wait()}: {''.join(said)}")

    def ask(self, path: str, content: Any = None, method: str = "POST") -> Any:
        """What the server's API answers."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/api/{path}",
            data=None if content is None else json.dumps(content).encode(),
            headers={"content-type": "application/json"},
            method="GET" if content is None else method,
        )
        return wait_for(lambda: _answer(request), within_s=120)[0]

    def deployment(self, name: str) -> dict[str, Any]:
        """The deployment of that name, whatever its flow."""
        found = {one["name"]: one for one in self.ask("deployments/filter", {})}
        return found[name]

    def begin(self, name: str, parameters: dict[str, Any], at: datetime | None = None) -> str:
        """Run a deployment as the form does, now or `at` a time to come; the run's id."""
        path = f"deployments/{self.deployment(name)['id']}/create_flow_run"
        details = {"scheduled_time": at.isoformat()} if at else {}
        state = {"type": "SCHEDULED", "state_details": details}
        return self.ask(path, {"parameters": parameters, "state": state})["id"]

    def run(self, run_id: str) -> dict[str, Any]:
        """A run as the server knows it just now."""
        return self.ask(f"flow_runs/{run_id}")

    def ended(self, run_id: str, within_s: float = 300) -> dict[str, Any]:
        """The run, once it has ended."""
        return wait_for(lambda: self._if_ended(run_id), within_s)

    def processes(self, *words: str) -> list[int]:
        """Ids of all that it has started and that still runs, whose command line has all of the words."""
        mark = f"PREFECT_HOME={self.home}\0".encode()
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                if mark in (folder / "environ").read_bytes() and all(word in line for word in words):
                    found.append(int(folder.name))
            except OSError:
                continue  # it ended meanwhile, or is another user's
        return found

    def _if_ended(self, run_id: str) -> dict[str, Any] | None:
        try:
            run = self.run(run_id)
        except OSError:
            return None  # the server is being started again
        return run if run["state_type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED") else None


def _answer(request: urllib.request.Request) -> tuple[Any] | None:
    """What was answered; None where the database is busy just now, which Prefect's own clients wait out."""
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            text = answer.read()
    except urllib.error.HTTPError as refused:
        with refused:
            if refused.code != 503:
                raise
        return None
    except TimeoutError:
        return None
    return (json.loads(text) if text else None,)


def wait_for(found: Callable[[], Found | None], within_s: float = 300) -> Found:
    """What `found` gives once it gives something."""
    deadline = time.monotonic() + within_s
    while not (value := found()):
        assert time.monotonic() < deadline, f"nothing came of it within {within_s} s"
        time.sleep(0.5)
    return value
