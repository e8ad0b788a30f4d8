"""A fleet and one release, in waves: canaries, a growing share, all; stopped and undone by a stated rule.

Stop rule: more *failed* devices in a wave than allowed end the rollout, and the devices that it has updated
return to the release before. *Faulty* devices, which would fail with any release, have limits of their own,
and decide nothing before `min_visits` devices of a wave were visited. Unreachable and inconclusive devices
never stop a rollout. A wave goes on to the next devices until it has had its number of answers, so that a
dead canary isn't mistaken for a proof; it starts no further device once its limit is passed.
"""

import math
import threading
from collections.abc import Callable, Iterable, Sequence

from deployments.fleet import Device, Fleet
from tasks.bounds import share_at_most
from tasks.config.rollout import RolloutConfig
from tasks.rollout.outcome import DeviceOutcome, FleetOutcome
from tasks.rollout.payload import Payload
from tasks.rollout.visit import Hear, measure_updated, visit
from tasks.side_by_side import side_by_side

Bring = Callable[[Device], DeviceOutcome]
"""Brings one device to the release, or leaves it as it was; never raises."""
TakeBack = Callable[[Device, str], DeviceOutcome]
"""Has one device leave the release for the one before, because of the words; never raises."""
Work = Callable[[Device], DeviceOutcome | None]
Serve = Callable[[str, Sequence[Device], Work, int], list[DeviceOutcome | None]]
"""Does the work for each of the devices, so many at once; the words say what for. Keeps the order.

What is raised meanwhile, such as Ctrl-C, comes out when the devices under way are done; no other is begun.
"""


def in_threads(
    label: str, devices: Sequence[Device], work: Work, max_parallel: int
) -> list[DeviceOutcome | None]:
    """The plain way to serve."""
    return side_by_side(work, devices, max_parallel)


def bring_device(device: Device, payload: Payload, config: RolloutConfig, hear: Hear) -> DeviceOutcome:
    """Visit a device, and measure it where it was updated."""
    outcome = visit(device, payload, config, hear)
    if config.measure and outcome.outcome == "updated":
        outcome = measure_updated(device, payload, config, outcome)
    return outcome


def in_waves(
    fleet: Fleet,
    payload: Payload,
    config: RolloutConfig,
    bring: Bring,
    take_back: TakeBack,
    on_outcome: Hear = lambda outcome: None,
    serve: Serve = in_threads,
    say: Callable[[str], None] = lambda words: None,
) -> FleetOutcome:
    """Bring wave after wave to the release, until all have answered or the stop rule ends it."""
    waiting, outcomes, stopped = list(fleet.devices), dict[str, DeviceOutcome](), None
    for number, target in enumerate(wave_targets(len(fleet), config), start=1):
        wave = _Wave(number, target - _answered(outcomes.values()), config)
        while waiting and wave.stopped is None and (room := target - _answered(outcomes.values())) > 0:
            devices, waiting = waiting[:room], waiting[room:]
            found = serve(f"wave {number}", devices, wave.heard(bring, on_outcome), config.max_parallel)
            outcomes |= {outcome.device: outcome for outcome in found if outcome}
        if stopped := wave.stopped:
            say(f"stopped in {stopped}")
            break
        say(wave.proves(outcomes.values()))
    if stopped:
        changed = [device for device in fleet.devices if _was_changed(outcomes.get(device.name), payload)]
        back = _Returning(take_back, outcomes, stopped, on_outcome)
        found = serve("returning", changed, back.one, config.max_parallel)
        outcomes |= {outcome.device: outcome for outcome in found if outcome}
    return FleetOutcome(
        release=payload.version,
        devices=tuple(outcomes.get(device.name) or _not_visited(device, stopped) for device in fleet.devices),
        stopped=stopped,
        max_latency_ms=payload.max_latency_ms,
    )


def wave_targets(devices: int, config: RolloutConfig) -> list[int]:
    """How many devices have answered after each wave: the canaries, then growing shares of the fleet."""
    canaries = min(config.canaries, devices)
    later = {math.ceil(share * devices) for share in config.waves}
    return [canaries, *sorted(target for target in later if target > canaries)]


class _Wave:
    """The outcomes of one wave, and whether they stop the rollout; shared by its threads."""

    def __init__(self, number: int, devices: int, config: RolloutConfig):
        self._number, self._config = number, config
        self._allowed_failures = config.allowed_failures(devices)
        self._allowed_faults = config.allowed_faults(devices)
        self._found: list[DeviceOutcome] = []
        self._lock = threading.Lock()
        self.stopped: str | None = None

    def heard(self, bring: Bring, on_outcome: Hear) -> Work:
        """`bring`, as long as nothing has stopped the rollout."""

        def work(device: Device) -> DeviceOutcome | None:
            if self.stopped:
                return None
            outcome = bring(device)
            on_outcome(outcome)
            with self._lock:
                self._found.append(outcome)
                self.stopped = self.stopped or self._why_to_stop()
            return outcome

        return work

    def proves(self, all_outcomes: Iterable[DeviceOutcome]) -> str:
        """What the answers so far say about the devices that haven't been asked, as a 95 % bound."""
        outcomes = list(all_outcomes)
        failed, tried = sum(one.outcome == "failed" for one in outcomes), _answered(outcomes)
        if not tried:
            return f"wave {self._number}: no device has answered"
        return (
            f"wave {self._number}: {tried - failed} of {tried} devices prove the release; with 95 % "
            f"confidence it fails on {share_at_most(failed, tried):.0%} of all at most"
        )

    def _why_to_stop(self) -> str | None:
        failed = [outcome for outcome in self._found if outcome.outcome == "failed"]
        faulty = [outcome for outcome in self._found if outcome.outcome == "faulty"]
        if len(failed) > self._allowed_failures:
            return self._said(failed, self._allowed_failures)
        if len(faulty) > self._allowed_faults and len(self._found) >= self._config.min_visits:
            return self._said(faulty, self._allowed_faults)
        return None

    def _said(self, some: list[DeviceOutcome], allowed: int) -> str:
        count = f"{len(some)} {some[0].outcome} of {len(self._found)} visited, {allowed} allowed"
        return f"wave {self._number}: {count}; {some[0].device}: {some[0].reason}"


class _Returning:
    """Takes devices of a stopped rollout back, and tells what they run then."""

    def __init__(
        self, take_back: TakeBack, outcomes: dict[str, DeviceOutcome], stopped: str, on_outcome: Hear
    ):
        self._take_back, self._outcomes = take_back, outcomes
        self._stopped, self._on_outcome = stopped, on_outcome

    def one(self, device: Device) -> DeviceOutcome:
        before, back = self._outcomes[device.name], self._take_back(device, _short(self._stopped))
        seen = back if back.seen_at else before
        outcome = before.model_copy(
            update={
                "outcome": "failed",
                "returned": back.outcome == "failed",
                "reason": back.reason if back.outcome == "failed" else _not_returned(back.reason),
                "running_release": seen.running_release,
                "seen_at": seen.seen_at,
            }
        )
        self._on_outcome(outcome)
        return outcome


def _not_returned(reason: str) -> str:
    return reason if reason.startswith("not returned") else f"not returned: {reason}"


def _answered(outcomes: Iterable[DeviceOutcome]) -> int:
    return sum(outcome.outcome in ("updated", "failed") for outcome in outcomes)


def _was_changed(outcome: DeviceOutcome | None, payload: Payload) -> bool:
    """Whether this rollout put the device on the release; one that ran it before stays as it is."""
    if outcome is None or outcome.previous_release == payload.version:
        return False
    return outcome.outcome == "updated" or outcome.running_release == payload.version


def _short(stopped: str) -> str:
    """For the devices that aren't its cause: without the reason of the one that is."""
    return f"the rollout stopped in {stopped.partition(';')[0]}"


def _not_visited(device: Device, stopped: str | None) -> DeviceOutcome:
    reason = f"not visited: {_short(stopped or '')}"
    return DeviceOutcome(device=device.name, outcome="inconclusive", reason=reason, visited=False)
