"""Roll a release out to the fleet.

In: a release and an inventory. Out: `FleetOutcome`, the truth about each device.

    outcome   RolloutConfig, and the four outcomes of a device
    visit     one device: prove, switch, prove again, confirm or go back
    waves     the fleet: canaries, growing shares, all; when to stop and undo
"""

from datetime import UTC, datetime
from pathlib import Path

from prefect import get_run_logger, task

from deployments.fleet import Fleet, load_fleet
from storage.objects import open_store
from storage.registry import Registry
from tasks.register import Release
from tasks.rollout.outcome import DeviceOutcome, FleetOutcome, RolloutConfig
from tasks.rollout.waves import roll_out

__all__ = [
    "DeviceOutcome",
    "FleetOutcome",
    "RolloutConfig",
    "record",
    "roll_out",
    "roll_out_release",
    "select_devices",
]


def select_devices(config: RolloutConfig) -> Fleet:
    """The devices that the configuration means; none where it names no inventory."""
    if not config.inventory:
        return Fleet(devices=())
    fleet = load_fleet(Path(config.inventory).expanduser())
    return fleet.group(config.group) if config.group else fleet


def record(registry: Registry, outcome: FleetOutcome) -> None:
    """Write each device's outcome and latency into the ledger."""
    at = datetime.now(UTC).isoformat(timespec="seconds")
    for device in outcome.devices:
        facts = device.model_dump(mode="json")
        registry.record_device(device.device, {"at": at, "release": outcome.release, **facts})
        if device.benchmark:
            figures = {"at": at, "device": device.device, **device.benchmark.model_dump(mode="json")}
            registry.record_benchmark(outcome.release, device.device, figures)


@task(name="roll-out", task_run_name="roll-out")
def roll_out_release(store_uri: str, release: Release, config: RolloutConfig) -> FleetOutcome:
    """Roll a registered release out to the inventory's devices, and record what became of each."""
    logger, registry = get_run_logger(), Registry(open_store(store_uri))
    fleet = select_devices(config)

    def say(device: DeviceOutcome) -> None:
        logger.info("%s: %s, %s (%.1f s)", device.device, device.outcome, device.reason, device.seconds)

    directory = registry.fetch(release.version, release.directory.parent)
    outcome = roll_out(directory, fleet, config, on_outcome=say)
    record(registry, outcome)
    logger.info(
        "%s: %s%s", release.version, outcome.counts, f", {outcome.stopped}" if outcome.stopped else ""
    )
    return outcome
