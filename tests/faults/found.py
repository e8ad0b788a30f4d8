"""What a rollout finds on a device: how the cases' `found` gets there, and what a person does about it.

In: the case's `Rig`, whose device runs OLD. Each is named as in `tests.faults.cases`.
"""

from __future__ import annotations

import json
import marshal
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from deployments.program import SOURCE, DeviceProgram
from deployments.ssh import connect
from tasks.rollout.ledger import Ledger
from tests.faults.cases import AGENT, NEW, NEWER, OLD, SIGNED
from tests.rollouts import roll_out
from tests.ssh_devices import fleet_of, new_key

if TYPE_CHECKING:
    from tests.faults.rig import Rig

AGENT_S = 60
"""After which an agent that hears nothing ends."""
_STATE = {"previous": None, "pending": None, "last_return": None}


def nothing(rig: Rig) -> None:
    """The device is as it should be."""


def _state(text: str) -> Callable[[Rig], None]:
    def put(rig: Rig) -> None:
        (rig.device.root / "state.json").write_text(text.replace(OLD, rig.version(OLD)))

    return put


def _pending_state(boot: str, deadline: float) -> Callable[[Rig], None]:
    def put(rig: Rig) -> None:
        pending = {"version": rig.version(OLD), "previous": None, "token": "0", "boot_id": boot,
                   "deadline": deadline}  # fmt: skip
        _state(json.dumps({**_STATE, "pending": pending, "previous": None}))(rig)

    return put


def _current_as(make: Callable[[Path, Rig], object]) -> Callable[[Rig], None]:
    def put(rig: Rig) -> None:
        current = rig.device.root / "current"
        current.unlink()
        make(current, rig)

    return put


def _copy_out(current: Path, rig: Rig) -> None:
    shutil.copytree(rig.releases[OLD], rig.device.root / "elsewhere" / rig.version(OLD))
    current.symlink_to(f"elsewhere/{rig.version(OLD)}")


def _in_the_way(path: str) -> Callable[[Rig], None]:
    def put(rig: Rig) -> None:
        there = rig.device.root / path.replace(NEW, rig.version(NEW))
        there.parent.mkdir(exist_ok=True)
        if there.is_dir():
            shutil.move(there, there.with_name(f"{there.name}.kept"))
        there.write_text("in the way")

    return put


def _release_with(name: str, files: dict[str, bytes]) -> Callable[[Rig], None]:
    def put(rig: Rig) -> None:
        there = rig.device.root / "releases" / rig.version(name)
        if name != OLD:
            shutil.copytree(rig.releases[name], there)
        for file, content in files.items():
            (there / file).write_bytes(content) if content else (there / file).unlink()

    return put


def _before_is(state: str) -> Callable[[Rig], None]:
    """The release that the device would go back to; it runs OLD as long as OLD is whole in memory."""

    def put(rig: Rig) -> None:
        old = rig.device.root / "releases" / rig.version(OLD)
        if state == "rotten":
            (old / "model_int8.tflite").write_bytes(b"rot")
        else:
            shutil.rmtree(old)

    return put


def _program(content: Callable[[bytes], bytes]) -> Callable[[Rig], None]:
    def put(rig: Rig) -> None:
        _started(rig).write_bytes(content(SOURCE.read_bytes()))

    return put


def _bytecode(content: Callable[[bytes], bytes]) -> Callable[[Rig], None]:
    """What Python has kept of the program, which was sent an hour ago."""

    def put(rig: Rig) -> None:
        long_ago = time.time() - 3600
        os.utime(_started(rig), (long_ago, long_ago))
        (kept,) = (_started(rig).parent / "__pycache__").iterdir()
        kept.write_bytes(content(kept.read_bytes()))

    return put


def _started(rig: Rig) -> Path:
    """The program, once it has run there."""
    with connect(rig.device.device) as connection:
        DeviceProgram(connection).start()
    (program,) = (rig.device.root / "program").glob("device-*.py")
    return program


def _held_lock(rig: Rig) -> None:
    rig.device.root.mkdir(exist_ok=True)
    held = (
        f"import fcntl,time; f=open({str(rig.device.root / 'lock')!r},'w'); fcntl.flock(f,2); time.sleep(900)"
    )
    rig.processes.append(subprocess.Popen([sys.executable, "-c", held]))
    time.sleep(1)
    os.utime(rig.device.root / "lock", (1, 1))


def _signers(content: str | None) -> Callable[[Rig], None]:
    def put(rig: Rig) -> None:
        path = rig.device.root / "allowed_signers"
        path.symlink_to("gone") if content is None else path.write_text(content)

    return put


def _foreign_signers(rig: Rig) -> None:
    _signers(f"stress-vision {new_key(rig.folder / 'foreign')}\n")(rig)


def _device_with(**fields: object) -> Callable[[Rig], None]:
    def put(rig: Rig) -> None:
        rig.device.device = rig.device.device.model_copy(update=fields)

    return put


def _greeting_shell(rig: Rig) -> None:
    wrapper = rig.device.folder / "python"
    wrapper.write_text(wrapper.read_text().replace("exec", "echo '{\"hello\": 1}'; echo welcome\nexec", 1))


def _many_releases(rig: Rig) -> None:
    for number in range(100):
        old = rig.device.root / "releases" / f"2025{number % 12 + 1:02}01-000000-{number:08x}"
        old.mkdir()
        os.utime(old, (1, 1))


def _roll_out_beside(rig: Rig) -> None:
    def push() -> None:
        ledger = Ledger(rig.registry, rig.version(NEW), "another run")
        ledger.close(roll_out(rig.releases[NEW], fleet_of([rig.device]), rig.config, ledger.observe))
        os._exit(0)

    rig.pushers.append(multiprocessing.get_context("fork").Process(target=push))
    rig.pushers[0].start()


def _expires(in_days: float | None, clock_days: float = 0) -> Callable[[Rig], None]:
    """NEW is taken for so many days from now; the device's clock is so far off."""

    def put(rig: Rig) -> None:
        if in_days is not None:
            end = (datetime.now(UTC) + timedelta(in_days)).isoformat()
            manifest = _own_copy(rig, NEW) / "manifest.json"
            manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "expires_at": end}))
        (rig.device.folder / "clock").write_text(str(86_400 * clock_days))

    return put


def _own_copy(rig: Rig, name: str) -> Path:
    """A release that this case may change."""
    copy = rig.folder / "changed" / rig.version(name)
    shutil.copytree(rig.releases[name], copy)
    rig.releases = {**rig.releases, name: copy}
    return copy


def _takes_signed(rig: Rig) -> None:
    own, other = (new_key(rig.folder / name) for name in ("signer", "other"))
    _signers(f"stress-vision {own}\n")(rig)
    (rig.device.folder / "other_signers").write_text(f"# list 2\nstress-vision {other}\n")
    for name in (NEW, NEWER):
        manifest = _own_copy(rig, name) / "manifest.json"
        words = [
            "ssh-keygen",
            "-q",
            "-Y",
            "sign",
            "-n",
            "stress-vision-release",
            "-f",
            str(rig.folder / "signer"),
        ]
        with manifest.open("rb") as content:
            done = subprocess.run(words, stdin=content, capture_output=True, check=True, timeout=30)
        (manifest.parent / "manifest.sig").write_bytes(done.stdout)


def _is_agent(rig: Rig) -> None:
    """As docs/fleet.md sets it up, with a program of last year."""
    rig.agent = rig.folder / "agent" / "device.py"
    rig.agent.parent.mkdir()
    rig.agent.write_bytes(SOURCE.read_bytes() + b"# as it was last year\n")
    (rig.folder / "program_signers").write_text(f"stress-vision {new_key(rig.folder / 'signer')}\n")
    agent = f"{rig.device.folder / 'python'} {rig.agent} --root {rig.device.root}"
    words = f"{agent} --within-s {AGENT_S} serve --agent"
    keys = rig.device.folder / "authorized_keys"
    keys.write_text(f'restrict,command="{words}" {keys.read_text()}')


def _signs_again(rig: Rig) -> None:
    own = " ".join((rig.folder / "signer.pub").read_text().split()[:2])
    _signers(f"stress-vision {own}\n")(rig)


FOUND: dict[str, Callable[[Rig], None]] = {
    "state.json is no JSON": _state('{"previous": nul'),
    "state.json is a list": _state("[1, 2]"),
    "state.json has numbers for versions": _state('{"previous": 3, "pending": {"version": 4}}'),
    "state.json is gone": nothing,
    "state of the program before": _state(json.dumps(_STATE)),
    "a pending switch of a boot before": _pending_state("another boot", 1e12),
    "an endless pending switch": _pending_state("first boot", 1e400),
    "current leads nowhere": _current_as(lambda current, rig: current.symlink_to("releases/nowhere")),
    "current is a folder": _current_as(lambda current, rig: shutil.copytree(rig.releases[OLD], current)),
    "current is a file": _current_as(lambda current, rig: current.write_text("?")),
    "current is gone": _current_as(lambda current, rig: None),
    "current leads out of releases": _current_as(_copy_out),
    "NEW is a file": _in_the_way(f"releases/{NEW}"),
    "NEW is half there": _release_with(NEW, {"golden.npz": b""}),
    "NEW is there and rotten": _release_with(NEW, {"model_int8.tflite": b"rot"}),
    "incoming NEW is a file": _in_the_way(f"incoming/{NEW}"),
    "incoming is a file": _in_the_way("incoming"),
    "releases is a file": _in_the_way("releases"),
    "the lock is a folder": lambda rig: (rig.device.root / "lock").mkdir(),
    "the program is rotten": _program(lambda content: content.replace(b"PROTOCOL = 2", b"PROTOCOL = 3")),
    "the program is half there": _program(lambda content: content[: len(content) // 2]),
    "the program's bytecode is empty": _bytecode(lambda kept: b""),
    "the program's bytecode is half there": _bytecode(lambda kept: kept[: len(kept) // 2]),
    "the program's bytecode is zeros after its head": _bytecode(lambda kept: kept[:16] + bytes(len(kept))),
    "the program's bytecode is another program's": _bytecode(
        lambda kept: kept[:16] + marshal.dumps(compile("print('{}')", "other", "exec"))
    ),
    "a lock that nobody gives back": _held_lock,
    "the release before is rotten, and NEW fails": _before_is("rotten"),
    "the release before is gone, and NEW fails": _before_is("gone"),
    "signers lead nowhere": _signers(None),
    "signers of somebody else": _foreign_signers,
    "the inventory says signed, and nothing is": _device_with(signed=True),
    "no Python": _device_with(python="/nowhere/python3"),
    "a shell that greets": _greeting_shell,
    "it has proven a newer one": _state(json.dumps({**_STATE, "sequence": 2_000_000})),
    "a hundred releases of before": _many_releases,
    "another machine rolls NEW out meanwhile": _roll_out_beside,
    "NEW has expired": _expires(-1),
    "NEW has expired, and the clock is of years ago": _expires(-1, -20_000),
    "NEW will expire": _expires(30),
    "NEW will expire, and the clock is years ahead": _expires(30, 1000),
    "the clock is years ahead": _expires(None, 1000),
    SIGNED: _takes_signed,
    AGENT: _is_agent,
}
MAY_RUN_NONE = (
    "the release before is gone, and NEW fails",
    "releases is a file",
    "current leads nowhere",
    "current is a file",
    "current is gone",
)


def _remove(path: str) -> Callable[[Rig], None]:
    def by_hand(rig: Rig) -> None:
        there = rig.device.root / path
        if there.is_dir() and not there.is_symlink():
            there.rmdir()
        else:
            there.unlink()
        kept = there.with_name(f"{there.name}.kept")
        if kept.exists():
            kept.rename(there)

    return by_hand


BY_HAND: dict[str, Callable[[Rig], None]] = {
    "incoming is a file": _remove("incoming"),
    "releases is a file": _remove("releases"),
    "the lock is a folder": _remove("lock"),
    "signers lead nowhere": _remove("allowed_signers"),
    "signers of somebody else": _remove("allowed_signers"),
    "it has proven a newer one": _state(json.dumps(_STATE)),
    SIGNED: _signs_again,
}
"""What only a person can put right, each named by the outcome's reason."""
