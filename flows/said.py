"""What a run is called on Prefect's pages: when, with which preset, and in the end how it ended."""

from datetime import UTC, datetime
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.runtime import flow_run

from flows.outcome import ended_of


def night_name() -> str:
    """`2026-11-24 02:15 balanced`: the time it was due (UTC), and the preset, where it is known so early."""
    return _name(next((one.preset for one in flow_run.parameters.values() if hasattr(one, "preset")), None))


def run_name() -> str:
    """`2026-11-24 02:15 rollout champion`: the time it was due (UTC), what it does, and to which of many."""
    asked = flow_run.parameters.values()
    which = (getattr(one, field, "") for one in asked for field in ("release", "experiment"))
    # a whole configuration has settings of that name
    named = [one for one in which if isinstance(one, str) and one]
    return _name(" ".join([str(flow_run.flow_name), *named]))


def say_outcome(state: State, preset: str) -> State:
    """Put the outcome into the run's name, and into its tags what one looks for; returns `state`."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return state
    run = context.flow_run
    ended = ended_of(state)
    found = {preset, ended.label_set if ended else "", state.name or ""} - {""}
    with get_client(sync_client=True) as client:
        client.update_flow_run(
            UUID(str(run.id)), name=f"{_name(preset)} · {state.name}", tags=sorted({*run.tags, *found})
        )
    return state


def this_run() -> str | None:
    """Address, or id where it has none, of the Prefect run that is under way; None outside of one."""
    return flow_run.ui_url or flow_run.id


def _name(what: str | None) -> str:
    due = flow_run.scheduled_start_time or datetime.now(UTC)
    return f"{due.astimezone(UTC):%Y-%m-%d %H:%M} {what or ''}".strip()
