"""How a flow ends: one word for a person, one state type for Prefect.

Deployed, Registered, Rejected, Drifted and Skipped are normal ends. A flow never says Completed when a device
failed: devices that were only away leave it PartlyDeployed, devices that failed make it Failed.
"""

from pathlib import Path

from prefect.states import Completed, Failed, State
from pydantic import BaseModel

from tasks.report import DriftedInputs, ReportInputs
from tasks.rollout import FleetOutcome


class Ended(BaseModel, frozen=True):
    """What the state carries for whoever started the run."""

    report: Path | None = None
    fleet: FleetOutcome | None = None


def night_state(inputs: ReportInputs, report: Path) -> State:
    """The final state of a night."""
    if inputs.fleet:
        return fleet_state(inputs.fleet, report)
    return Completed(name=inputs.outcome, message=inputs.headline, data=Ended(report=report))


def drifted_state(inputs: DriftedInputs, report: Path) -> State:
    """The final state of a night that drift stopped."""
    message = f"{inputs.headline} Look at the report, then set drift.stop = false to train all the same."
    return Completed(name="Drifted", message=message, data=Ended(report=report))


def fleet_state(fleet: FleetOutcome, report: Path | None = None) -> State:
    """The final state of a rollout."""
    ended = Ended(report=report, fleet=fleet)
    message = (
        f"{fleet.release} runs on {len(fleet.updated)} of {len(fleet.devices)} devices. {describe(fleet)}"
    )
    if fleet.complete:
        return Completed(name="Deployed", message=message.strip(), data=ended)
    if fleet.stopped or fleet.failed:
        return Failed(name="RolloutFailed", message=message, data=ended)
    if fleet.updated:
        return Completed(name="PartlyDeployed", message=message, data=ended)
    return Failed(name="NotDeployed", message=message, data=ended)


def describe(fleet: FleetOutcome) -> str:
    """The devices that don't run the release, each with its outcome and reason."""
    others = [device for device in fleet.devices if device.outcome != "updated"]
    return "; ".join(f"{device.device}: {device.outcome}, {device.reason}" for device in others)
