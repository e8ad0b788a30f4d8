"""How a flow's final word becomes Prefect's state; the word itself is the night's or the fleet's own.

A flow never says Completed when a device failed: devices that were only away leave it PartlyDeployed, one
that failed makes it Failed.
"""

from pathlib import Path

from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from pydantic import BaseModel

from tasks.night import Night
from tasks.rollout import FleetOutcome

_FAILED = ("RolloutFailed", "NotDeployed")


class Ended(BaseModel, frozen=True):
    """What the state carries for whoever started the run."""

    report: Path | None = None
    fleet: FleetOutcome | None = None
    label_set: str = ""
    """Which labels the data was prepared with."""


def night_state(night: Night, report: Path) -> State:
    """The final state of a night."""
    if night.outcome is None:
        raise ValueError(f"night {night.id} has not come to an end")
    labels = night.data.label_set if night.data else ""
    ended = Ended(report=report, fleet=night.fleet, label_set=labels)
    return _state(night.outcome, night.headline, ended)


def fleet_state(fleet: FleetOutcome) -> State:
    """The final state of a rollout."""
    return _state(fleet.word, fleet.sentence, Ended(fleet=fleet))


def ended_of(state: State) -> Ended | None:
    """What a final state carries; None for one that a night ends with before it has a report."""
    # within the flow, Prefect takes a state without data for one whose result went missing
    found = None if state.data is None else state.result(raise_on_failure=False)
    return found if isinstance(found, Ended) else None


def skipped_state(why: str) -> State:
    """The final state of a night that had nothing to do."""
    message = f"Data, configuration and code are those of {why}. Set force to train all the same."
    return Completed(name="Skipped", message=message)


def _state(word: str, message: str, ended: Ended) -> State:
    return (Failed if word in _FAILED else Completed)(name=word, message=message, data=ended)
