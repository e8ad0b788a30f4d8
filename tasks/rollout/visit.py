"""One device and one release: prove it beside the running one, switch, prove it again, confirm.

Nothing is switched before the release has shown its golden outputs and its latency on this very device,
and nothing stays switched that doesn't show them again through `current`. Whatever happens to us in
between, the program on the device goes back by itself (`deployments/pi/device.py`).
"""

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from deployments.fleet import Device
from deployments.program import Answer, DeviceProgram
from deployments.ssh import connect
from storage.errors import DeviceError, InputError
from storage.manifest import MANIFEST, SIGNATURE, Manifest
from tasks.benchmark import Health, LatencyFigures, measure
from tasks.rollout.config import RolloutConfig
from tasks.rollout.outcome import DeviceOutcome, OutcomeKind


@dataclass(frozen=True)
class Payload:
    """What of a release goes to a device: manifest (and signature) first, then model and golden set."""

    version: str
    manifest_files: tuple[Path, ...]
    directory: Path
    max_latency_ms: float


class _Stop(Exception):
    """Ends a visit early; never leaves this module."""

    def __init__(self, outcome: OutcomeKind, reason: str):
        super().__init__(reason)
        self.outcome: OutcomeKind = outcome
        self.reason = reason


@dataclass
class _Progress:
    """How far a visit came, for its outcome whatever ends it."""

    previous: str | None = None
    running: str | None = None
    seen_at: datetime | None = None
    benchmark: LatencyFigures | None = None
    switching: bool = False


def read_payload(release_dir: Path, config: RolloutConfig) -> Payload:
    """Read a release's manifest and check the files against it.

    Raises InputError where they differ, StoreError where there is no manifest or that of another release.
    """
    manifest = Manifest.read(release_dir)
    if wrong := manifest.damaged(release_dir):
        raise InputError(
            f"release {release_dir}: {', '.join(wrong)} differ from the manifest; fetch it again"
        )
    signature = release_dir / SIGNATURE
    return Payload(
        version=manifest.version,
        manifest_files=(release_dir / MANIFEST, *([signature] if signature.exists() else [])),
        directory=release_dir,
        max_latency_ms=config.max_latency_ms or manifest.max_latency_ms,
    )


def visit(device: Device, payload: Payload, config: RolloutConfig) -> DeviceOutcome:
    """Bring one device to the release, or leave it as it was; every end is an outcome, none an exception."""
    started, progress = time.monotonic(), _Progress()
    outcome: OutcomeKind
    try:
        with connect(device, config.connect_timeout_s) as connection:
            outcome, reason = "updated", _update(DeviceProgram(connection), payload, config, progress)
    except _Stop as stop:
        outcome, reason = stop.outcome, stop.reason
    except DeviceError as error:
        outcome, reason = _after_losing(device, payload, config, progress, error)
    except Exception as error:  # one device's surprise must not cost us what we know of the others
        outcome, reason = "failed", f"unexpected {type(error).__name__}: {error}"
    return DeviceOutcome(
        device=device.name, outcome=outcome, reason=reason, previous_release=progress.previous,
        running_release=progress.running, seen_at=progress.seen_at, benchmark=progress.benchmark,
        seconds=time.monotonic() - started,
    )  # fmt: skip


def _update(program: DeviceProgram, payload: Payload, config: RolloutConfig, progress: _Progress) -> str:
    """Bring the device to the release; says how well it runs there."""
    _expect(program.install(timeout_s=config.command_timeout_s))
    seen = _expect(program.ask("inspect", timeout_s=config.command_timeout_s))
    progress.previous = progress.running = seen["current"]
    progress.seen_at = datetime.now(UTC)
    if seen["pending"]:
        raise _Stop("inconclusive", f"another rollout waits to confirm {seen['pending']['version']}")
    if obstacle := Health.model_validate(seen["health"]).unfit(config.benchmark):
        raise _Stop("inconclusive", obstacle)
    _deliver(program, payload, config)
    _prove(program, payload, config, progress, current=False)
    if seen["current"] == payload.version:
        return "ran this release already"
    figures = _switch(program, payload, config, progress)
    return f"p95 {figures.p95_ms:.2f} ms, at most {payload.max_latency_ms:g} ms"


def _deliver(program: DeviceProgram, payload: Payload, config: RolloutConfig) -> None:
    """Send what the device lacks, and have it prove and stage the whole."""
    timeout_s = config.command_timeout_s
    for file in payload.manifest_files:
        _expect(program.send(file, payload.version, timeout_s=timeout_s))
    for name in _expect(program.ask("need", version=payload.version, timeout_s=timeout_s))["missing"]:
        _expect(program.send(payload.directory / name, payload.version, timeout_s=timeout_s))
    _expect(program.ask("stage", version=payload.version, timeout_s=timeout_s))


def _prove(
    program: DeviceProgram, payload: Payload, config: RolloutConfig, progress: _Progress, *, current: bool
) -> LatencyFigures:
    """Golden outputs, then latency; on the staged release, or through the link as the application does."""
    _expect(
        program.ask(
            "check", version=payload.version, current=current, threads=config.benchmark.threads,
            timeout_s=config.command_timeout_s,
        )
    )  # fmt: skip
    answer = measure(
        program, payload.version, config.benchmark, current=current, timeout_s=config.command_timeout_s
    )
    figures = progress.benchmark = _figures(_expect(answer))
    if obstacle := figures.unfit(config.benchmark):
        raise _Stop("inconclusive", obstacle)
    if figures.p95_ms > payload.max_latency_ms:
        slow = f"p95 {figures.p95_ms:.2f} ms, expected at most {payload.max_latency_ms:g} ms"
        if figures.too_busy(config.benchmark):
            raise _Stop(
                "inconclusive", f"too busy to measure: {slow}, with {figures.cpu_share:.0%} of a core"
            )
        raise _Stop("failed", slow)
    return figures


def _figures(answer: Answer) -> LatencyFigures:
    """What a device measured; one that tells no figures, or NaN, has proven nothing."""
    try:
        return LatencyFigures.model_validate(answer)
    except ValidationError as error:
        problem = error.errors()[0]
        what = ".".join(map(str, problem["loc"]))
        raise _Stop("failed", f"its benchmark can't be used: {what}: {problem['msg']}") from error


def _switch(
    program: DeviceProgram, payload: Payload, config: RolloutConfig, progress: _Progress
) -> LatencyFigures:
    """Switch on probation, prove again, confirm; or go back and say why."""
    progress.switching = True
    version, timeout_s = payload.version, config.command_timeout_s
    answer = program.ask(
        "switch", version=version, confirm_within_s=config.confirm_within_s, timeout_s=timeout_s
    )
    progress.running = _expect(answer)["version"]
    try:
        figures = _prove(program, payload, config, progress, current=True)
        _expect(program.ask("confirm", token=answer["token"], timeout_s=timeout_s))
    except _Stop as stop:
        back = _expect(program.ask("revert", version=version, why=stop.reason, timeout_s=timeout_s))
        progress.running = back["current"]
        raise _Stop(stop.outcome, f"{stop.reason}; returned to {back['current'] or 'no release'}") from stop
    return figures


def _after_losing(
    device: Device, payload: Payload, config: RolloutConfig, progress: _Progress, error: DeviceError
) -> tuple[OutcomeKind, str]:
    """The connection is gone: before the switch nothing has changed, after it we ask once more to go back."""
    if not progress.switching:
        return "unreachable", str(error)
    answer = return_device(device, payload.version, config, "connection lost before it was confirmed")
    if answer["ok"]:
        progress.running = answer["current"]
        return "failed", f"{error}; returned to {answer['current'] or 'no release'}"
    progress.running = None
    return "unreachable", (
        f"{error}; without our confirmation it returns to {progress.previous or 'no release'} by itself "
        f"within {config.confirm_within_s:g} s of the switch"
    )


def return_device(device: Device, version: str, config: RolloutConfig, why: str) -> Answer:
    """Have a device leave `version` for the release before it; the answer, or why there is none."""
    try:
        with connect(device, config.connect_timeout_s) as connection:
            program = DeviceProgram(connection)
            return program.ask("revert", version=version, why=why, timeout_s=config.command_timeout_s)
    except DeviceError as error:
        return {"ok": False, "kind": "unreachable", "error": str(error)}


def _expect(answer: Answer) -> Answer:
    """The answer itself, unless the device declined."""
    if answer["ok"]:
        return answer
    raise _Stop("inconclusive" if answer["kind"] == "busy" else "failed", answer["error"])
