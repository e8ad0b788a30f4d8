"""The program on a device, called inside this process, with its clock and its watchdog in our hands."""

import contextlib
import hashlib
import io
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deployments.pi import device

MODEL = b"model"
OLD, NEW, NEWER = (f"2026010{day}-031500-{hashlib.sha256(MODEL).hexdigest()[:8]}" for day in (1, 2, 3))
Answer = dict[str, Any]


def ask(root: Path, command: str, *words: object) -> Answer:
    """The answer of one command; its exit status must say the same as its answer."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        status = device.main(["--root", str(root), "--lock-wait-s", "0", command, *map(str, words)])
    answer = json.loads(printed.getvalue())
    assert status == (0 if answer["ok"] else 1)
    return answer


def refusal(root: Path, command: str, *words: object) -> str:
    """Why the device declines a release."""
    return declined(root, "refused", command, *words)


def fault(root: Path, command: str, *words: object) -> str:
    """Why the device can't, whatever the release is."""
    return declined(root, "faulty", command, *words)


def declined(root: Path, kind: str, command: str, *words: object) -> str:
    answer = ask(root, command, *words)
    assert (answer["ok"], answer["kind"]) == (False, kind), answer
    return answer["error"]


def upload(root: Path, version: str, model: bytes = MODEL, **manifest: object) -> Path:
    """A release as it arrives: files that no runtime has to open."""
    folder = root / "incoming" / version
    folder.mkdir(parents=True, exist_ok=True)
    files = {"model_int8.tflite": model, "golden.npz": b"golden"}
    for name, content in files.items():
        (folder / name).write_bytes(content)
    facts = {
        "version": version,
        "model": "model_int8.tflite",
        "golden": {"file": "golden.npz"},
        "files": {
            name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in files.items()
        },
    }
    (folder / "manifest.json").write_text(json.dumps({**facts, **manifest}))
    return folder


def stage(root: Path, version: str) -> Path:
    upload(root, version)
    assert ask(root, "stage", "--version", version)["ok"]
    return root / "releases" / version


def switch(root: Path, version: str, *words: object) -> Answer:
    """Stage and switch, on probation."""
    stage(root, version)
    answer = ask(root, "switch", "--version", version, *words)
    assert answer["ok"]
    return answer


def run_release(root: Path, version: str) -> str:
    """Stage, switch and confirm: the release that a device has run so far."""
    assert ask(root, "confirm", "--token", switch(root, version)["token"])["ok"]
    return version


def current(root: Path) -> str | None:
    link = root / "current"
    return link.readlink().name if link.is_symlink() else None


def state(root: Path) -> Answer:
    return json.loads((root / "state.json").read_text())


@dataclass
class Clock:
    """In place of the module `time`: only `sleep` makes it go on."""

    now: float = 1000.0
    wall: float = field(default_factory=time.time)
    slept: list[float] = field(default_factory=list)

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.wall

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
