"""A fleet and one release, in waves: canaries, a growing share, all; stopped and undone by a stated rule.

Stop rule: more than `max_failures_per_wave` *failed* devices in a wave end the rollout, and the devices
that it has updated return to the release before. Unreachable and inconclusive devices say nothing about
the release: they never stop it, and a wave goes on to the next devices until it has had its number of
answers, so that a dead canary isn't mistaken for a proof.
"""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from deployments.fleet import Device, Fleet
from deployments.program import Answer
from tasks.rollout.config import RolloutConfig
from tasks.rollout.outcome import DeviceOutcome, FleetOutcome
from tasks.rollout.visit import Payload, read_payload, return_device, visit

Bring = Callable[[Device], DeviceOutcome]
"""Brings one device to the release, or leaves it as it was; never raises."""
TakeBack = Callable[[Device], Answer]
"""Has one device leave the release for the one before; never raises."""


def roll_out(
    release_dir: Path,
    fleet: Fleet,
    config: RolloutConfig,
    on_outcome: Callable[[DeviceOutcome], None] = lambda outcome: None,
) -> FleetOutcome:
    """Bring the fleet to the release in `release_dir`; what became of each device is a value.

    `on_outcome` hears each device's outcome as soon as it is known, from several threads.
    Raises InputError where the release itself is damaged: then no device has been spoken to.
    """
    payload = read_payload(release_dir, config)

    def bring(device: Device) -> DeviceOutcome:
        outcome = visit(device, payload, config)
        on_outcome(outcome)
        return outcome

    def take_back(device: Device) -> Answer:
        return return_device(device, payload.version, config, "the rollout was stopped")

    return in_waves(fleet, payload, config, bring, take_back)


def in_waves(
    fleet: Fleet, payload: Payload, config: RolloutConfig, bring: Bring, take_back: TakeBack
) -> FleetOutcome:
    """Bring wave after wave to the release, until all have answered or the stop rule ends it."""
    waiting, stopped = list(fleet.devices), None
    outcomes: dict[str, DeviceOutcome] = {}
    with ThreadPoolExecutor(config.max_parallel, thread_name_prefix="rollout") as pool:
        for number, target in enumerate(wave_targets(len(fleet), config), start=1):
            while waiting and stopped is None and (room := target - _answered(outcomes)) > 0:
                wave, waiting = waiting[:room], waiting[room:]
                found = list(pool.map(bring, wave))
                outcomes |= {outcome.device: outcome for outcome in found}
                stopped = _why_to_stop(number, found, config)
        if stopped:
            changed = [device for device in fleet.devices if _was_changed(outcomes.get(device.name), payload)]
            answers = zip(changed, pool.map(take_back, changed), strict=True)
            outcomes |= {
                device.name: _taken_back(outcomes[device.name], answer, stopped) for device, answer in answers
            }
    outcomes |= {device.name: _not_visited(device, stopped) for device in waiting}
    return FleetOutcome(
        release=payload.version,
        devices=tuple(outcomes[device.name] for device in fleet.devices),
        stopped=stopped,
        max_latency_ms=payload.max_latency_ms,
    )


def wave_targets(devices: int, config: RolloutConfig) -> list[int]:
    """How many devices have answered after each wave: the canaries, then growing shares of the fleet."""
    shares = [math.ceil(share * devices) for share in config.waves]
    return sorted({min(config.canaries, devices), *shares})


def _answered(outcomes: dict[str, DeviceOutcome]) -> int:
    return sum(outcome.outcome in ("updated", "failed") for outcome in outcomes.values())


def _why_to_stop(number: int, wave: list[DeviceOutcome], config: RolloutConfig) -> str | None:
    failed = [outcome for outcome in wave if outcome.outcome == "failed"]
    if len(failed) <= config.max_failures_per_wave:
        return None
    first = failed[0]
    return (
        f"wave {number}: {len(failed)} of {len(wave)} devices failed, "
        f"{config.max_failures_per_wave} allowed; {first.device}: {first.reason}"
    )


def _was_changed(outcome: DeviceOutcome | None, payload: Payload) -> bool:
    """Whether this rollout put the device on the release; one that ran it before stays as it is."""
    return (
        outcome is not None and outcome.outcome == "updated" and outcome.previous_release != payload.version
    )


def _taken_back(outcome: DeviceOutcome, answer: Answer, stopped: str) -> DeviceOutcome:
    """The outcome of a device that had the release when the rollout was stopped."""
    if answer["ok"]:
        change = {"running_release": answer["current"], "reason": f"returned: stopped in {stopped}"}
    else:
        change = {"reason": f"not returned: {answer['error']}; stopped in {stopped}"}
    return DeviceOutcome.model_validate({**outcome.model_dump(), "outcome": "failed", **change})


def _not_visited(device: Device, stopped: str | None) -> DeviceOutcome:
    return DeviceOutcome(
        device=device.name, outcome="inconclusive", reason=f"not visited: the rollout stopped in {stopped}"
    )
