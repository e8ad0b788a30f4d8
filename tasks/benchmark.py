"""Latency on the device itself, and whether the device was fit to be measured.

In: the program on a device (`deployments.program`) and a staged release. Out: `LatencyFigures`, milliseconds
for one frame as the application sees it (copy in, run, copy out), inputs of the release's golden set.

The percentile that is judged is p95: the mean hides stutter, p99 of 100 runs is a single run.
"""

from pydantic import BaseModel, Field

from deployments.program import DeviceProgram

_THROTTLE_FLAGS = ("under-voltage", "frequency capped", "throttled", "soft temperature limit")


class BenchmarkConfig(BaseModel, frozen=True, extra="forbid", title="On-device benchmark"):
    runs: int = Field(default=100, ge=10, le=10_000, description="Measured frames.")
    warmup: int = Field(default=10, ge=0, le=1000, description="Frames run before, not measured.")
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


class LatencyFigures(BaseModel, frozen=True, title="Latency"):
    runs: int
    warmup: int
    threads: int
    mean_ms: float
    std_ms: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    fps: float
    runtime: str
    delegate: str | None
    cpu_share: float
    health_before: dict
    health_after: dict
    machine: dict

    def unfit(self, config: BenchmarkConfig) -> str | None:
        """Why these figures say nothing about the release, or None."""
        return unfit(self.health_before, config) or unfit(self.health_after, config)

    def too_busy(self, config: BenchmarkConfig) -> bool:
        """Other processes had the core for so long that a high latency may be theirs."""
        return self.cpu_share < config.min_cpu_share


def unfit(health: dict, config: BenchmarkConfig) -> str | None:
    """Why a device in this state can't be measured (throttled, too hot), or None."""
    flags = health["throttled"] or 0
    if flags:
        return "throttled: " + ", ".join(n for bit, n in enumerate(_THROTTLE_FLAGS) if flags >> bit & 1)
    heat = health["temperature_c"]
    if heat is not None and heat > config.max_temperature_c:
        return f"too hot: {heat:.0f} °C, measured only up to {config.max_temperature_c:.0f} °C"
    return None


def measure(
    program: DeviceProgram, version: str, config: BenchmarkConfig, *, current: bool, timeout_s: float
) -> dict:
    """The program's answer: figures for `LatencyFigures`, or its refusal; `current` goes through the link."""
    return program.ask(
        "benchmark", version=version, current=current, runs=config.runs, warmup=config.warmup,
        threads=config.threads, timeout_s=timeout_s,
    )  # fmt: skip
