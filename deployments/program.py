"""The program on the device, as seen from here: started, asked, and its answers as plain dictionaries.

An answer is `{"ok": True, …}` or `{"ok": False, "kind": …, "error": "…"}`: what a device declines is a value,
and `kind` says whose fault it is (`deployments/pi/device.py`). A device that can't be spoken to is a
`DeviceError` of `deployments.ssh`.
"""

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, cast

from deployments.ssh import Connection, Finished, Session
from storage.errors import DeviceError

Answer = dict[str, Any]
SOURCE = Path(__file__).parent / "pi" / "device.py"
RUNS_THE_MODEL = ("prove", "time")
"""Commands that open it, with the device's own delegate where the inventory names one."""
PROTOCOL = 2
"""That of `serve` in the program."""
_MARGIN_S = 20.0
"""A device ends a command by itself before we lose patience: its answer says more than our silence."""
_NOT_FOUND = 127


@dataclass(frozen=True)
class Renewal:
    """Our program, as an agent takes it: the statement names its hash, and is signed."""

    statement: str
    signature: str


class ProgramEnded(DeviceError):
    """The program on a device was ended, by its time box or otherwise, before it had answered."""


class DeviceProgram:
    """`deployments/pi/device.py` as it serves one connection."""

    def __init__(self, connection: Connection):
        self._connection = connection
        self._session: Session | None = None
        self._greeting: Answer = {}
        self._digest = self.digest()
        self._root = PurePosixPath(connection.device.root)
        self._path = self._root / "program" / f"device-{self._digest[:16]}.py"

    @staticmethod
    @cache
    def digest() -> str:
        """The SHA-256 of the program as it is sent."""
        return hashlib.sha256(SOURCE.read_bytes()).hexdigest()

    def start(self, *, timeout_s: float = 60.0, renewal: Renewal | None = None) -> Answer:
        """Have the program serve us, sent first where it isn't there; its answer is that of `inspect`.

        An agent that speaks otherwise is sent `renewal`, which its owner's timer installs, and is at fault.
        """
        greeting = self._greet(timeout_s)
        if isinstance(greeting, Finished) and greeting.exit_status == _NOT_FOUND:
            return self._failure(greeting)
        if not isinstance(greeting, Finished) and greeting.get("agent"):
            return self._met_agent(greeting, renewal)
        if isinstance(greeting, Finished) or greeting.get("program") != self._digest:
            done = self._connection.upload(SOURCE.read_bytes(), self._path, timeout_s=timeout_s)
            if done.exit_status != 0:
                return self._failure(done)
            greeting = self._greet(timeout_s)
        return self._failure(greeting) if isinstance(greeting, Finished) else greeting

    def ask(
        self, command: str, *, timeout_s: float = 60.0, content: bytes = b"", **options: object
    ) -> Answer:
        """One command with its options, and bytes where it takes some; the device ends it by `timeout_s`."""
        if command in RUNS_THE_MODEL:
            options["delegate"] = self._connection.device.delegate
        request = json.dumps({"command": command, "within_s": timeout_s, **options}) + "\n"
        found = self._exchange(command, request.encode() + content, timeout_s + _MARGIN_S)
        if isinstance(found, Finished):
            raise ProgramEnded(f"device {self._connection.device.name}: {self._failure(found)['error']}")
        return found

    def send(self, file: Path, version: str, *, timeout_s: float = 120.0) -> Answer:
        """Upload one file of an offered release beside the running one, where only `stage` looks."""
        content = file.read_bytes()
        return self.ask(
            "put", version=version, name=file.name, bytes=len(content), content=content, timeout_s=timeout_s
        )

    def renew(self, renewal: Renewal | None, *, timeout_s: float = 60.0) -> str:
        """Send an agent that is another program than ours to be installed; what became of that, in words."""
        if renewal is None or not self._greeting or self._greeting.get("program") == self._digest:
            return ""
        if self._greeting.get("waiting") == self._digest:
            return "its agent's new program waits for the device's owner to `install` it"
        content = SOURCE.read_bytes()
        answer = self.ask(
            "program", statement=renewal.statement, signature=renewal.signature, bytes=len(content),
            content=content, timeout_s=timeout_s,
        )  # fmt: skip
        if not answer["ok"]:
            return f"its agent takes no new program: {answer['error']}"
        return "its agent was sent a new program"

    def _greet(self, timeout_s: float) -> Answer | Finished:
        # as a module: Python keeps its bytecode beside it, and compiling is a third of what a device does
        # that has nothing to do. Torn, this cache ends Python, and is void once the program was sent anew
        words = [self._connection.device.python, "-m", self._path.stem, "--root", str(self._root)]
        words += ["--within-s", f"{timeout_s:g}", "serve"]
        self._session = self._connection.session(words, self._path.parent, timeout_s=timeout_s)
        return self._exchange("serve", b"", timeout_s)

    def _exchange(self, what: str, content: bytes, timeout_s: float) -> Answer | Finished:
        """The next line that is an answer: a login shell may say something before."""
        if self._session is None:
            raise RuntimeError("the program has not been started")
        while True:
            line = self._session.exchange(what, content, timeout_s=timeout_s)
            if isinstance(line, Finished):
                return line
            content = b""
            if (answer := _as_answer(line)) is not None:
                return answer

    def _met_agent(self, greeting: Answer, renewal: Renewal | None) -> Answer:
        """One that somebody installed as the only thing that our key may start."""
        self._greeting = greeting
        if greeting.get("protocol") == PROTOCOL:
            return greeting
        said = self.renew(renewal) or "install deployments/pi/device.py there by hand"
        spoken = f"its agent speaks protocol {greeting.get('protocol')}, expected {PROTOCOL}"
        return {"ok": False, "kind": "faulty", "error": f"{spoken}: {said}"}

    def _failure(self, done: Finished) -> Answer:
        if done.exit_status == _NOT_FOUND:
            said = (
                f"there is no {self._connection.device.python} on the device: see `python` in the inventory"
            )
        else:
            words = (done.stderr.strip() or done.stdout.strip())[-400:]
            how = (
                f"ended with status {done.exit_status}" if done.exit_status >= 0 else "was ended by a signal"
            )
            said = f"`{done.command.partition(' ')[0]}` {how}{f': {words}' if words else ', without a word'}"
        return {"ok": False, "kind": "faulty", "error": said}


def _as_answer(line: str) -> Answer | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    if not isinstance(found, dict):
        return None
    answer = cast(Answer, found)
    if not isinstance(answer.get("ok"), bool):
        return None
    return answer if answer["ok"] else {"kind": "error", "error": "it doesn't say why", **answer}
