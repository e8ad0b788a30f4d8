"""What a person has changed of a deployment in the UI outlives the next time that it is deployed."""

from collections.abc import Iterator
from contextlib import contextmanager

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleUpdate, DeploymentUpdate
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import PrefectHTTPStatusError

_SCHEDULE = {"schedule", "active", "max_scheduled_runs", "parameters", "slug"}


@contextmanager
def edits_kept() -> Iterator[None]:
    """Deploy inside of the block: deployments that were there keep their parameters, schedules and pauses.

    All else of them (code, form, limits, description) becomes what prefect.yaml says. Deleting a deployment
    in the UI brings all of it back at the next start.
    """
    with get_client(sync_client=True) as client:
        before = {one.id: one for one in client.read_deployments()}
        yield
        for one in client.read_deployments():
            if one.id in before:
                _keep_schedules(client, before[one.id], one)
                _keep_parameters(client, before[one.id], one)


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
