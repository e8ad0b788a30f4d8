"""The program on a device as seen from here: how it is asked, and what becomes of what it says."""

from pathlib import Path, PurePosixPath
from typing import cast

import pytest

from deployments.fleet import Device
from deployments.program import SOURCE, DeviceProgram
from deployments.ssh import Connection, Finished

PIN = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8g"


class Wire:
    """A connection that keeps what it was given and answers with one `Finished`."""

    def __init__(self, status: int = 0, stdout: str = "", stderr: str = ""):
        self.device = Device(
            name="a", host="h", user="u", key_file=Path("k"), host_key=PIN, root="/r", python="py"
        )
        self.done = Finished("", status, stdout, stderr)
        self.given: list[object] = []

    def run(self, command: list[str], *, timeout_s: float) -> Finished:
        self.given = [command, timeout_s]
        return self.done

    def upload(self, content: bytes, path: PurePosixPath, *, timeout_s: float) -> Finished:
        self.given = [content, str(path), timeout_s]
        return self.done


def program(wire: Wire) -> DeviceProgram:
    return DeviceProgram(cast(Connection, wire))


def test_options_become_words_and_the_last_line_is_the_answer() -> None:
    wire = Wire(stdout='a warning of its Python\n{"ok": true, "current": null}\n')
    answer = program(wire).ask(
        "switch", timeout_s=3, version="v", confirm_within_s=5, current=True, other=False
    )
    assert answer == {"ok": True, "current": None}
    (words, timeout_s) = wire.given
    assert timeout_s == 3 and isinstance(words, list)
    assert (words[0], words[2:]) == (
        "py", ["--root", "/r", "switch", "--version", "v", "--confirm-within-s", "5", "--current"],
    )  # fmt: skip
    assert words[1].startswith("/r/program/device-") and words[1].endswith(".py")


def test_program_and_files_go_to_the_devices_own_folders(tmp_path: Path) -> None:
    wire = Wire()
    assert program(wire).install(timeout_s=2) == {"ok": True}
    content, path, timeout_s = wire.given
    assert content == SOURCE.read_bytes() and timeout_s == 2
    assert str(path).startswith("/r/program/device-")
    (tmp_path / "model").write_bytes(b"bytes")
    assert program(wire).send(tmp_path / "model", "v", timeout_s=4) == {"ok": True}
    assert wire.given == [b"bytes", "/r/incoming/v/model", 4]


@pytest.mark.parametrize(
    ("wire", "said"),
    [
        (Wire(1, "", "No space left\n"), "exit status 1: No space left"),
        (Wire(1, "words\n", ""), "exit status 1: words"),
        (Wire(0, "", ""), "exit status 0: nothing"),
        (Wire(127, "", "not found"), "exit status 127: not found; is py on the device?"),
        (Wire(1, "", "x" * 500 + "end"), "exit status 1: " + "x" * 397 + "end"),
    ],
)
def test_what_is_no_answer_is_told_with_its_status_and_its_last_words(wire: Wire, said: str) -> None:
    answer = program(wire).ask("inspect")
    assert (answer["ok"], answer["kind"]) == (False, "error") and answer["error"].startswith(said)


@pytest.mark.parametrize("call", ["install", "send"])
def test_a_file_that_did_not_arrive_is_told(call: str, tmp_path: Path) -> None:
    (tmp_path / "model").touch()
    asked = program(Wire(1, "", "Read-only file system"))
    answer = asked.install() if call == "install" else asked.send(tmp_path / "model", "v")
    assert answer == {"ok": False, "kind": "error", "error": "exit status 1: Read-only file system"}
