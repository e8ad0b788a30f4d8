"""What a rollout is told: which devices, in which waves, within which limits."""

from pydantic import BaseModel, Field, field_validator

from tasks.benchmark import BenchmarkConfig


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
