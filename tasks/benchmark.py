"""Latency on the device itself, and whether the device was fit to be measured.

In: the program on a device (`deployments.program`) and a staged release. Out: `LatencyFigures`, milliseconds
for one frame as the application sees it (copy in, run, copy out), inputs of the release's golden set.

The percentile that is judged is p95: the mean hides stutter, p99 of 100 runs is a single run.
"""

import re
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, BaseModel, ValidationError

from storage.errors import DeviceError
from tasks.config.rollout import BenchmarkConfig
from tasks.latency import Latency

if TYPE_CHECKING:
    from deployments.program import Answer, DeviceProgram

_RUNS_FOR_P99 = 1000
_PLAIN_CHARACTERS = 500
_THROTTLE_FLAGS = ("under-voltage", "frequency capped", "throttled", "soft temperature limit")
_TERMINAL_SEQUENCE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(\x07|\x1b\\)?")


def plain(text: str) -> str:
    """One line of printable characters, not too many: what devices say ends in terminals and logs."""
    shown = _TERMINAL_SEQUENCE.sub("", text[: 10 * _PLAIN_CHARACTERS])
    line = " ".join("".join(c if c.isprintable() else " " for c in shown).split())
    return line if len(line) <= _PLAIN_CHARACTERS else line[: _PLAIN_CHARACTERS - 1] + "…"


Plain = Annotated[str, AfterValidator(plain)]


class Health(BaseModel, frozen=True, title="Health", allow_inf_nan=False):
    """What a device tells of its state; None where it can't tell."""

    temperature_c: float | None = None
    throttled: int | None = None
    load_per_core: float | None = None
    clock_mhz: int | None = None
    governor: Plain | None = None

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
    """One benchmark on a device; what older programs didn't measure is None."""

    warmup: int
    threads: int
    load_ms: float | None = None
    """Opening the model in a fresh process."""
    first_ms: float | None = None
    """The first inference after that."""
    seconds: float | None = None
    """How long the measured frames took."""
    peak_memory_bytes: int | None = None
    """Of the whole process: Python, numpy, the runtime and the model."""
    runtime: Plain
    delegate: Plain | None
    cpu_share: float
    health_before: Health
    health_after: Health
    machine: Machine

    @property
    def p99_is_indicative(self) -> bool:
        """Below a thousand frames p99 rests on fewer than ten of them."""
        return self.runs < _RUNS_FOR_P99

    def unfit(self, config: BenchmarkConfig) -> str | None:
        """Why these figures say nothing about the release, or None."""
        return self.health_before.unfit(config) or self.health_after.unfit(config)

    def too_busy(self, config: BenchmarkConfig) -> bool:
        """Other processes had the core for so long that a high latency may be theirs."""
        return self.cpu_share < config.min_cpu_share


def figures_of(answer: "Answer", device: str) -> LatencyFigures:
    """What a device measured; DeviceError where it declined, or where its answer can't be used."""
    if not answer["ok"]:
        raise DeviceError(f"device {device}: {plain(str(answer['error']))}")
    try:
        return LatencyFigures.model_validate(answer)
    except ValidationError as error:
        problem = error.errors(include_input=False)[0]
        what = plain(".".join(map(str, problem["loc"])))
        raise DeviceError(f"device {device}: its benchmark can't be used: {what}: {problem['msg']}") from None


def measure(
    program: "DeviceProgram",
    version: str,
    config: BenchmarkConfig,
    *,
    current: bool,
    timeout_s: float,
    quick: bool = False,
) -> "Answer":
    """Golden outputs, then latency: figures for `LatencyFigures`, or the device's refusal.

    `current` goes through the link as the application does; `quick` is as many frames as it takes to decide.
    """
    return program.ask(
        "prove", version=version, current=current, runs=config.runs, warmup=config.warmup,
        min_s=0.0 if quick else config.min_s, warmup_s=0.0 if quick else config.warmup_s,
        threads=config.threads, timeout_s=timeout_s,
    )  # fmt: skip
