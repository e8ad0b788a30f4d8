"""What a rollout is told, and what it says afterwards: one outcome for each device, four kinds."""

from typing import Literal

from pydantic import BaseModel, Field, field_validator

from tasks.benchmark import BenchmarkConfig, LatencyFigures

KPI_LATENCY_MS = 200.0
"""The user's limit for a frame on a Raspberry Pi 5."""


class RolloutConfig(BaseModel, frozen=True, extra="forbid", title="Rollout"):
    inventory: str = Field(
        default="", description="Path of the inventory (fleet.toml); empty: there is no fleet."
    )
    group: str = Field(default="", description="Only the devices of this group; empty: all of them.")
    canaries: int = Field(default=1, ge=1, le=100, description="Devices of the first wave.")
    waves: tuple[float, ...] = Field(
        default=(0.25, 1.0), description="Share of the fleet reached after each later wave, growing to 1.0."
    )
    max_failures_per_wave: int = Field(
        default=0,
        ge=0,
        le=1000,
        description="More failed devices than this in a wave stop the rollout and undo it.",
    )
    max_parallel: int = Field(default=8, ge=1, le=256, description="Devices served at once.")
    connect_timeout_s: float = Field(
        default=10.0, ge=0.1, le=300, description="Limit of each step of a login, seconds."
    )
    command_timeout_s: float = Field(
        default=120.0, ge=1, le=3600, description="Limit of each command, seconds."
    )
    confirm_within_s: float = Field(
        default=300.0,
        ge=1,
        le=3600,
        description="A switched device that hears nothing this long goes back, seconds.",
    )
    max_latency_ms: float | None = Field(
        default=None,
        gt=0,
        le=10_000,
        description="Limit for p95 of a frame, milliseconds; empty: that of the gate.",
    )
    benchmark: BenchmarkConfig = Field(default=BenchmarkConfig(), description="How each device is measured.")

    @field_validator("waves")
    @classmethod
    def _grow_to_all(cls, waves: tuple[float, ...]) -> tuple[float, ...]:
        if not waves or waves[-1] != 1.0 or waves[0] <= 0 or list(waves) != sorted(set(waves)):
            raise ValueError(f"expected growing shares over 0 that end with 1.0, got {waves}")
        return waves


class DeviceOutcome(BaseModel, frozen=True, title="Device"):
    """What became of one device.

    updated: runs the release, proven. failed: refused, broken or too slow, and back on the release before.
    unreachable: can't be spoken to. inconclusive: can't be judged (hot, throttled, busy, not visited).
    """

    device: str
    outcome: Literal["updated", "failed", "unreachable", "inconclusive"]
    reason: str
    previous_release: str | None = None
    running_release: str | None = None
    benchmark: LatencyFigures | None = None
    seconds: float = 0.0

    def row(self) -> dict[str, str | float | None]:
        """For a Prefect table artifact, the report or a terminal."""
        figures = self.benchmark
        return {
            "device": self.device,
            "outcome": self.outcome,
            "running": self.running_release or "",
            "p50 ms": round(figures.p50_ms, 3) if figures else None,
            "p95 ms": round(figures.p95_ms, 3) if figures else None,
            "p99 ms": round(figures.p99_ms, 3) if figures else None,
            "FPS": round(figures.fps, 1) if figures else None,
            "machine": figures.machine["model"] if figures else "",
            "reason": self.reason,
        }


class FleetOutcome(BaseModel, frozen=True, title="Fleet"):
    release: str
    devices: tuple[DeviceOutcome, ...]
    stopped: str | None = None
    max_latency_ms: float

    def of(self, outcome: str) -> tuple[DeviceOutcome, ...]:
        return tuple(device for device in self.devices if device.outcome == outcome)

    @property
    def updated(self) -> tuple[DeviceOutcome, ...]:
        return self.of("updated")

    @property
    def failed(self) -> tuple[DeviceOutcome, ...]:
        return self.of("failed")

    @property
    def unreachable(self) -> tuple[DeviceOutcome, ...]:
        return self.of("unreachable")

    @property
    def inconclusive(self) -> tuple[DeviceOutcome, ...]:
        return self.of("inconclusive")

    @property
    def counts(self) -> dict[str, int]:
        kinds = ("updated", "failed", "unreachable", "inconclusive")
        return {kind: len(self.of(kind)) for kind in kinds}

    @property
    def accepted(self) -> bool:
        """The release may become champion: not stopped, and proven on some device."""
        return self.stopped is None and bool(self.updated)

    @property
    def complete(self) -> bool:
        """Every device runs the release."""
        return len(self.updated) == len(self.devices)

    def table(self) -> list[dict[str, str | float | None]]:
        """One row a device."""
        return [device.row() for device in self.devices]
