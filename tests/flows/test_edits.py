"""Deployments that a person has edited in the UI, deployed anew."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate, DeploymentUpdate
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterDeploymentId
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule
from prefect.states import Scheduled

from flows.edits import edits_kept

pytestmark = pytest.mark.usefixtures("prefect_server")


@flow
def greet(name: str = "", loud: bool = False) -> str:
    return name.upper() if loud else name


def deploy(client: SyncPrefectClient, **parameters: Any) -> DeploymentResponse:
    """As `prefect deploy` does, with a schedule of its own."""
    night = DeploymentScheduleCreate(schedule=CronSchedule(cron="15 2 * * *"), active=True, slug="nightly")
    made = client.create_deployment(
        client.create_flow(greet),
        "edited",
        parameters=parameters,
        schedules=[night],
        description="as deployed",
        parameter_openapi_schema={
            "type": "object", "properties": {"name": {"type": "string"}, "loud": {"type": "boolean"}},
        },
    )  # fmt: skip
    return client.read_deployment(made)


def test_parameters_schedules_and_pauses_of_the_ui_stay_and_all_else_is_as_deployed() -> None:
    with get_client(sync_client=True) as client:
        made = deploy(client, name="night")
        for schedule in made.schedules:
            client.delete_deployment_schedule(made.id, schedule.id)
        hour = IntervalSchedule(interval=timedelta(hours=1))
        hourly = DeploymentScheduleCreate(schedule=hour, active=False)
        client.update_deployment(
            made.id,
            DeploymentUpdate.model_validate(
                {
                    "parameters": {"name": "person", "gone": 1},
                    "schedules": [hourly.model_dump(exclude_unset=True)],
                    "paused": True,
                    "description": "edited",
                }
            ),
        )
        with edits_kept():
            assert deploy(client, name="night", loud=True).parameters == {"name": "night", "loud": True}
        found = client.read_deployment(made.id)
        assert found.parameters == {"name": "person", "loud": True}
        assert [(one.slug, one.active) for one in found.schedules] == [(None, False)]
        assert found.paused and found.description == "as deployed"
        client.delete_deployment(made.id)


def test_a_deployment_that_was_not_there_is_as_deployed() -> None:
    with get_client(sync_client=True) as client:
        with edits_kept():
            made = deploy(client, name="night")
        found = client.read_deployment(made.id)
        assert found.parameters == {"name": "night"} and [one.slug for one in found.schedules] == ["nightly"]
        client.delete_deployment(made.id)


def test_parameters_that_another_version_no_longer_takes_are_as_deployed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with get_client(sync_client=True) as client:
        made = deploy(client, name="night")
        with edits_kept():
            client.update_deployment(made.id, DeploymentUpdate(parameters={"loud": True}))
            schema = {
                "type": "object",
                "properties": {"name": {"type": "integer"}, "loud": {"type": "boolean"}},
            }
            client.update_deployment(
                made.id, DeploymentUpdate.model_validate({"parameter_openapi_schema": schema})
            )
        assert client.read_deployment(made.id).parameters == {"loud": True}
        assert "parameters of deployment edited no longer fit" in capsys.readouterr().out
        client.delete_deployment(made.id)


@pytest.mark.parametrize(("due_in_s", "made_up"), [(-60.0, True), (1.0, True), (600.0, False)])
def test_a_run_that_was_due_before_or_became_due_meanwhile_is_made_up_for(
    due_in_s: float, made_up: bool
) -> None:
    with get_client(sync_client=True) as client:
        made = deploy(client, name="night")
        due = datetime.now(UTC) + timedelta(seconds=due_in_s)
        run = client.create_flow_run_from_deployment(made.id, state=Scheduled(scheduled_time=due))
        with edits_kept():
            time.sleep(2)
            client.delete_flow_run(run.id)  # as Prefect does where schedules are given
        ours = FlowRunFilter(deployment_id=FlowRunFilterDeploymentId(any_=[made.id]))
        starts = [one.expected_start_time for one in client.read_flow_runs(flow_run_filter=ours)]
        assert (due in starts) == made_up
        client.delete_deployment(made.id)
