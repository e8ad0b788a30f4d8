"""A rollout without Prefect, from a release's folder to the ledger, as the flow does it task by task."""

from pathlib import Path

from deployments.fleet import Device, Fleet
from storage.registry import Registry
from tasks.rollout import DeviceOutcome, FleetOutcome, RolloutConfig
from tasks.rollout.ledger import Ledger
from tasks.rollout.payload import read_payload
from tasks.rollout.visit import Hear, return_device
from tasks.rollout.waves import bring_device, in_waves
from tasks.signing import sign_program


def roll_out(
    release_dir: Path, fleet: Fleet, config: RolloutConfig, on_outcome: Hear = lambda outcome: None
) -> FleetOutcome:
    """Bring the fleet to the release in `release_dir`; `on_outcome` hears of each device as it is known."""
    payload = read_payload(release_dir, config, renewal=sign_program())

    def bring(device: Device) -> DeviceOutcome:
        return bring_device(device, payload, config, on_outcome)

    def take_back(device: Device, why: str) -> DeviceOutcome:
        return return_device(device, payload.version, config, why)

    return in_waves(fleet, payload, config, bring, take_back, on_outcome)


def record(registry: Registry, fleet: FleetOutcome, run: str = "") -> None:
    """Write down the outcome of every device that was visited; StoreError as of `Ledger.close`."""
    ledger = Ledger(registry, fleet.release, run)
    for outcome in fleet.devices:
        if outcome.visited:
            ledger.observe(outcome)
    ledger.close(fleet)
