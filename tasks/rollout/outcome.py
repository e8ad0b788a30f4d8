"""What a rollout says afterwards: an outcome for each device, and one word for the whole fleet."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, Field

from tasks.benchmark import LatencyFigures, Plain

OutcomeKind = Literal["updated", "failed", "faulty", "unreachable", "inconclusive"]
FleetWord = Literal["Deployed", "PartlyDeployed", "RolloutFailed", "NotDeployed"]
_NAMED, _REASON_CHARACTERS = 3, 200
_TABLE_ROWS = 200
_ENDS = ("failed", "returned", "faulty", "unreachable", "inconclusive", "not visited")
"""How a device without the release may have ended, in the order in which they are told."""


class DeviceOutcome(BaseModel, frozen=True, title="Device"):
    """What became of one device.

    updated: runs the release, proven. failed: the release is refused, hangs, crashes, answers otherwise or is
    too slow here. faulty: the device itself can't, its disk full or its runtime gone, or the release before
    fails on it in the same way. unreachable: can't be spoken to. inconclusive: can't be judged (hot,
    throttled, busy). `seen_at` is when it last told what it runs, None where it didn't; `running_release` is
    what it told.
    """

    device: str
    outcome: OutcomeKind
    reason: Plain
    previous_release: Plain | None = None
    running_release: Plain | None = None
    seen_at: datetime | None = None
    tried_since: datetime | None = None
    """Since when it has been tried and never told anything; None once it has. Kept by the ledger."""
    benchmark: LatencyFigures | None = None
    seconds: float = 0.0
    visited: bool = True
    """Whether this rollout spoke to it, or tried to."""
    returned: bool = False
    """Whether a rollout that was stopped has taken it back."""

    @property
    def end(self) -> str:
        """The outcome, or what a stopped rollout did with a device that is no cause of it."""
        if not self.visited:
            return "not visited"
        return "returned" if self.returned else self.outcome

    def sentence(self, release: str) -> str:
        """What became of it in a rollout of that release, for whoever reads the log."""
        runs, why = self.running_release or "no release", self.reason.removeprefix("returned: ")
        if self.returned:
            return f"{self.device} is back on {runs}: {why}."
        match self.outcome:
            case "updated" if self.previous_release == release:
                said = f"{self.device} runs {release}, as before: {why}"
            case "updated":
                before = self.previous_release or "nothing"
                said = f"{self.device} runs {release} now, and {before} before: {why}"
            case "failed":
                said = f"{release} fails on {self.device}, which runs {runs}: {why}"
            case "faulty":
                said = f"{self.device} has a fault of its own, and {self._runs_as_seen}: {why}"
            case "unreachable":
                said = f"{self.device} is out of reach, and {self._runs_as_seen}: {why}"
            case "inconclusive":
                said = f"{self.device} says nothing about {release}, and {self._runs_as_seen}: {why}"
        return f"{said} ({self.seconds:.1f} s)."

    @property
    def _runs_as_seen(self) -> str:
        return f"runs {self.running_release or 'no release'}" if self.seen_at else "didn't tell what it runs"

    def row(self) -> dict[str, str | float | None]:
        """For a Prefect table artifact, the report or a terminal."""
        figures = self.benchmark
        return {
            "device": self.device,
            "outcome": self.end,
            "running": self.running_release or "",
            "seen (UTC)": f"{self.seen_at.astimezone(UTC):%Y-%m-%d %H:%M}" if self.seen_at else "",
            "p50 ms": round(figures.p50_ms, 3) if figures else None,
            "p95 ms": round(figures.p95_ms, 3) if figures else None,
            "p99 ms": round(figures.p99_ms, 3) if figures else None,
            "FPS": round(figures.fps, 1) if figures else None,
            "machine": figures.machine.model if figures else "",
            "reason": self.reason,
        }


class FleetOutcome(BaseModel, frozen=True, title="Fleet"):
    """The truth about each device of one rollout; there is none of no device."""

    release: str
    devices: tuple[DeviceOutcome, ...] = Field(min_length=1)
    stopped: str | None = None
    max_latency_ms: float

    def of(self, outcome: OutcomeKind) -> tuple[DeviceOutcome, ...]:
        return tuple(device for device in self.devices if device.outcome == outcome)

    @property
    def updated(self) -> tuple[DeviceOutcome, ...]:
        return self.of("updated")

    @property
    def failed(self) -> tuple[DeviceOutcome, ...]:
        return self.of("failed")

    @property
    def accepted(self) -> bool:
        """The release may become champion: not stopped, and proven on some device."""
        return self.stopped is None and bool(self.updated)

    @property
    def complete(self) -> bool:
        """Every device runs the release."""
        return len(self.updated) == len(self.devices)

    @property
    def word(self) -> FleetWord:
        """How the rollout ended.

        Deployed: every device runs the release. RolloutFailed: a device refused it, or the rollout was
        stopped. PartlyDeployed: devices were away or could not be judged. NotDeployed: all of them.
        """
        if self.complete:
            return "Deployed"
        if self.stopped or self.failed:
            return "RolloutFailed"
        return "PartlyDeployed" if self.updated else "NotDeployed"

    @property
    def sentence(self) -> str:
        """On how many devices it is seen to run, and why not on others; a few hundred characters at most."""
        ends = sorted({device.end for device in self.devices} - {"updated"}, key=_ENDS.index)
        groups = [_why([one for one in self.devices if one.end == end], self.stopped or "") for end in ends]
        count = f"{self.release} is seen to run on {len(self.updated)} of {len(self.devices)} devices"
        stopped = f", stopped in {_shortened(self.stopped)}" if self.stopped else ""
        return f"{count}{stopped}. {'; '.join(groups)}" if groups else f"{count}{stopped}."

    def table(self, rows: int = _TABLE_ROWS) -> list[dict[str, str | float | None]]:
        """One row a device; of a large fleet first the devices that don't run the release, at most `rows`."""
        if len(self.devices) <= rows:
            return [device.row() for device in self.devices]
        others = [device for device in self.devices if device.outcome != "updated"]
        return [device.row() for device in (*others, *self.updated)[:rows]]


def _why(devices: Sequence[DeviceOutcome], stopped: str) -> str:
    """Who of one end, and the first one's reason, unless that has just been told."""
    names = ", ".join(device.device for device in devices[:_NAMED])
    more = f" and {len(devices) - _NAMED:,} more" if len(devices) > _NAMED else ""
    end, reason = devices[0].end, devices[0].reason
    told = end in ("returned", "not visited") or reason in stopped
    return f"{names}{more}: {end}" + ("" if told else f", {_shortened(reason)}")


def _shortened(reason: str) -> str:
    return reason if len(reason) <= _REASON_CHARACTERS else reason[: _REASON_CHARACTERS - 1].rstrip() + "…"
