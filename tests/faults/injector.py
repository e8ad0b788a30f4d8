"""In place of a device's Python: runs what it is given, and lets the case's faults happen at their moments.

Called as `injector.py FOLDER …`. FOLDER/faults.json has the faults: a step, a moment (before or after it),
what happens, and how often. Standard library only; the program itself is the one that was sent, unchanged.
"""

import contextlib
import errno
import importlib.util
import json
import os
import signal
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

FOLDER, ARGUMENTS = Path(sys.argv[1]), sys.argv[2:]
Facts = dict[str, Any]
REPLACES = {".before": "keep the one before", ".py": "replace it"}
NONSENSE: Facts = {
    "current": 7, "missing": ["../../etc/passwd"], "token": None, "p95_ms": float("nan"),
    "health": "\x1b[2J[red]", "error": {"no": "text"},
}  # fmt: skip


def main() -> None:
    if ARGUMENTS[0] == "-c":
        receive()
        return
    if ARGUMENTS[0] == "-m":
        ARGUMENTS[:2] = [f"{Path.cwd() / ARGUMENTS[1]}.py"]
    program = load(Path(ARGUMENTS[0]))
    sys.argv = ARGUMENTS
    sys.executable = str(FOLDER / "python")  # what the program starts goes through here, too
    sys.exit(program.run(program.end_in_time(program.parse(ARGUMENTS[1:]))))


def receive() -> None:
    """Run what takes a file's bytes; the step is that of making its folder."""
    make = os.makedirs

    def makedirs(*args: Any, **options: Any) -> None:
        happens("install", "before")
        make(*args, **options)

    os.makedirs = makedirs
    sys.argv = ["-c", *ARGUMENTS[2:]]
    exec(ARGUMENTS[1], {"__name__": "__main__"})


def load(path: Path) -> ModuleType:
    """The program with the moments of its steps in our hands."""
    spec = importlib.util.spec_from_file_location("device", path)
    assert spec and spec.loader
    program = sys.modules["device"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    setattr(program, "boot_id", lambda: (FOLDER / "boot").read_text())  # noqa: B010
    if (FOLDER / "clock").exists():
        setattr(program, "time", Clock(float((FOLDER / "clock").read_text())))  # noqa: B010
    inspect = program.inspect
    wrap(program, "run_command", lambda root, args, command: step_of(args))
    wrap(program, "run_apart", lambda root, args, caller: step_of(args))
    wrap(program, "check", lambda root, args: f"model {version_of(root, args)}")
    wrap(program, "benchmark", lambda root, args: f"speed {version_of(root, args)}")
    wrap(program, "link_program", lambda root: "start" if "serve" in ARGUMENTS else "link")
    wrap(program, "write_state", lambda root, **changes: "write state")
    wrap(program, "prune", lambda root, **options: "prune")
    wrap(program, "keep_number", lambda path, number: "keep its number")
    wrap(program, "replace_program", lambda path, content: REPLACES[path.suffix])
    start = program.start_watchdog

    def start_watchdog(root: Path) -> int:
        watchdog = start(root)
        (FOLDER / f"watchdog-{watchdog}").touch()
        return watchdog

    setattr(program, "start_watchdog", start_watchdog)  # noqa: B010
    program.COMMANDS.update(check=program.check, benchmark=program.benchmark, inspect=inspect)
    return program


class Clock:
    """`time`, of a device whose clock is off."""

    def __init__(self, off_s: float):
        self._off_s = off_s

    def time(self) -> float:
        return time.time() + self._off_s

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


def step_of(args: Namespace) -> str:
    through = " current" if getattr(args, "current", False) else ""
    return args.command + through


def version_of(root: Path, args: Namespace) -> str:
    return args.version


def wrap(program: ModuleType, name: str, step: Callable[..., str]) -> None:
    function = getattr(program, name, None)
    if function is None:
        return

    def call(*args: Any, **options: Any) -> Any:
        named = step(*args, **options)
        happens(named, "before")
        result = function(*args, **options)
        replaced = happens(named, "after")
        return result if replaced is None else {**(result or {}), **replaced}

    setattr(program, name, call)


def happens(step: str, moment: str) -> Facts | None:
    for number, fault in enumerate(json.loads((FOLDER / "faults.json").read_text())):
        due = fault["step"] in (step, step.split(" ")[0] + " *") and fault["moment"] == moment
        if due and its_turn(number) and is_first(number, fault["times"]):
            return FAULTS[fault["what"]]()
    return None


def its_turn(number: int) -> bool:
    """In a chain a fault waits for the one before it."""
    return number == 0 or (FOLDER / f"happened-{number - 1}-0").exists()


def is_first(number: int, times: int) -> bool:
    """Whether a fault has happened less often than it is to."""
    for time_ in range(times):
        with contextlib.suppress(FileExistsError):
            (FOLDER / f"happened-{number}-{time_}").touch(exist_ok=False)
            return True
    return False


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def crashes() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def session_lost() -> None:
    """The connection's own sshd dies; the program goes on until it notices."""
    os.kill(session_process(), signal.SIGKILL)
    time.sleep(0.2)


def cable_pulled() -> None:
    """Nothing comes through any more, and nobody is told; another connection can be made."""
    (FOLDER / f"stopped-{session_process()}").touch()
    os.kill(session_process(), signal.SIGSTOP)


def cable_pulled_for_long() -> None:
    """Nor can another connection be made, until the case is over."""
    cable_pulled()
    listener = int((FOLDER / "sshd.pid").read_text())
    (FOLDER / f"stopped-{listener}").touch()
    os.kill(listener, signal.SIGSTOP)


def session_process() -> int:
    """The sshd of this connection: our parent, or that of the session which runs us."""
    process = os.getppid()
    while b"sshd" not in Path(f"/proc/{process}/cmdline").read_bytes() and process > 1:
        process = int(Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[1])
    return process


def power_cut() -> None:
    """All that runs on the device is gone, and it boots anew at once."""
    (FOLDER / "boot").write_text(f"boot {time.monotonic_ns()}")
    sessions = [] if (FOLDER / f"watchdog-{os.getpid()}").exists() else [session_process()]
    for process in [*others(), *sessions, os.getpid()]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def watchdog_killed() -> None:
    for mark in FOLDER.glob("watchdog-*"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(mark.name.partition("-")[2]), signal.SIGKILL)


def pusher_killed() -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(int((FOLDER / "pusher.pid").read_text()), signal.SIGKILL)
    time.sleep(0.2)


def others() -> list[int]:
    """Other processes of this device's program."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            line = path.read_bytes()
            mine = str(FOLDER).encode() in line and b"injector.py" in line
            if mine and int(path.parent.name) != os.getpid():
                found.append(int(path.parent.name))
    return found


def hangs() -> None:
    while True:
        time.sleep(3600)


def spins() -> None:
    while True:
        pass


def disk(number: int) -> Callable[[], None]:
    def fails() -> None:
        raise OSError(number, os.strerror(number), str(FOLDER / "root"))

    return fails


def signers_replaced() -> None:
    """By another list, on which nobody is who has signed what is under way."""
    (FOLDER / "root" / "allowed_signers").write_text((FOLDER / "other_signers").read_text())


def outputs_differ() -> None:
    raise sys.modules["device"].Refused("outputs differ by up to 9 steps of 1/256")


FAULTS: dict[str, Callable[[], Facts | None]] = {
    "nothing": lambda: None,
    "program killed": killed,
    "session lost": session_lost,
    "cable pulled": cable_pulled,
    "cable pulled for long": cable_pulled_for_long,
    "power cut": power_cut,
    "watchdog killed": watchdog_killed,
    "pusher killed": pusher_killed,
    "hangs": hangs,
    "spins": spins,
    "crashes": crashes,
    "disk full": disk(errno.ENOSPC),
    "disk read-only": disk(errno.EROFS),
    "disk broken": disk(errno.EIO),
    "nonsense": lambda: NONSENSE,
    "too slow": lambda: {"p95_ms": 9999.0},
    "no numbers": lambda: {"p95_ms": float("nan"), "fps": "fast"},
    "outputs differ": outputs_differ,
    "signers replaced": signers_replaced,
}

if __name__ == "__main__":
    main()
