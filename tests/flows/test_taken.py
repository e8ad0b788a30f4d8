"""Runs that a worker had taken and not begun, and processes of runs that were taken for dead."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from uuid import UUID, uuid4

import pytest
from prefect import State, flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentUpdate, WorkPoolCreate
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.responses import SetStateStatus
from prefect.states import Crashed, Pending, Running

from flows.taken import end_crashed, give_back

pytestmark = pytest.mark.usefixtures("prefect_server")


@flow
def greet() -> str:
    return "hello"


@pytest.fixture
def client() -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as client:
        yield client


@pytest.fixture
def deployment(client: SyncPrefectClient) -> Iterator[UUID]:
    client.create_work_pool(WorkPoolCreate(name="ours", type="process"))
    made = client.create_deployment(client.create_flow(greet), "taken", work_pool_name="ours")
    client.update_deployment(made, DeploymentUpdate(concurrency_limit=1))
    yield made
    client.delete_deployment(made)
    client.delete_work_pool("ours")


def test_it_is_scheduled_anew_and_gives_its_slot_back(client: SyncPrefectClient, deployment: UUID) -> None:
    taken, waiting = (client.create_flow_run_from_deployment(deployment) for _ in range(2))
    assert client.set_flow_run_state(taken.id, Pending()).status == SetStateStatus.ACCEPT
    assert client.set_flow_run_state(waiting.id, Pending()).status != SetStateStatus.ACCEPT
    give_back("ours", "this-machine")
    again = client.read_flow_run(taken.id)
    assert again.state_type == StateType.SCHEDULED and again.expected_start_time == taken.expected_start_time
    assert client.set_flow_run_state(waiting.id, Pending()).status == SetStateStatus.ACCEPT


def test_what_another_worker_or_the_worker_of_another_pool_has_taken_is_left_to_it(
    client: SyncPrefectClient, deployment: UUID
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
    client: SyncPrefectClient, deployment: UUID
) -> None:
    run = client.create_flow_run_from_deployment(deployment).id
    client.set_flow_run_state(run, Pending())
    starting = process_of(run)
    give_back("ours", "this-machine")
    assert starting.wait(10) < 0


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_of_a_run_that_was_taken_for_dead_no_process_wakes_up_again(
    client: SyncPrefectClient, deployment: UUID
) -> None:
    def run_in(state: State, of: UUID) -> tuple[FlowRun, subprocess.Popen[bytes]]:
        run = client.create_flow_run_from_deployment(of)
        client.set_flow_run_state(run.id, state, force=True)
        return run, process_of(run.id)

    other = client.create_deployment(client.create_flow(greet), "other", work_pool_name="ours")
    (crashed, frozen), (_, alive) = run_in(Crashed(), deployment), run_in(Running(), deployment)
    _, of_another, unknown = *run_in(Crashed(), other), process_of(uuid4())
    frozen.send_signal(signal.SIGSTOP)
    try:
        assert end_crashed(deployment) == [crashed.name]
        assert frozen.wait(10) < 0
        assert [one.poll() for one in (alive, of_another, unknown)] == [None] * 3
    finally:
        client.delete_deployment(other)
        for one in (frozen, alive, of_another, unknown):
            one.kill()
            one.wait()


def process_of(run: UUID) -> subprocess.Popen[bytes]:
    environment = os.environ | {"PREFECT__FLOW_RUN_ID": str(run)}
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], env=environment)
