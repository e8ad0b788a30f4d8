"""Runs that a worker had taken and not begun."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentUpdate, WorkPoolCreate
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.responses import SetStateStatus
from prefect.states import Pending

from flows.taken import give_back

pytestmark = pytest.mark.usefixtures("prefect_server")


@flow
def greet() -> str:
    return "hello"


@pytest.fixture
def client() -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as client:
        yield client


@pytest.fixture
def deployment(client: SyncPrefectClient) -> Iterator[object]:
    client.create_work_pool(WorkPoolCreate(name="ours", type="process"))
    made = client.create_deployment(client.create_flow(greet), "taken", work_pool_name="ours")
    client.update_deployment(made, DeploymentUpdate(concurrency_limit=1))
    yield made
    client.delete_deployment(made)
    client.delete_work_pool("ours")


def test_it_is_scheduled_anew_and_gives_its_slot_back(client: SyncPrefectClient, deployment) -> None:
    taken, waiting = (client.create_flow_run_from_deployment(deployment) for _ in range(2))
    assert client.set_flow_run_state(taken.id, Pending()).status == SetStateStatus.ACCEPT
    assert client.set_flow_run_state(waiting.id, Pending()).status != SetStateStatus.ACCEPT
    give_back("ours", "this-machine")
    again = client.read_flow_run(taken.id)
    assert again.state_type == StateType.SCHEDULED and again.expected_start_time == taken.expected_start_time
    assert client.set_flow_run_state(waiting.id, Pending()).status == SetStateStatus.ACCEPT


def test_what_another_worker_or_the_worker_of_another_pool_has_taken_is_left_to_it(
    client: SyncPrefectClient, deployment
) -> None:
    run = client.create_flow_run_from_deployment(deployment).id
    client.set_flow_run_state(run, Pending())
    give_back("theirs", "this-machine")
    assert client.read_flow_run(run).state_type == StateType.PENDING
    client.update_flow_run_labels(run, {"prefect.worker.name": "another-machine"})
    give_back("ours", "this-machine")
    assert client.read_flow_run(run).state_type == StateType.PENDING
    client.update_flow_run_labels(run, {"prefect.worker.name": "this-machine"})
    give_back("ours", "this-machine")
    assert client.read_flow_run(run).state_type == StateType.SCHEDULED


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_process_that_was_starting_for_it_does_not_begin_beside_the_next_one(
    client: SyncPrefectClient, deployment
) -> None:
    run = client.create_flow_run_from_deployment(deployment).id
    client.set_flow_run_state(run, Pending())
    environment = os.environ | {"PREFECT__FLOW_RUN_ID": str(run)}
    starting = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], env=environment)
    give_back("ours", "this-machine")
    assert starting.wait(10) < 0
