"""The README's pictures: the head of a demo's report, and the same night in the Prefect UI.

    python -m tests.benchmarks.screenshots        # needs Chromium (Debian: apt-get install chromium)

Runs the demo, so all faces in them are drawn. Writes docs/report.png and docs/prefect.png.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from flows.up import ROOT
from tests.ports import free_port

_DOCS = ROOT / "docs"
_WIDTH_PX, _COLOURS = 1100, 128
_WAIT_S = 180


def main() -> None:
    """Run the demo and take both pictures."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "demo"
        subprocess.run(
            [sys.executable, "-m", "flows.cli", "demo", "--home", str(home)],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            check=True,
        )
        (report,) = home.glob("work/experiments/*/report.html")
        take(report.as_uri(), _DOCS / "report.png", height_px=880)
        with server(home / "prefect") as address:
            (run,) = ask(f"{address}/api/flow_runs/filter")
            take(f"{address}/runs/flow-run/{run['id']}", _DOCS / "prefect.png", height_px=880)


def take(address: str, path: Path, height_px: int) -> None:
    """Write a picture of the page, with few colours so that it stays small."""
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "shot.png"
        subprocess.run(
            [
                "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
                "--no-first-run", "--hide-scrollbars", f"--user-data-dir={folder}/profile",
                f"--window-size={_WIDTH_PX},{height_px}", "--virtual-time-budget=20000",
                f"--screenshot={shot}", address,
            ],
            check=True,
            capture_output=True,
            timeout=_WAIT_S,
        )  # fmt: skip
        Image.open(shot).convert("RGB").quantize(_COLOURS).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size} bytes")


@contextmanager
def server(prefect_home: Path) -> Iterator[str]:
    """A Prefect server that shows what runs have left in `prefect_home`; its address."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    environment = {
        **os.environ,
        "PREFECT_HOME": str(prefect_home),
        "PREFECT_API_URL": f"{address}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    }
    command = [sys.executable, "-m", "prefect", "server", "start", "--port", str(port)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        await_answer(f"{address}/api/health")
        yield address
    finally:
        process.terminate()
        process.wait(30)


def await_answer(address: str) -> None:
    """Until somebody answers there. Raises TimeoutError after three minutes."""
    deadline = time.monotonic() + _WAIT_S
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(address, timeout=2).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise TimeoutError(f"nothing answers at {address} after {_WAIT_S} s")


def ask(address: str) -> list[dict[str, Any]]:
    """What a filter of Prefect's API finds."""
    request = urllib.request.Request(address, b"{}", {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


if __name__ == "__main__":
    main()
