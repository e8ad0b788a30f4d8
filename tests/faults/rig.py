"""One case: a device that runs OLD, a rollout of NEW with faults, and then one of NEWER without.

It ends well where, after the fault, `current` opens a whole release, OLD or NEW; where outcome and ledger say
which, or that nobody can know and what the device does by itself; where no process of it is left; and where
the device can be updated afterwards. A release's fault has to be told as `failed`, a device's never.
"""

import contextlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
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
from tests.faults.cases import NEW, NEWER, OLD, Case, Fault
from tests.faults.found import AGENT_S, BY_HAND, FOUND, MAY_RUN_NONE, nothing
from tests.processes import pids_with
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
    config: RolloutConfig = CONFIG

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
            FOUND.get(self.case.found, nothing)(self)
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
        BY_HAND.get(self.case.found, nothing)(self)

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
        began, within_s = time.monotonic(), _SETTLED_S + (AGENT_S if self.agent else 0)
        while time.monotonic() < began + within_s and (self._pending() or self._left()):
            time.sleep(0.3)
            if time.monotonic() > began + CONFIG.confirm_within_s + 3:
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
    return pids_with("injector.py", str(device.folder))


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
