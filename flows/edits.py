"""What a person has changed of a deployment in the UI outlives the next time that it is deployed, and so does
a run that was due while nothing ran, which Prefect deletes where it is given schedules.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleUpdate, DeploymentUpdate
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import PrefectHTTPStatusError
from prefect.states import Scheduled

_DEPLOYING = timedelta(minutes=15)
"""Longer than it may take. A run that becomes due meanwhile is deleted as well as one that was due before."""
_SCHEDULE = {"schedule", "active", "max_scheduled_runs", "parameters", "slug"}


@contextmanager
def edits_kept() -> Iterator[None]:
    """Deploy inside of the block: deployments that were there keep their parameters, schedules and pauses.

    All else of them (code, form, limits, description) becomes what prefect.yaml says. Deleting a deployment
    in the UI brings all of it back at the next start.
    """
    with get_client(sync_client=True) as client:
        before = {one.id: one for one in client.read_deployments()}
        due = _due(client, datetime.now(UTC) + _DEPLOYING)
        yield
        for one in client.read_deployments():
            if one.id in before:
                _keep_schedules(client, before[one.id], one)
                _keep_parameters(client, before[one.id], one)
        _make_up(client, due)


def _due(client: SyncPrefectClient, by: datetime) -> list[FlowRun]:
    """The runs that are to begin by then and haven't yet, the last first."""
    asked = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])),
        expected_start_time=FlowRunFilterExpectedStartTime.model_validate({"before_": by}),
    )
    return client.read_flow_runs(flow_run_filter=asked, sort=FlowRunSort.EXPECTED_START_TIME_DESC)


def _make_up(client: SyncPrefectClient, due: list[FlowRun]) -> None:
    """Begin what was due and is not there any more: one run, however many were missed, since one does the
    work of all. It may have become due while we deployed."""
    now = datetime.now(UTC)
    missed = {
        run.deployment_id: run.expected_start_time
        for run in reversed(due)
        if run.deployment_id and run.expected_start_time and run.expected_start_time <= now
    }
    for deployment in missed.keys() - {run.deployment_id for run in _due(client, now)}:
        state = Scheduled(scheduled_time=missed[deployment])
        client.create_flow_run_from_deployment(deployment, state=state)


def _keep_schedules(client: SyncPrefectClient, before: DeploymentResponse, now: DeploymentResponse) -> None:
    for schedule in now.schedules:  # an update alone would add to them
        client.delete_deployment_schedule(now.id, schedule.id)
    schedules = [
        DeploymentScheduleUpdate.model_validate(one.model_dump(include=_SCHEDULE)) for one in before.schedules
    ]
    client.update_deployment(now.id, DeploymentUpdate(schedules=schedules, paused=before.paused))


def _keep_parameters(client: SyncPrefectClient, before: DeploymentResponse, now: DeploymentResponse) -> None:
    """As far as the flow still takes them: another version may have other ones."""
    known = (now.parameter_openapi_schema or {}).get("properties", {})
    kept = {name: value for name, value in before.parameters.items() if name in known}
    try:
        client.update_deployment(now.id, DeploymentUpdate(parameters={**now.parameters, **kept}))
    except PrefectHTTPStatusError:
        print(f"parameters of deployment {now.name} no longer fit its form: they are as deployed now")
