"""What a rollout says afterwards: an outcome for each device, and one word for the whole fleet."""

from datetime import UTC, datetime
from typing import Literal, get_args

from pydantic import BaseModel, Field

from tasks.benchmark import LatencyFigures, Plain

OutcomeKind = Literal["updated", "failed", "unreachable", "inconclusive"]
FleetWord = Literal["Deployed", "PartlyDeployed", "RolloutFailed", "NotDeployed"]


class DeviceOutcome(BaseModel, frozen=True, title="Device"):
    """What became of one device.

    updated: runs the release, proven. failed: refused, broken or too slow, and back on the release before.
    unreachable: can't be spoken to. inconclusive: can't be judged (hot, throttled, busy, not visited).
    `seen_at` is when it last told what it runs, None where it didn't; `running_release` is None where it
    runs none, or nobody knows.
    """

    device: str
    outcome: OutcomeKind
    reason: Plain
    previous_release: Plain | None = None
    running_release: Plain | None = None
    seen_at: datetime | None = None
    benchmark: LatencyFigures | None = None
    seconds: float = 0.0

    def row(self) -> dict[str, str | float | None]:
        """For a Prefect table artifact, the report or a terminal."""
        figures = self.benchmark
        return {
            "device": self.device,
            "outcome": self.outcome,
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
    def counts(self) -> dict[str, int]:
        return {kind: len(self.of(kind)) for kind in get_args(OutcomeKind)}

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
        """On how many devices the release runs, and of each other one why not."""
        others = [device for device in self.devices if device.outcome != "updated"]
        why = "; ".join(f"{device.device}: {device.outcome}, {device.reason}" for device in others)
        count = f"{self.release} runs on {len(self.updated)} of {len(self.devices)} devices"
        return f"{count}. {why}" if why else f"{count}."

    def table(self) -> list[dict[str, str | float | None]]:
        """One row a device."""
        return [device.row() for device in self.devices]
