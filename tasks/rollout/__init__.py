"""Roll a release out to the fleet.

In: a release and an inventory. Out: `FleetOutcome`, the truth about each device.

    config    RolloutConfig: which devices, in which waves, within which limits
    outcome   the four outcomes of a device, the four words for a fleet
    visit     one device: prove, switch, prove again, confirm or go back
    waves     the fleet: canaries, growing shares, all; when to stop and undo
"""

import os
from datetime import UTC, datetime
from pathlib import Path

from prefect import get_run_logger, task

from deployments.fleet import Fleet, load_fleet
from deployments.ssh import private_key
from storage.errors import FleetError, StoreError
from storage.opening import open_store
from storage.registry import Registry
from tasks.register import Release
from tasks.rollout.config import RolloutConfig
from tasks.rollout.outcome import DeviceOutcome, FleetOutcome, FleetWord
from tasks.rollout.waves import roll_out

__all__ = [
    "DeviceOutcome",
    "FleetOutcome",
    "FleetWord",
    "RolloutConfig",
    "check_fleet",
    "record",
    "roll_out",
    "roll_out_release",
]


def check_fleet(config: RolloutConfig) -> Fleet | None:
    """The devices that configuration or environment mean, None without an inventory; no device is spoken to.

    Raises InputError or FleetError where the inventory, the group or a key file can't be used.
    """
    inventory = config.inventory or os.environ.get("STRESS_VISION_INVENTORY", "")
    if not inventory:
        return None
    fleet = load_fleet(Path(inventory).expanduser())
    if config.group:
        fleet = fleet.group(config.group)
    first_of = {device.key_file: device for device in reversed(fleet.devices)}
    for device in first_of.values():
        private_key(device)
    return fleet


def record(registry: Registry, outcome: FleetOutcome) -> None:
    """Write each device's outcome and latency into the ledger.

    Raises StoreError that names the devices whose outcome isn't in it; all others are.
    """
    at = datetime.now(UTC).isoformat(timespec="seconds")
    missing: list[str] = []
    for device in outcome.devices:
        try:
            _record_device(registry, outcome.release, device, at)
        except (StoreError, ValueError) as error:
            missing.append(f"{device.device}: {device.outcome}, {device.reason} ({error})")
    if missing:
        raise StoreError(
            f"{outcome.sentence} The ledger lacks {len(missing)} of {len(outcome.devices)} outcomes: "
            f"{'; '.join(missing)}. Roll {outcome.release} out again once the store can be written"
        )


def _record_device(registry: Registry, release: str, device: DeviceOutcome, at: str) -> None:
    facts = {"at": at, "release": release, **device.model_dump(mode="json")}
    if device.seen_at is None:  # what it runs is what it ran when it was last seen
        known = registry.device(device.device) or {}
        facts |= {name: known.get(name) for name in ("running_release", "seen_at")}
    registry.record_device(device.device, facts)
    if device.benchmark:
        figures = {"at": at, "device": device.device, **device.benchmark.model_dump(mode="json")}
        registry.record_benchmark(release, device.device, figures)


@task(name="roll-out", task_run_name="roll-out")
def roll_out_release(store_uri: str, release: Release, config: RolloutConfig) -> FleetOutcome:
    """Roll a registered release out to the inventory's devices, and record what became of each."""
    logger, registry = get_run_logger(), Registry(open_store(store_uri))
    fleet = check_fleet(config)
    if fleet is None:
        raise FleetError(
            "no fleet to roll out to: name its inventory in rollout.inventory or STRESS_VISION_INVENTORY"
        )

    def say(device: DeviceOutcome) -> None:
        logger.info("%s: %s, %s (%.1f s)", device.device, device.outcome, device.reason, device.seconds)

    directory = registry.fetch(release.version, release.directory.parent)
    outcome = roll_out(directory, fleet, config, on_outcome=say)
    logger.info(
        "%s: %s%s", release.version, outcome.counts, f", {outcome.stopped}" if outcome.stopped else ""
    )
    record(registry, outcome)
    return outcome
