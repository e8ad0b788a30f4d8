"""One case: a device that runs OLD, a rollout of NEW with faults, and then one of NEWER without.

It ends well where, after the fault, `current` opens a whole release, OLD or NEW; where outcome and ledger say
which, or that nobody can know and what the device does by itself; where no process of it is left; and where
the device can be updated afterwards. A release's fault has to be told as `failed`, a device's never.
"""

import contextlib
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from deployments.program import SOURCE
from storage.manifest import Manifest
from storage.registry import Registry
from tasks.benchmark import BenchmarkConfig
from tasks.rollout import DeviceOutcome, FleetOutcome, RolloutConfig
from tasks.rollout.ledger import Ledger
from tasks.signing import SIGNING_KEY_VARIABLE
from tests.faults.cases import AGENT, NEW, NEWER, OLD, SIGNED, Case, Fault
from tests.releases import new_store
from tests.rollouts import roll_out
from tests.ssh_devices import SshDevice, as_device_runs, fleet_of, make_device, new_key

CONFIG = RolloutConfig(
    connect_timeout_s=5,
    command_timeout_s=8,
    visit_timeout_s=60,
    confirm_within_s=10,
    measure=False,
    benchmark=BenchmarkConfig(runs=10, min_s=0, warmup_s=0, warmup=1, min_cpu_share=0),
)
PATIENT = CONFIG.model_copy(
    update={"command_timeout_s": 60.0, "visit_timeout_s": 170.0, "confirm_within_s": 120.0}
)
"""Without faults: a busy machine must not look like one."""
_PUSHER_S, _SETTLED_S = 180.0, 30.0
_WRAPPER = '#!/bin/sh\nexec {python} {injector} {folder} "$@"\n'
_STATE = {"previous": None, "pending": None, "last_return": None}


@dataclass(frozen=True)
class Ended:
    """How a case ended; `problems` is empty where it ended well."""

    case: Case
    problems: tuple[str, ...]
    seconds: float
    outcome: str = ""
    reason: str = ""


@dataclass
class Rig:
    """The device of a case, its releases by name, and the store whose ledger is judged."""

    folder: Path
    releases: dict[str, Path]
    case: Case
    device: SshDevice = field(init=False)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    pushers: list[BaseProcess] = field(default_factory=list)
    """Other machines that roll something out to this device."""
    agent: Path | None = None
    """The program that root owns, where the rollout's key starts it and nothing else."""

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        new_key(self.folder / "client_key")
        self.device = make_device(self.folder / "pi", self.folder / "client_key", "pi-1")
        self.registry = Registry(new_store(self.folder / "store"))
        let_faults_happen(self.device)
        as_device_runs(self.device.root, self.releases[OLD])
        (self.device.root / "releases" / self.version(OLD) / ".proven").touch()
        seen = DeviceOutcome(device="pi-1", outcome="updated", reason="proven", seen_at=datetime.now(UTC),
                             running_release=self.version(OLD))  # fmt: skip
        Ledger(self.registry, self.version(OLD)).observe(seen)

    def version(self, name: str) -> str:
        return self.releases[name].name

    def run(self) -> Ended:
        started, problems, outcome = time.monotonic(), list[str](), None
        self.device.start()
        assert self.device.process
        (self.device.folder / "sshd.pid").write_text(str(self.device.process.pid))
        try:
            FOUND.get(self.case.found, _nothing)(self)
            inject(self.device, self._named(self.case.faults))
            outcome = self._push(NEW)
            problems += self._after_the_fault(outcome)
            self._mend()
            problems += self._can_be_updated()
        except Exception as error:  # a case that can't be run has not ended well
            problems.append(f"{type(error).__name__}: {error}")
        finally:
            self._end()
        told = (outcome.outcome, outcome.reason) if outcome else ("", "")
        return Ended(self.case, tuple(problems), time.monotonic() - started, *told)

    # ------------------------------------------------------------ what is done

    def _named(self, faults: tuple[Fault, ...]) -> tuple[Fault, ...]:
        """The faults at the release that NEW is in this run."""
        return tuple(replace(fault, step=fault.step.replace(NEW, self.version(NEW))) for fault in faults)

    def _push(self, name: str) -> DeviceOutcome | None:
        """Roll out in a process of its own, which a fault may kill: then there is no outcome."""
        fork = multiprocessing.get_context("fork")
        found, told = fork.Pipe(duplex=False)
        pusher = fork.Process(target=self._roll_out, args=(name, told))
        pusher.start()
        told.close()
        outcome = None
        with contextlib.suppress(EOFError):
            if found.poll(_PUSHER_S):
                outcome = FleetOutcome.model_validate_json(found.recv()).devices[0]
            else:
                pusher.kill()
        pusher.join()
        return outcome

    def _roll_out(self, name: str, told: Connection) -> None:
        (self.device.folder / "pusher.pid").write_text(str(os.getpid()))
        if self.agent:
            os.environ[SIGNING_KEY_VARIABLE] = str(self.folder / "signer")
        ledger, config = Ledger(self.registry, self.version(name), "run"), CONFIG if name == NEW else PATIENT
        fleet = roll_out(self.releases[name], fleet_of([self.device]), config, ledger.observe)
        ledger.close(fleet)
        told.send(fleet.model_dump_json())
        told.close()
        os._exit(0)

    def _mend(self) -> None:
        """All faults are over; what a person would have to do by hand is done for a few."""
        inject(self.device, ())
        self._go_on()
        self.device.device = self.device.device.model_copy(
            update={"python": str(self.device.folder / "python"), "signed": False}
        )
        for process in self.processes:
            process.kill()
            process.wait()
        BY_HAND.get(self.case.found, _nothing)(self)

    def _go_on(self) -> None:
        for mark in self.device.folder.glob("stopped-*"):
            pid = int(mark.name.partition("-")[2])
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
            mark.unlink()

    def _end(self) -> None:
        self._go_on()
        self.device.stop()
        for process in self.processes:
            process.kill()
            process.wait()
        for pid in self._left():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    # ------------------------------------------------------------ what is judged

    def _after_the_fault(self, outcome: DeviceOutcome | None) -> list[str]:
        problems: list[str] = []
        for pusher in self.pushers:
            pusher.join(_PUSHER_S)
        if outcome is None and not self.case.kills_pusher:
            problems.append(f"the rollout did not end within {_PUSHER_S:g} s")
        if outcome and outcome.outcome not in self.case.outcomes:
            problems.append(f"told as {outcome.outcome}: {outcome.reason}")
        self._settle()
        if self.agent:
            self._timer()
        problems += self._whole()
        problems += self._known(outcome)
        if left := self._left():
            problems.append(f"{len(left)} processes are left on the device")
        return problems

    def _settle(self) -> None:
        """Wait until the device has settled by itself, helped by its timer only."""
        deadline = time.monotonic() + _SETTLED_S
        while time.monotonic() < deadline and (self._pending() or self._left()):
            time.sleep(0.3)
            if time.monotonic() > deadline - _SETTLED_S + CONFIG.confirm_within_s + 3:
                self._timer()

    def _timer(self) -> None:
        """What runs each minute: a switch is settled, and an agent renewed by root."""
        program = self.agent or self.device.root / "device.py"
        if program.exists():
            self._run(program, "--lock-wait-s", "1", "settle")
        if self.agent:
            self._run(self.agent, "install", "--signers", str(self.folder / "program_signers"))

    def _run(self, program: Path, *command: str) -> None:
        words = [str(self.device.folder / "python"), str(program), "--root", str(self.device.root), *command]
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(words, capture_output=True, timeout=60, check=False)

    def _pending(self) -> bool:
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            return json.loads((self.device.root / "state.json").read_text())["pending"] is not None
        return False

    def _whole(self) -> list[str]:
        current = self.current()
        if current is None:
            return [] if self.case.found in MAY_RUN_NONE else ["current opens nothing"]
        if current not in (self.version(OLD), self.version(NEW)):
            return [f"current opens {current}"]
        directory = self.device.root / "current"
        damaged = Manifest.read(directory.resolve()).damaged(directory)
        return [f"current opens {current}, whose {damaged[0]} is damaged"] if damaged else []

    def _known(self, outcome: DeviceOutcome | None) -> list[str]:
        current, facts = self.current(), self.registry.device("pi-1")
        told = DeviceOutcome.model_validate(facts) if facts else None
        problems = []
        ours = None if self.pushers else outcome  # another may have been there since
        for said, where in ((ours, "the outcome"), (told, "the ledger")):
            if said and said.seen_at and said.running_release != current and not _says_unsure(said):
                problems.append(f"{where} says {said.running_release}, it runs {current} ({said.reason})")
        if ours and (told is None or told.outcome != ours.outcome):
            problems.append("the ledger has another outcome")
        if outcome and any(not character.isprintable() for character in outcome.reason):
            problems.append("the reason has characters that a terminal obeys")
        return problems

    def _can_be_updated(self) -> list[str]:
        outcome = self._push(NEWER)
        if outcome is None:
            return ["afterwards: no outcome"]
        facts = self.registry.device("pi-1") or {}
        if outcome.outcome != "updated" or self.current() != self.version(NEWER):
            return [f"afterwards: {outcome.outcome}, {outcome.reason}"]
        if facts.get("running_release") != self.version(NEWER):
            return [f"afterwards: the ledger says {facts.get('running_release')}"]
        return self._renewed(outcome) if self.agent else []

    def _renewed(self, outcome: DeviceOutcome) -> list[str]:
        """Whether the agent is the program of today, now or with the next turn of the timer."""
        assert self.agent
        if "agent" in outcome.reason:
            self._timer()
        ours = self.agent.read_bytes() == SOURCE.read_bytes()
        return [] if ours else [f"afterwards: its agent is another one ({outcome.reason})"]

    def current(self) -> str | None:
        opened = self.device.root / "current"
        return opened.resolve().name if (opened / "manifest.json").is_file() else None

    def _left(self) -> list[int]:
        """Processes that run something on this device; those of `found` are the case's own."""
        ours = {process.pid for process in self.processes}
        return [pid for pid in left_on(self.device) if pid not in ours]


def left_on(device: SshDevice) -> list[int]:
    """Processes of the program of a device in which faults happen."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            line = path.read_bytes()
            if b"injector.py" in line and str(device.folder).encode() in line:
                found.append(int(path.parent.name))
    return found


def inject(device: SshDevice, faults: Iterable[Fault]) -> None:
    """What is to happen at a device from now on."""
    (device.folder / "faults.json").write_text(json.dumps([asdict(fault) for fault in faults]))


def let_faults_happen(device: SshDevice) -> None:
    """Have its Python be one in which faults happen, none as yet."""
    inject(device, ())
    (device.folder / "boot").write_text("first boot")
    wrapper, injector = device.folder / "python", Path(__file__).with_name("injector.py")
    wrapper.write_text(_WRAPPER.format(python=sys.executable, injector=injector, folder=device.folder))
    wrapper.chmod(0o755)
    device.device = device.device.model_copy(update={"python": str(wrapper)})


def _says_unsure(said: DeviceOutcome) -> bool:
    return (
        "being switched" in said.reason or "by itself within" in said.reason or "not returned" in said.reason
    )


# ---------------------------------------------------------------- what a rollout finds on a device


def _nothing(rig: Rig) -> None:
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
        from deployments.program import DeviceProgram
        from deployments.ssh import connect

        with connect(rig.device.device) as connection:
            DeviceProgram(connection).start()
        (program,) = (rig.device.root / "program").glob("device-*.py")
        program.write_bytes(content(SOURCE.read_bytes()))

    return put


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
        ledger.close(roll_out(rig.releases[NEW], fleet_of([rig.device]), CONFIG, ledger.observe))
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
    words = f"{rig.device.folder / 'python'} {rig.agent} --root {rig.device.root} --within-s 60 serve --agent"
    keys = rig.device.folder / "authorized_keys"
    keys.write_text(f'restrict,command="{words}" {keys.read_text()}')


def _signs_again(rig: Rig) -> None:
    own = " ".join((rig.folder / "signer.pub").read_text().split()[:2])
    _signers(f"stress-vision {own}\n")(rig)


FOUND: dict[str, Callable[[Rig], None]] = {
    "state.json is no JSON": _state('{"previous": nul'),
    "state.json is a list": _state("[1, 2]"),
    "state.json has numbers for versions": _state('{"previous": 3, "pending": {"version": 4}}'),
    "state.json is gone": _nothing,
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
