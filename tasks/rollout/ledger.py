"""The ledger: what is seen of each device, written down as it happens.

A line of the ledger is what a device told last (`running_release`, `seen_at`) and what became of it in the
last rollout that visited it. Nobody's silence replaces what a device has told, and nothing older what is
newer, so a rollout that is killed leaves the truth of each device that it has come to.
"""

import contextlib
import threading
from collections.abc import Mapping
from datetime import UTC, datetime

from pydantic import ValidationError

from storage.errors import StoreError
from storage.registry import Registry
from tasks.benchmark import LatencyFigures
from tasks.rollout.outcome import DeviceOutcome, FleetOutcome


def read_ledger(registry: Registry) -> dict[str, DeviceOutcome]:
    """Device name to what was seen of it last; a line that can't be read says that nothing is known."""
    return {name: _line(facts) or _unreadable(name) for name, facts in registry.devices().items()}


def _line(facts: Mapping[str, object]) -> DeviceOutcome | None:
    try:
        return DeviceOutcome.model_validate(facts)
    except ValidationError:
        return None


def _unreadable(device: str) -> DeviceOutcome:
    reason = "its line of the ledger can't be read; the next rollout writes it anew"
    return DeviceOutcome(device=device, outcome="inconclusive", reason=reason, visited=False)


class Ledger:
    """Writes into the store's ledger for one run; what it can't write is told at the end."""

    def __init__(self, registry: Registry, release: str, run: str = ""):
        self._registry, self._release, self._run = registry, release, run
        self._missing: dict[str, str] = {}
        self._lock = threading.Lock()

    def observe(self, outcome: DeviceOutcome) -> None:
        """Write down a device's outcome; may be called from several threads."""
        missing = None
        try:
            self._write(outcome)
        except (StoreError, ValueError) as error:
            missing = f"{outcome.device}: {outcome.outcome}, {outcome.reason} ({error})"
        with self._lock:
            self._missing.pop(outcome.device, None)
            if missing:
                self._missing[outcome.device] = missing

    def close(self, fleet: FleetOutcome) -> None:
        """StoreError that names the devices whose last outcome isn't in the ledger; all others' are."""
        for outcome in fleet.devices:
            if outcome.device in self._missing:
                self.observe(outcome)
        if self._missing:
            some = "; ".join(list(self._missing.values())[:5])
            raise StoreError(
                f"{fleet.sentence} The ledger lacks {len(self._missing)} of {len(fleet.devices)} outcomes: "
                f"{some}. Roll {fleet.release} out again once the store can be written"
            )

    def _write(self, outcome: DeviceOutcome) -> None:
        known, now = self._known(outcome.device), datetime.now(UTC)
        if outcome.seen_at and known and known.seen_at and outcome.seen_at < known.seen_at <= now:
            return  # another run has seen it since, and none with a clock that is ahead
        if known and not outcome.seen_at:
            keep = {name: getattr(known, name) for name in ("running_release", "seen_at", "benchmark")}
            outcome = outcome.model_copy(update=keep)
        since = None if outcome.seen_at else (known and known.tried_since) or now
        line = outcome.model_copy(
            update={"benchmark": self._of_running(outcome, known), "tried_since": since}
        )
        facts = {"at": now.isoformat(timespec="seconds"), "run": self._run, "release": self._release}
        self._registry.record_device(outcome.device, {**facts, **line.model_dump(mode="json")})
        if outcome.benchmark and outcome.outcome != "inconclusive" and outcome.seen_at:
            figures = {**facts, "device": outcome.device, **outcome.benchmark.model_dump(mode="json")}
            self._registry.record_benchmark(self._release, outcome.device, outcome.seen_at, figures)

    def _known(self, device: str) -> DeviceOutcome | None:
        """What the ledger has; a line that can't be read is written anew."""
        with contextlib.suppress(StoreError):
            return _line(self._registry.device(device) or {})
        return None

    def _of_running(self, outcome: DeviceOutcome, known: DeviceOutcome | None) -> LatencyFigures | None:
        """The figures of what a device runs: those of a release that it has left would pass for them."""
        if outcome.benchmark and outcome.running_release == self._release:
            return outcome.benchmark
        stays = known and known.running_release == outcome.running_release
        return known.benchmark if known and stays else None
