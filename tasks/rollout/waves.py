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
from tasks.rollout.config import RolloutConfig
from tasks.rollout.outcome import DeviceOutcome, FleetOutcome
from tasks.rollout.visit import Payload, read_payload, return_device, visit


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
    waiting, outcomes, stopped = list(fleet.devices), {}, None
    with ThreadPoolExecutor(config.max_parallel, thread_name_prefix="rollout") as pool:

        def visit_one(device: Device) -> DeviceOutcome:
            outcome = visit(device, payload, config)
            on_outcome(outcome)
            return outcome

        for number, target in enumerate(wave_targets(len(fleet), config), start=1):
            while waiting and stopped is None and (room := target - _answered(outcomes)) > 0:
                wave, waiting = waiting[:room], waiting[room:]
                found = list(pool.map(visit_one, wave))
                outcomes |= {outcome.device: outcome for outcome in found}
                stopped = _why_to_stop(number, found, config)
        if stopped:
            outcomes |= _return_updated(pool, fleet, payload, config, outcomes, stopped)
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


def _return_updated(
    pool: ThreadPoolExecutor,
    fleet: Fleet,
    payload: Payload,
    config: RolloutConfig,
    outcomes: dict[str, DeviceOutcome],
    stopped: str,
) -> dict[str, DeviceOutcome]:
    """Take this rollout's own devices back to the release that they had; others stay as they are."""
    by_name = {device.name: device for device in fleet.devices}
    changed = [
        outcome
        for outcome in outcomes.values()
        if outcome.outcome == "updated" and outcome.previous_release != payload.version
    ]

    def give_back(outcome: DeviceOutcome) -> DeviceOutcome:
        answer = return_device(by_name[outcome.device], payload.version, config, "the rollout was stopped")
        if answer["ok"]:
            change = {"running_release": answer["current"], "reason": f"returned: stopped in {stopped}"}
        else:
            change = {"reason": f"not returned: {answer['error']}; stopped in {stopped}"}
        return outcome.model_copy(update={"outcome": "failed", **change})

    return {outcome.device: outcome for outcome in pool.map(give_back, changed)}


def _not_visited(device: Device, stopped: str | None) -> DeviceOutcome:
    return DeviceOutcome(
        device=device.name, outcome="inconclusive", reason=f"not visited: the rollout stopped in {stopped}"
    )
