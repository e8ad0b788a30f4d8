"""The cases: which fault, at which step and moment of a rollout, and how a device may be told of afterwards.

Six groups:

    at a step         something dies, hangs, lies or is cut off: every step, before and after it
    of the release    it crashes, hangs, answers otherwise or is slow: told as `failed`
    of the device     what a rollout finds there: a state, files in the way, a sick disk
    of trust and time signers replaced meanwhile, releases that expire, clocks that are wrong
    of an agent       its key starts a program of root's and nothing else; a newer one is sent and installed
    chains            two faults, one after the other
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Moment = Literal["before", "after"]
ALWAYS = 99
OLD, NEW, NEWER = "OLD", "NEW", "NEWER"
"""In the place of the releases' versions, which only a run knows."""

STEPS = (
    "install", "start", "offer", "put", "stage", "prove", "switch", "prove current", "confirm", "inspect",
)  # fmt: skip
AFTER_SWITCH = ("switch", "prove current", "confirm", "inspect")
_NOT_THE_RELEASE = ("updated", "faulty", "unreachable", "inconclusive")
_FAILED = ("failed",)


@dataclass(frozen=True)
class Fault:
    """What happens at a device: `times` times, before or after a step."""

    step: str
    moment: Moment
    what: str
    times: int = 1

    def __str__(self) -> str:
        often = {1: "", ALWAYS: ", each time"}.get(self.times, f", {self.times} times")
        return f"{self.what} {self.moment} {self.step}{often}"


@dataclass(frozen=True)
class Case:
    """One rollout from OLD to NEW with faults; `found` is what lies on the device before."""

    name: str
    group: str
    faults: tuple[Fault, ...] = ()
    found: str = ""
    outcomes: tuple[str, ...] = _NOT_THE_RELEASE
    """What the device may be told of as; a dead pusher tells nothing."""

    @property
    def kills_pusher(self) -> bool:
        return any(fault.what == "pusher killed" for fault in self.faults)


def cases() -> tuple[Case, ...]:
    """All of them, in a stable order; names are unique."""
    return (*at_steps(), *of_the_release(), *of_the_device(), *of_trust_and_time(), *of_an_agent(), *chains())


def at_steps() -> Iterator[Case]:
    for what in ("program killed", "session lost", "cable pulled", "power cut", "pusher killed", "hangs"):
        for step in STEPS:
            for moment in moments(step):
                yield one("at a step", Fault(step, moment, what))
    for what in ("disk full", "disk read-only", "disk broken", "nonsense"):
        for step in (step for step in STEPS if step not in ("install", "start")):
            yield one("at a step", Fault(step, "after" if what == "nonsense" else "before", what))
    for step in AFTER_SWITCH:
        yield one("at a step", Fault(step, "before", "cable pulled for long"))
        yield one("at a step", Fault(step, "after", "cable pulled for long"))


def moments(step: str) -> tuple[Moment, ...]:
    return ("before",) if step == "install" else ("before", "after")


def of_the_release() -> Iterator[Case]:
    for what in ("crashes", "hangs", "spins", "outputs differ"):
        for release, outcomes in ((NEW, _FAILED), ("*", ("faulty", "unreachable"))):
            yield one("of the release", Fault(f"model {release}", "before", what, ALWAYS), outcomes)
        if what in ("crashes", "outputs differ"):
            yield one("of the release", Fault(f"model {NEW}", "before", what), ("updated",))
    for what, outcomes in (("too slow", _FAILED), ("no numbers", ("faulty",))):
        yield one("of the release", Fault(f"speed {NEW}", "after", what, ALWAYS), outcomes)
    yield one("of the release", Fault("speed *", "after", "too slow", ALWAYS), ("faulty",))
    yield one("of the release", Fault(f"speed {NEW}", "after", "too slow"), ("updated",))
    for what in ("crashes", "hangs", "outputs differ"):
        yield only_after_the_switch(what)


def only_after_the_switch(what: str) -> Case:
    fault = Fault("prove current", "before", what, ALWAYS)
    return Case(f"{fault}", "of the release", (fault,), outcomes=(*_FAILED, "faulty", "unreachable"))


FOUND = {
    "state.json is no JSON": ("updated",),
    "state.json is a list": ("updated",),
    "state.json has numbers for versions": ("updated",),
    "state.json is gone": ("updated",),
    "state of the program before": ("updated",),
    "a pending switch of a boot before": ("updated",),
    "an endless pending switch": ("updated", "inconclusive"),
    "current leads nowhere": ("updated",),
    "current is a folder": ("updated",),
    "current is a file": ("updated",),
    "current is gone": ("updated",),
    "current leads out of releases": ("updated",),
    "NEW is a file": ("updated",),
    "NEW is half there": ("updated",),
    "NEW is there and rotten": ("updated",),
    "incoming NEW is a file": ("updated",),
    "incoming is a file": ("faulty",),
    "releases is a file": ("faulty",),
    "the lock is a folder": ("faulty",),
    "the program is rotten": ("updated",),
    "the program is half there": ("updated",),
    "the program's bytecode is empty": ("updated",),
    "the program's bytecode is half there": ("updated",),
    "the program's bytecode is zeros after its head": ("updated",),
    "the program's bytecode is another program's": ("updated",),
    "a lock that nobody gives back": ("updated", "inconclusive"),
    "the release before is rotten, and NEW fails": ("failed",),
    "the release before is gone, and NEW fails": ("failed", "faulty"),
    "signers lead nowhere": ("faulty",),
    "signers of somebody else": ("failed",),
    "the inventory says signed, and nothing is": ("faulty",),
    "no Python": ("faulty",),
    "a shell that greets": ("updated",),
    "it has proven a newer one": ("failed",),
    "a hundred releases of before": ("updated",),
    "another machine rolls NEW out meanwhile": ("updated", "inconclusive"),
}


def of_the_device() -> Iterator[Case]:
    for found, outcomes in FOUND.items():
        fails = found.endswith("NEW fails")
        faults = (Fault("prove current", "after", "too slow", ALWAYS),) if fails else ()
        yield Case(found, "of the device", faults, found, outcomes)


WRONG_TIME = {
    "NEW has expired": ("faulty",),
    "NEW has expired, and the clock is of years ago": ("updated",),
    "NEW will expire": ("updated",),
    "NEW will expire, and the clock is years ahead": ("faulty",),
    "the clock is years ahead": ("updated",),
}
SIGNED = "it takes signed releases"


def of_trust_and_time() -> Iterator[Case]:
    group = "of trust and time"
    for found, outcomes in WRONG_TIME.items():
        yield Case(found, group, found=found, outcomes=outcomes)
    yield Case(SIGNED, group, found=SIGNED, outcomes=("updated",))
    for step in ("offer", "put", "stage", "switch", "prove current", "confirm"):
        fault = Fault(step, "before", "signers replaced")
        refuses = step in ("offer", "put", "stage")  # what runs is nobody's to sign any more
        yield Case(f"{fault}", group, (fault,), SIGNED, _FAILED if refuses else ("updated",))
        again = Fault("start", "before", "session lost")
        for then in (again, Fault("inspect", "before", "program killed")):
            outcomes = _FAILED if refuses else _NOT_THE_RELEASE
            yield Case(f"{fault}, then {then}", group, (fault, then), SIGNED, outcomes)


AGENT = "an agent is sent a new program"


def of_an_agent() -> Iterator[Case]:
    """The program that it is sent is cut off, and so is its installation by root's timer."""
    yield Case(AGENT, "of an agent", found=AGENT, outcomes=("updated",))
    for what in ("program killed", "session lost", "cable pulled", "power cut", "pusher killed", "hangs"):
        for moment in moments("program"):
            yield at_an_agent(Fault("program", moment, what))
    for what in ("disk full", "disk read-only", "disk broken"):
        yield at_an_agent(Fault("program", "before", what))
    for step in ("keep its number", "keep the one before", "replace it"):
        for what in ("program killed", "power cut", "disk full", "disk read-only"):
            yield at_an_agent(Fault(step, "before", what))
        yield at_an_agent(Fault(step, "after", "power cut"))


def at_an_agent(fault: Fault) -> Case:
    """Whatever becomes of the program: the release before it was proven."""
    return Case(f"{AGENT}, {fault}", "of an agent", (fault,), AGENT, ("updated",))


def chains() -> Iterator[Case]:
    first = [Fault(step, "after", what) for step in ("stage", "switch", "prove current", "confirm")
             for what in ("session lost", "program killed")]  # fmt: skip
    second = ("session lost", "disk read-only", "program killed", "hangs")
    for fault in first:
        for what in second:
            yield chain(fault, Fault("start", "before", what))
    for what in ("watchdog killed", "power cut"):
        for step in ("prove current", "confirm"):
            yield chain(Fault("switch", "after", what), Fault(step, "before", "pusher killed"))
            yield chain(Fault(step, "before", what), Fault(step, "after", "cable pulled"))
    for what in ("disk read-only", "program killed", "hangs"):
        yield chain(Fault("prove current", "after", "session lost"), Fault("revert", "before", what))
        yield chain(Fault("prove current", "after", "session lost"), Fault("revert", "after", what))
        yield chain(Fault("confirm", "before", "pusher killed"), Fault("write state", "before", what, 3))
    for moment in ("before", "after"):
        yield chain(Fault("switch", "after", "watchdog killed"), Fault("confirm", moment, "hangs"))


def chain(*faults: Fault) -> Case:
    return Case(", then ".join(map(str, faults)), "chains", faults)


def one(group: str, fault: Fault, outcomes: tuple[str, ...] = _NOT_THE_RELEASE) -> Case:
    return Case(str(fault), group, (fault,), outcomes=outcomes)
