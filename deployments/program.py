"""The program on the device, as seen from here: sent, asked, and its answers as plain dictionaries.

An answer is `{"ok": True, …}` or `{"ok": False, "kind": "refused" | "busy" | "error", "error": "…"}`:
what a device declines is a value. A device that can't be spoken to is a `DeviceError` of `deployments.ssh`.
"""

import hashlib
import json
from pathlib import Path, PurePosixPath
from typing import Any

from deployments.ssh import Connection, Finished

Answer = dict[str, Any]
SOURCE = Path(__file__).parent / "pi" / "device.py"
RUNS_THE_MODEL = ("check", "benchmark", "time")
"""Commands that open it, with the device's own delegate where the inventory names one."""


class DeviceProgram:
    """The commands of `deployments/pi/device.py`, over one connection."""

    def __init__(self, connection: Connection):
        self._connection = connection
        self._root = PurePosixPath(connection.device.root)
        self._content = SOURCE.read_bytes()
        name = f"device-{hashlib.sha256(self._content).hexdigest()[:16]}.py"
        self._path = self._root / "program" / name

    def install(self, *, timeout_s: float = 60.0) -> Answer:
        """Put this very program on the device, under a name made of its hash."""
        done = self._connection.upload(self._content, self._path, timeout_s=timeout_s)
        return {"ok": True} if done.exit_status == 0 else self._failure(done)

    def ask(self, command: str, *, timeout_s: float = 60.0, **options: object) -> Answer:
        """Run one command; `confirm_within_s=5` becomes `--confirm-within-s 5`, True a bare option."""
        words = [self._connection.device.python, str(self._path), "--root", str(self._root), command]
        if command in RUNS_THE_MODEL and (library := self._connection.device.delegate):
            options["delegate"] = library
        for name, value in options.items():
            option = "--" + name.replace("_", "-")
            words += [option] if value is True else [] if value is False else [option, str(value)]
        done = self._connection.run(words, timeout_s=timeout_s)
        try:
            return json.loads(done.stdout.splitlines()[-1])
        except (IndexError, json.JSONDecodeError):
            return self._failure(done)

    def send(self, file: Path, version: str, *, timeout_s: float = 120.0) -> Answer:
        """Upload one file of a release beside the running one, where only `stage` looks."""
        path = self._root / "incoming" / version / file.name
        done = self._connection.upload(file.read_bytes(), path, timeout_s=timeout_s)
        return {"ok": True} if done.exit_status == 0 else self._failure(done)

    def _failure(self, done: Finished) -> Answer:
        said = (done.stderr.strip() or done.stdout.strip() or "nothing")[-400:]
        hint = ""
        if done.exit_status == 127:
            hint = f"; is {self._connection.device.python} on the device? See `python` in the inventory"
        return {"ok": False, "kind": "error", "error": f"exit status {done.exit_status}: {said}{hint}"}
