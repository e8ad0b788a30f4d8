"""Everything that a person needs to start runs from a browser: server, deployments, worker, reports."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flows.config import environment_for_elsewhere
from storage.errors import InputError, StressVisionError
from storage.lease import exclusively

ROOT = Path(__file__).resolve().parents[1]
"""Where the packages lie, a checkout or site-packages: entrypoints of the deployments start from here."""
_DEPLOYMENTS = Path(__file__).with_name("prefect.yaml")

POOL = "stress-vision"
_WORKER = "this-machine"
_START_S, _COMMAND_S, _STOP_S = 600, 600, 15
"""A server that starts in 15 s needed more than three minutes beside twenty other busy processes."""
_ENDS, _ENDS_WITHIN_S = 5, 600
"""How many ends of them, and in what time, are too many to start them again."""


def up(port: int, logs: Path) -> None:
    """Start server and worker on this machine, deploy prefect.yaml, and stay until interrupted.

    The reports of STRESS_VISION_STORE are served on the port after `port`. All log to files under `logs`, and
    are started again when they end. Raises InputError where a port or Prefect's home is in use, and
    StressVisionError where one doesn't start, or ends time and again.
    """
    for one in (port, port + 1):
        expect_free(one)
    signal.signal(signal.SIGTERM, _interrupt)
    # a shell that starts us in the background lets SIGINT be ignored, by the worker too, which stops by it
    signal.signal(signal.SIGINT, _interrupt)
    with (
        exclusively(_prefect_home() / "stress-vision-up"),
        exclusively(logs),
        _services(port, logs) as services,
    ):
        print("starting the Prefect server …", flush=True)
        services.start("server", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port))
        services.await_health()
        print("creating the work pool and the deployments of prefect.yaml …", flush=True)
        services.run("work-pool", "create", POOL, "--type", "process", "--overwrite")
        _deploy(services)
        if os.environ.get("STRESS_VISION_STORE"):
            services.start("reports", "flows.reports", str(port + 1))
        if not services.given_back():
            raise StressVisionError(f"the Prefect server at {services.api} answers no more: {logs} says why")
        services.start("worker", "prefect", "worker", "start", "--pool", POOL, "--name", _WORKER)
        print(f"\nReady: http://127.0.0.1:{port}/deployments\nLogs:  {logs}\nStop with Ctrl-C.", flush=True)
        services.watch()


class Services:
    """Server, worker and reports on this machine, each with its log."""

    def __init__(self, port: int, logs: Path):
        self.api = f"http://127.0.0.1:{port}/api"
        self._logs = logs
        self._environment = {
            "STRESS_VISION_REPORTS": f"http://127.0.0.1:{port + 1}",
            # in memory, as is usual, a slot is lost when the server ends, and the run ends itself for that
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
            **environment_for_elsewhere(),
            "PREFECT_API_URL": self.api,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        }
        self._commands: dict[str, tuple[str, ...]] = {}
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._ends: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=_ENDS))

    def start(self, name: str, *arguments: str) -> None:
        """Start a module with arguments that stays; its log is emptied the first time."""
        mode = "a" if name in self._commands else "w"
        self._commands[name] = arguments
        with self._log(name).open(mode) as output:
            self._running[name] = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # its own session: Ctrl-C reaches only us, and we stop worker and server in that order
                start_new_session=True,
            )

    def run(self, *arguments: str) -> None:
        """A command of Prefect's that ends; StressVisionError with what it said where it fails."""
        done = subprocess.run(
            [sys.executable, "-m", "prefect", *arguments],
            cwd=ROOT,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=_COMMAND_S,
            check=False,
        )
        if done.returncode:
            raise StressVisionError(f"`prefect {' '.join(arguments)}` failed:\n{done.stdout}{done.stderr}")

    def await_health(self) -> None:
        """Until the server answers; StressVisionError where it ends, or doesn't within ten minutes."""
        server, log, url = self._running["server"], self._log("server"), f"{self.api}/health"
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            if server.poll() is not None:
                raise StressVisionError(
                    f"the Prefect server ended with status {server.returncode}: {log} says why"
                )
            try:
                with urllib.request.urlopen(url, timeout=2):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.5)
        raise StressVisionError(f"the Prefect server did not answer at {url} within {_START_S} s (see {log})")

    def watch(self) -> None:
        """Start again what ends, for good; StressVisionError where that comes to nothing."""
        while True:
            self.start_ended()
            time.sleep(1)

    def start_ended(self) -> None:
        """Start again what has ended; pages that can't be served are given up, for nights go on without."""
        for name in [name for name, process in self._running.items() if process.poll() is not None]:
            if name != "worker" or self.given_back():
                self._start_again(name)

    def given_back(self) -> bool:
        """Whether what the last worker had taken is scheduled anew; not while the server doesn't answer."""
        import httpx
        from prefect.settings import PREFECT_API_URL, temporary_settings

        from flows.taken import give_back

        try:
            with temporary_settings({PREFECT_API_URL: self.api}):
                give_back(POOL, _WORKER)
        except (RuntimeError, httpx.HTTPError):
            return False
        return True

    def stop(self) -> None:
        """Worker first, so that it tells the server what becomes of its runs."""
        for process in reversed(self._running.values()):
            _stop(process)

    def _start_again(self, name: str) -> None:
        ended = f"the {name} ended with status {self._running[name].returncode}"
        ends = self._ends[name]
        ends.append(time.monotonic())
        if len(ends) == _ENDS and ends[-1] - ends[0] < _ENDS_WITHIN_S:
            ended += f", the {_ENDS}th end within {_ENDS_WITHIN_S // 60} minutes: {self._log(name)} says why"
            if name != "reports":
                raise StressVisionError(ended)
            print(f"{ended}; reports are not served any more, nights go on", flush=True)
            del self._running[name]
            return
        print(f"{ended}: starting it again (log: {self._log(name)})", flush=True)
        self.start(name, *self._commands[name])

    def _log(self, name: str) -> Path:
        return self._logs / f"{name}.log"


@contextmanager
def _services(port: int, logs: Path) -> Iterator[Services]:
    """Processes that end with the block; Ctrl-C ends it as it should."""
    services = Services(port, logs)
    try:
        yield services
    except KeyboardInterrupt:
        print("\nstopping …", flush=True)
    finally:
        services.stop()


def expect_free(port: int) -> None:
    """InputError where somebody listens already: deployments and browsers would go to whoever that is."""
    try:
        with socket.socket() as ours:
            # as the server does: a port whose last connections are only fading out is free
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            ours.bind(("127.0.0.1", port))
    except OverflowError:
        raise InputError(f"port {port}: expected one from 1 to 65534, with --port") from None
    except OSError as error:
        raise InputError(
            f"port {port} of this machine is in use or not ours to take ({error.strerror}), perhaps by "
            "another server of ours: end that, or give another port with --port"
        ) from None


def _prefect_home() -> Path:
    return Path(os.environ.get("PREFECT_HOME", "") or "~/.prefect").expanduser().absolute()


def _deploy(services: Services) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from flows.automations import keep, zombies
    from flows.edits import edits_kept

    with temporary_settings({PREFECT_API_URL: services.api}):
        with edits_kept():
            services.run("--no-prompt", "deploy", "--all", "--prefect-file", str(_DEPLOYMENTS))
        keep([zombies()])


def _interrupt(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
