"""Everything that a person needs to start runs from a browser: server, work pool, deployments, worker."""

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from storage.errors import StressVisionError

ROOT = Path(__file__).resolve().parents[1]
"""Where the packages lie, a checkout or site-packages: entrypoints of the deployments start from here."""
_DEPLOYMENTS = Path(__file__).with_name("prefect.yaml")

POOL = "stress-vision"
_START_S, _COMMAND_S, _STOP_S = 180, 180, 15


def up(port: int, logs: Path) -> None:
    """Start server and worker on this machine, deploy prefect.yaml, and stay until interrupted.

    Server and worker log to files under `logs`. Raises StressVisionError if one doesn't start, or ends.
    """
    logs.mkdir(parents=True, exist_ok=True)
    api = f"http://127.0.0.1:{port}/api"
    environment = {**os.environ, "PREFECT_API_URL": api, "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    running: dict[str, subprocess.Popen[bytes]] = {}
    signal.signal(signal.SIGTERM, _interrupt)
    # a shell that starts us in the background lets SIGINT be ignored, by the worker too, which stops by it
    signal.signal(signal.SIGINT, _interrupt)
    try:
        print("starting the Prefect server …", flush=True)
        running["server"] = _start(
            ["server", "start", "--host", "127.0.0.1", "--port", str(port)], environment, logs / "server.log"
        )
        _await_health(f"{api}/health", running["server"], logs / "server.log")
        print("creating the work pool and the deployments of prefect.yaml …", flush=True)
        _prefect(["work-pool", "create", POOL, "--type", "process", "--overwrite"], environment)
        _prefect(["--no-prompt", "deploy", "--all", "--prefect-file", str(_DEPLOYMENTS)], environment)
        running["worker"] = _start(
            ["worker", "start", "--pool", POOL, "--name", "this-machine"], environment, logs / "worker.log"
        )
        print(f"\nReady: http://127.0.0.1:{port}/deployments\nLogs:  {logs}\nStop with Ctrl-C.", flush=True)
        _watch(running, logs)
    except KeyboardInterrupt:
        print("\nstopping …", flush=True)
    finally:
        for process in reversed(running.values()):
            _stop(process)


def _interrupt(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _start(arguments: list[str], environment: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("w") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "prefect", *arguments],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # its own session: Ctrl-C reaches only us, and we stop worker and server in that order
            start_new_session=True,
        )


def _prefect(arguments: list[str], environment: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "prefect", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=_COMMAND_S,
        check=False,
    )
    if done.returncode:
        raise StressVisionError(f"`prefect {' '.join(arguments)}` failed:\n{done.stdout}{done.stderr}")


def _await_health(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise StressVisionError(
                f"the Prefect server ended with status {server.returncode} (see {log}): is another one "
                "running on this port? Then try `stress-vision up --port` with another number."
            )
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise StressVisionError(f"the Prefect server did not answer at {url} within {_START_S} s (see {log})")


def _watch(running: dict[str, subprocess.Popen[bytes]], logs: Path) -> None:
    while True:
        for name, process in running.items():
            if process.poll() is not None:
                raise StressVisionError(
                    f"the {name} ended with status {process.returncode}: see {logs / name}.log"
                )
        time.sleep(1)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
