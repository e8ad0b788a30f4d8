"""What a rollout is told: which devices, in which waves, within which limits."""

from typing import Self

from pydantic import BaseModel, Field, field_validator, model_validator


class BenchmarkConfig(BaseModel, frozen=True, extra="forbid", title="On-device benchmark"):
    runs: int = Field(default=100, ge=10, le=10_000, description="Measured frames, at least.")
    min_s: float = Field(
        default=2.0,
        ge=0,
        le=60,
        description="Measured for at least this long, seconds: a governor takes one.",
    )
    warmup: int = Field(default=10, ge=0, le=1000, description="Frames run before, not measured, at least.")
    warmup_s: float = Field(
        default=0.5, ge=0, le=60, description="Warm-up of at least this long, seconds, and until steady."
    )
    threads: int = Field(
        default=1, ge=1, le=16, description="Threads of the runtime; 1 leaves the Pi's other cores free."
    )
    max_temperature_c: float = Field(
        default=80.0,
        ge=30,
        le=110,
        description="Hotter than this, °C, nothing is concluded (a Pi 5 slows down at 80).",
    )
    min_cpu_share: float = Field(
        default=0.8,
        ge=0,
        le=1,
        description="A latency over the limit is inconclusive if we had less of a core than this.",
    )


class RolloutConfig(BaseModel, frozen=True, extra="forbid", title="Rollout"):
    inventory: str = Field(
        default="",
        description="Path of the inventory (fleet.toml). Empty: the environment's STRESS_VISION_INVENTORY; "
        "without that there is no fleet.",
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
        description="More devices than this on which the release fails stop the rollout and undo it.",
    )
    max_failures_percent: float = Field(
        default=0.0, ge=0, le=100, description="The same in percent of a wave; the larger one counts."
    )
    max_faults_per_wave: int = Field(
        default=2,
        ge=0,
        le=1000,
        description="More devices than this that fail by themselves stop and undo a rollout.",
    )
    max_faults_percent: float = Field(
        default=20.0, ge=0, le=100, description="The same in percent of a wave; the larger one counts."
    )
    min_visits: int = Field(
        default=5, ge=1, le=1000, description="Devices' own faults decide nothing before this many visits."
    )
    max_parallel: int = Field(default=8, ge=1, le=256, description="Devices served at once.")
    connect_timeout_s: float = Field(
        default=10.0, ge=0.1, le=300, description="Limit of each step of a login, seconds."
    )
    command_timeout_s: float = Field(
        default=60.0, ge=1, le=3600, description="A device ends each command after this, seconds."
    )
    visit_timeout_s: float = Field(
        default=300.0, ge=1, le=7200, description="Limit of a whole visit before the switch, seconds."
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
    measure: bool = Field(
        default=True, description="Measure each updated device for seconds; one that is too slow goes back."
    )
    benchmark: BenchmarkConfig = Field(default=BenchmarkConfig(), description="How each device is measured.")

    @field_validator("waves")
    @classmethod
    def _grow_to_all(cls, waves: tuple[float, ...]) -> tuple[float, ...]:
        if not waves or waves[-1] != 1.0 or waves[0] <= 0 or list(waves) != sorted(set(waves)):
            raise ValueError(f"expected growing shares over 0 that end with 1.0, got {waves}")
        return waves

    @model_validator(mode="after")
    def _is_confirmed_in_time(self) -> Self:
        if self.confirm_within_s < self.command_timeout_s:
            raise ValueError(
                f"confirm_within_s ({self.confirm_within_s:g}) is shorter than command_timeout_s "
                f"({self.command_timeout_s:g}): a device would go back while it still proves the release"
            )
        return self

    def allowed_failures(self, devices: int) -> int:
        """How many of a wave's devices the release may fail on."""
        return max(self.max_failures_per_wave, int(devices * self.max_failures_percent / 100))

    def allowed_faults(self, devices: int) -> int:
        """How many of a wave's devices may fail by themselves."""
        return max(self.max_faults_per_wave, int(devices * self.max_faults_percent / 100))
