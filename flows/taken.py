"""What runs leave behind: a turn, where a worker took them and died, or a process, where they froze.

A run that was taken and not begun has sent no sign of life to miss: it would stay Pending for ever, and keep
the slot of its deployment from every later one. A frozen process keeps the work directory from them.
"""

import os
import select
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import StateType
from prefect.exceptions import ObjectNotFound
from prefect.states import Scheduled

_LABEL = "prefect.worker.name"
_GONE_S = 30
_MARK = b"PREFECT__FLOW_RUN_ID="
"""In the environment of a run's process, and of those that it starts."""


def give_back(pool: str, worker: str) -> None:
    """Schedule anew what the worker of that name had taken from the pool; it may not run any more.

    A run that no worker had put its name to yet counts as its own, and what another has taken as the other's.
    """
    taken = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.PENDING])))
    ours = WorkPoolFilter(name=WorkPoolFilterName(any_=[pool]))
    with get_client(sync_client=True) as client:
        for run in client.read_flow_runs(flow_run_filter=taken, work_pool_filter=ours):
            if run.labels.get(_LABEL, worker) == worker:
                _end_process(run.id)  # it would begin beside what the next worker starts
                state = Scheduled(scheduled_time=run.expected_start_time)
                client.set_flow_run_state(run.id, state, force=True)


def end_crashed(deployment_id: UUID) -> list[str]:
    """End what lives on this machine of the deployment's runs that were taken for dead; the names of those
    that are gone.

    Call with the deployment's slot held: a run that is alive renews it, so these are frozen, and would go on
    beside others once they wake.
    """
    ended: list[str] = []
    with get_client(sync_client=True) as client:
        for run_id in {run_id for _, run_id in _processes()}:
            with suppress(ObjectNotFound):  # of another server
                run = client.read_flow_run(run_id)
                dead = run.deployment_id == deployment_id and run.state_type == StateType.CRASHED
                if dead and _end_process(run_id):
                    ended.append(run.name)
    return ended


def _end_process(run_id: UUID) -> bool:
    """End what works for the run, and see it gone: files, and the locks on them, go after the memory."""
    gone = True
    for process, its_run in _processes():
        if its_run == run_id:
            with suppress(OSError):  # it has ended meanwhile
                handle = os.pidfd_open(process)
                try:
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
                    gone &= bool(select.select([handle], [], [], _GONE_S)[0])
                finally:
                    os.close(handle)
    return gone


def _processes() -> Iterator[tuple[int, UUID]]:
    """(process, flow run) of each process of this user that works for a run."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError):  # it has ended meanwhile, is another user's, or the mark is none
            for line in (folder / "environ").read_bytes().split(b"\0"):
                if line.startswith(_MARK):
                    yield int(folder.name), UUID(line.removeprefix(_MARK).decode())
