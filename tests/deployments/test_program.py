"""The program on a device as seen from here: how it is started and asked, and what comes of its answers."""

import json
import os
from pathlib import Path, PurePosixPath
from typing import cast

import pytest

from deployments.fleet import Device
from deployments.program import PROTOCOL, SOURCE, DeviceProgram, ProgramEnded
from deployments.ssh import Connection, Finished, Session, connect
from tests.ssh_devices import SshDevice

PIN = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8g"
OURS = DeviceProgram.digest()
GREETING = json.dumps({"ok": True, "program": OURS, "protocol": PROTOCOL, "current": None})


class Wire:
    """A connection that keeps what it was given; each exchange gives the next of `lines`."""

    def __init__(self, *lines: str | Finished, uploaded: int = 0):
        self.device = Device(
            name="a", host="h", user="u", key_file=Path("k"), host_key=PIN, root="/r", python="py"
        )
        self.lines, self.uploaded = list(lines), uploaded
        self.started: list[list[str]] = []
        self.sent: list[bytes] = []
        self.uploads: list[str] = []

    def session(self, words: list[str], folder: PurePosixPath, *, timeout_s: float) -> Session:
        self.started.append(words)
        self.folder = folder
        return cast(Session, self)

    def exchange(self, what: str, content: bytes, *, timeout_s: float) -> str | Finished:
        self.sent.append(content)
        return self.lines.pop(0)

    def upload(self, content: bytes, path: PurePosixPath, *, timeout_s: float) -> Finished:
        assert content == SOURCE.read_bytes()
        self.uploads.append(str(path))
        return Finished("py -c …", self.uploaded, "", "No space left on device\n" if self.uploaded else "")


def program(wire: Wire) -> DeviceProgram:
    return DeviceProgram(cast(Connection, wire))


def ended(status: int, stdout: str = "", stderr: str = "") -> Finished:
    return Finished("py", status, stdout, stderr)


def test_a_program_that_is_there_is_not_sent_again() -> None:
    wire = Wire(GREETING)
    assert program(wire).start(timeout_s=5)["current"] is None
    (words,) = wire.started
    assert words[:3] == ["py", "-m", f"device-{OURS[:16]}"] and wire.folder == PurePosixPath("/r/program")
    assert words[3:] == ["--root", "/r", "--within-s", "5", "serve"] and wire.uploads == []


@pytest.mark.parametrize(
    "first",
    [ended(2, stderr="can't open file"), ended(1, stderr="SyntaxError"),
     json.dumps({"ok": True, "program": "other", "protocol": PROTOCOL})],
)  # fmt: skip
def test_a_program_that_is_absent_rotten_or_another_is_sent(first: str | Finished) -> None:
    wire = Wire(first, GREETING)
    assert program(wire).start()["ok"]
    assert len(wire.started) == 2 and wire.uploads == [f"/r/program/device-{OURS[:16]}.py"]


def test_an_agent_that_somebody_installed_is_left_as_it_is() -> None:
    wire = Wire(json.dumps({"ok": True, "program": "other", "protocol": PROTOCOL, "agent": True}))
    assert program(wire).start()["ok"] and wire.uploads == []


def test_what_a_login_shell_says_before_is_passed_over() -> None:
    wire = Wire("welcome", '{"hello": 1}', "[1]", '{"ok": "yes"}', GREETING)
    assert program(wire).start()["program"] == OURS


@pytest.mark.parametrize(
    ("wire", "said"),
    [
        (Wire(ended(127, stderr="not found")), "there is no py on the device: see `python` in the inventory"),
        (Wire(ended(2), uploaded=1), "`py` ended with status 1: No space left on device"),
        (Wire(ended(2), ended(3, "words\n")), "`py` ended with status 3: words"),
        (Wire(ended(2), ended(3, "", "x" * 500 + "end")), "`py` ended with status 3: " + "x" * 397 + "end"),
        (Wire(ended(2), ended(0)), "`py` ended with status 0, without a word"),
    ],
)
def test_a_device_on_which_the_program_can_not_run_is_at_fault_and_says_why(wire: Wire, said: str) -> None:
    assert program(wire).start() == {"ok": False, "kind": "faulty", "error": said}


def test_a_command_is_one_line_with_its_time_box_and_a_file_follows_its_line(tmp_path: Path) -> None:
    wire = Wire(GREETING, '{"ok": true}', '{"ok": true}')
    asked = program(wire)
    asked.start()
    assert asked.ask("switch", timeout_s=3, version="v", confirm_within_s=5) == {"ok": True}
    assert json.loads(wire.sent[1]) == {
        "command": "switch", "within_s": 3, "version": "v", "confirm_within_s": 5,
    }  # fmt: skip
    (tmp_path / "model").write_bytes(b"a\nb")
    assert asked.send(tmp_path / "model", "v", timeout_s=4) == {"ok": True}
    line, content = wire.sent[2].split(b"\n", 1)
    assert json.loads(line) == {
        "command": "put", "within_s": 4, "version": "v", "name": "model", "bytes": 3,
    }  # fmt: skip
    assert content == b"a\nb"


def test_a_refusal_without_a_reason_is_the_devices_fault() -> None:
    wire = Wire(GREETING, '{"ok": false}')
    asked = program(wire)
    asked.start()
    assert asked.ask("stage") == {"ok": False, "kind": "error", "error": "it doesn't say why"}


def test_a_program_that_ends_instead_of_answering_is_as_good_as_a_lost_connection() -> None:
    asked = program(Wire(GREETING, ended(-1)))
    asked.start()
    with pytest.raises(ProgramEnded, match=r"device a: `py` was ended by a signal, without a word"):
        asked.ask("stage")


def test_nothing_is_asked_before_the_program_was_started() -> None:
    with pytest.raises(RuntimeError, match="has not been started"):
        program(Wire()).ask("inspect")


@pytest.mark.parametrize("keep", [0, 20, 5_000])
def test_bytecode_that_a_power_cut_tore_is_made_anew(ssh_device: SshDevice, keep: int) -> None:
    def start() -> bool:
        with connect(ssh_device.device) as connection:
            return DeviceProgram(connection).start(timeout_s=60)["ok"]

    assert start()
    (program,) = ssh_device.root.glob("program/*.py")
    os.utime(program, (1e9, 1e9))  # it was sent long ago
    assert start()
    (kept,) = program.parent.glob("__pycache__/*")
    whole = kept.read_bytes()
    kept.write_bytes(whole[:keep])
    assert start() and start()
    assert len(kept.read_bytes()) == len(whole)


def test_one_session_serves_many_commands_and_ends_with_its_connection(ssh_device: SshDevice) -> None:
    with connect(ssh_device.device) as connection:
        asked = DeviceProgram(connection)
        assert asked.start()["current"] is None
        assert asked.ask("inspect")["machine"]["cpus"]
        refused = asked.ask("stage", version="../..")
        assert (refused["kind"], refused["error"]) == ("refused", "'../..' is not a release's version")
        assert "no command" in asked.ask("rm")["error"]
        assert asked.ask("inspect")["ok"]
    assert (ssh_device.root / "device.py").resolve().parent.name == "program"
