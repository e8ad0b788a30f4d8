"""Latency on the device itself, and whether the device was fit to be measured.

In: the program on a device (`deployments.program`) and a staged release. Out: `LatencyFigures`, milliseconds
for one frame as the application sees it (copy in, run, copy out), inputs of the release's golden set.

The percentile that is judged is p95: the mean hides stutter, p99 of 100 runs is a single run.
"""

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field

from deployments.program import Answer, DeviceProgram
from tasks.latency import Latency

_THROTTLE_FLAGS = ("under-voltage", "frequency capped", "throttled", "soft temperature limit")
_TERMINAL_SEQUENCE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(\x07|\x1b\\)?")


def plain(text: str) -> str:
    """One line of printable characters, for what devices say ends in terminals and logs."""
    shown = _TERMINAL_SEQUENCE.sub("", text)
    return " ".join("".join(c if c.isprintable() else " " for c in shown).split())


Plain = Annotated[str, AfterValidator(plain)]


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


class Health(BaseModel, frozen=True, title="Health", allow_inf_nan=False):
    """What a device tells of its state; None where it can't tell."""

    temperature_c: float | None = None
    throttled: int | None = None
    load_per_core: float | None = None

    def unfit(self, config: BenchmarkConfig) -> str | None:
        """Why a device in this state can't be measured (throttled, too hot), or None."""
        if self.throttled:
            flags = [name for bit, name in enumerate(_THROTTLE_FLAGS) if self.throttled >> bit & 1]
            return "throttled: " + ", ".join(flags)
        if self.temperature_c is not None and self.temperature_c > config.max_temperature_c:
            return (
                f"too hot: {self.temperature_c:.0f} °C, measured only up to {config.max_temperature_c:.0f} °C"
            )
        return None


class Machine(BaseModel, frozen=True, title="Machine"):
    """What a device is."""

    model: Plain
    architecture: Plain | None = None
    system: Plain | None = None
    cpus: int | None = None
    memory_bytes: int | None = None
    python: Plain | None = None
    runtime: Plain | None = None
    runtime_version: Plain | None = None


class LatencyFigures(Latency, frozen=True):
    warmup: int
    threads: int
    runtime: Plain
    delegate: Plain | None
    cpu_share: float
    health_before: Health
    health_after: Health
    machine: Machine

    def unfit(self, config: BenchmarkConfig) -> str | None:
        """Why these figures say nothing about the release, or None."""
        return self.health_before.unfit(config) or self.health_after.unfit(config)

    def too_busy(self, config: BenchmarkConfig) -> bool:
        """Other processes had the core for so long that a high latency may be theirs."""
        return self.cpu_share < config.min_cpu_share


def measure(
    program: DeviceProgram, version: str, config: BenchmarkConfig, *, current: bool, timeout_s: float
) -> Answer:
    """The program's answer: figures for `LatencyFigures`, or its refusal; `current` goes through the link."""
    return program.ask(
        "benchmark", version=version, current=current, runs=config.runs, warmup=config.warmup,
        threads=config.threads, timeout_s=timeout_s,
    )  # fmt: skip
