"""Latency of what each device runs now, without a rollout: so that it has a history.

In: devices of an inventory. Out: a `DeviceBenchmark` each, kept in the store below fleet/benchmarks/, and a
picture of the history by device and release. Nothing on a device changes.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from pydantic import BaseModel, Field, ValidationError

from deployments.fleet import Device
from deployments.program import Answer, DeviceProgram
from deployments.ssh import connect
from storage.errors import DeviceError, StoreError
from storage.files import replacing
from storage.opening import open_store
from storage.registry import Registry
from tasks.benchmark import BenchmarkConfig, LatencyFigures, Plain, measure, plain
from tasks.rollout.visit import Seen
from tasks.side_by_side import side_by_side

_LINES = 12
"""Devices that a picture can tell apart."""


class FleetBenchmarkConfig(BaseModel, frozen=True, extra="forbid", title="Benchmark of a fleet"):
    threads: tuple[int, ...] = Field(
        default=(1, 2, 4), min_length=1, description="Threads of the runtime, one measurement each."
    )
    max_parallel: int = Field(default=8, ge=1, le=256, description="Devices measured at once.")
    connect_timeout_s: float = Field(
        default=10.0, ge=0.1, le=300, description="Limit of each step of a login."
    )
    command_timeout_s: float = Field(default=60.0, ge=1, le=3600, description="Limit of each measurement.")
    benchmark: BenchmarkConfig = Field(default=BenchmarkConfig(), description="How each is measured.")


class DeviceBenchmark(BaseModel, frozen=True, title="Measured device"):
    """What one device runs, and how fast; no figures where `reason` says why."""

    device: str
    release: str | None = None
    measured_at: datetime
    figures: tuple[LatencyFigures, ...] = ()
    """One for each number of threads, in the order asked for."""
    limit_ms: float | None = None
    """p95 that the release's own manifest allows."""
    before_ms: float | None = None
    """p95 on this device of the release that it was measured with before this one."""
    reason: Plain = ""

    @property
    def first(self) -> LatencyFigures | None:
        return self.figures[0] if self.figures else None

    @property
    def verdict(self) -> str:
        """Within or over the limit, and how it compares with the release before on this very device."""
        if self.first is None:
            return self.reason
        limit = f"at most {self.limit_ms:g} ms" if self.limit_ms else "no limit known"
        within = self.limit_ms is None or self.first.p95_ms <= self.limit_ms
        change = (
            f"; {self.first.p95_ms / self.before_ms - 1:+.0%} of the release before" if self.before_ms else ""
        )
        return f"{'within' if within else 'over'} {limit}{change}"

    def row(self) -> dict[str, str | float | None]:
        """For a table; p99 of few frames is marked."""
        one = self.first
        mark = "≈ " if one and one.p99_is_indicative else ""
        by_threads = {f"p50 ms, {each.threads} threads": round(each.p50_ms, 3) for each in self.figures[1:]}
        return {
            "device": self.device,
            "release": self.release or "",
            "p50 ms": round(one.p50_ms, 3) if one else None,
            "p95 ms": round(one.p95_ms, 3) if one else None,
            "p99 ms": f"{mark}{one.p99_ms:.3f}" if one else None,
            "frames": one.runs if one else None,
            **by_threads,
            "load ms": round(one.load_ms, 1) if one and one.load_ms else None,
            "first ms": round(one.first_ms, 2) if one and one.first_ms else None,
            "peak MB": round(one.peak_memory_bytes / 1e6) if one and one.peak_memory_bytes else None,
            "°C": one.health_after.temperature_c if one else None,
            "MHz": one.health_after.clock_mhz if one else None,
            "governor": one.health_after.governor if one else None,
            "runtime": f"{one.runtime}, {one.delegate}" if one else "",
            "verdict": self.verdict,
        }


def measure_device(device: Device, config: FleetBenchmarkConfig) -> DeviceBenchmark:
    """Measure what a device runs; that it can't be measured is a reason, not an exception."""
    now, release = datetime.now(UTC), None
    try:
        with connect(device, config.connect_timeout_s) as connection:
            program = DeviceProgram(connection)
            seen = Seen.model_validate(_expect(program.start(timeout_s=config.command_timeout_s)))
            release = seen.current
            if obstacle := seen.health.unfit(config.benchmark):
                return DeviceBenchmark(device=device.name, release=release, measured_at=now, reason=obstacle)
            if release is None:
                return DeviceBenchmark(device=device.name, measured_at=now, reason="runs no release")
            figures = tuple(_measured(program, release, config, threads) for threads in config.threads)
    except (DeviceError, ValidationError) as error:
        said = plain(str(error))
        return DeviceBenchmark(device=device.name, release=release, measured_at=now, reason=said)
    return DeviceBenchmark(device=device.name, release=release, measured_at=now, figures=figures)


def _measured(
    program: DeviceProgram, release: str, config: FleetBenchmarkConfig, threads: int
) -> LatencyFigures:
    how = config.benchmark.model_copy(update={"threads": threads})
    answer = measure(program, release, how, current=True, timeout_s=config.command_timeout_s)
    return LatencyFigures.model_validate(_expect(answer))


def _expect(answer: Answer) -> Answer:
    if answer["ok"]:
        return answer
    raise DeviceError(plain(str(answer["error"])))


def keep(registry: Registry, found: DeviceBenchmark) -> DeviceBenchmark:
    """Compare with the release's limit and with the release before, and add it to the device's history."""
    if found.release is None or found.first is None:
        return found
    earlier = [
        figures for figures in registry.benchmarks(found.device) if figures["release"] != found.release
    ]
    before = cast(float, earlier[-1]["p95_ms"]) if earlier else None
    release, figures = found.release, found.figures
    found = found.model_copy(update={"limit_ms": _limit(registry, release), "before_ms": before})
    by_threads = {str(each.threads): each.model_dump(mode="json") for each in figures}
    facts = {"at": found.measured_at.isoformat(timespec="seconds"), "release": release}
    facts |= {"device": found.device, **figures[0].model_dump(mode="json"), "by_threads": by_threads}
    registry.record_benchmark(release, found.device, found.measured_at, facts)
    return found


def _limit(registry: Registry, release: str) -> float | None:
    """Of a release that the store still has."""
    try:
        return registry.manifest(release).max_latency_ms
    except StoreError:
        return None


def draw_history(registry: Registry, devices: Sequence[str], path: Path) -> Path | None:
    """Write a picture of p50 and p95 by device and release; None where nothing was measured yet.

    Raises StoreError where the disk is full or refuses.
    """
    from matplotlib.figure import Figure

    histories = {name: registry.benchmarks(name) for name in devices[:_LINES]}
    releases = sorted({str(one["release"]) for history in histories.values() for one in history})
    if not releases:
        return None
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    for number, (name, history) in enumerate(histories.items()):
        places = [releases.index(str(one["release"])) + number / (2 * len(histories)) for one in history]
        p50, p95 = ([cast(float, one[key]) for one in history] for key in ("p50_ms", "p95_ms"))
        axes.vlines(places, p50, p95, color=f"C{number % 10}", linewidth=1)
        axes.plot(places, p50, "o", color=f"C{number % 10}", markersize=4, label=name)
    axes.set_xticks(range(len(releases)), [release[:15] for release in releases], rotation=30, ha="right")
    axes.set_ylabel("ms a frame: p50, and up to p95")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize="small", ncols=3)
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=80)
    return path


@task(name="benchmark", task_run_name="benchmark {device.name}", cache_policy=NO_CACHE, persist_result=False)
def benchmark_device(store_uri: str, device: Device, config: FleetBenchmarkConfig) -> State:
    """Measure one device, and keep its figures."""
    found = keep(Registry(open_store(store_uri)), measure_device(device, config))
    get_run_logger().info("%s: %s, %s", device.name, found.release or "no release", found.verdict)
    return (Completed if found.figures else Failed)(message=f"{device.name}: {found.verdict}", data=found)


def benchmark_devices(
    store_uri: str, devices: Sequence[Device], config: FleetBenchmarkConfig
) -> list[DeviceBenchmark]:
    """Measure all of them, so many at once, each in a task of the running flow."""

    def one(device: Device) -> DeviceBenchmark:
        state = benchmark_device(store_uri, device, config, return_state=True)
        found = state.result(raise_on_failure=False)
        if isinstance(found, DeviceBenchmark):
            return found
        return DeviceBenchmark(device=device.name, measured_at=datetime.now(UTC), reason=state.message or "")

    return side_by_side(one, devices, config.max_parallel)
