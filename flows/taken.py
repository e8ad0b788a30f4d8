"""Runs that a worker had taken and not begun when it died, alone or with all else.

They have sent no sign of life to miss: they would stay Pending for ever, and keep the slot of their
deployment from every later one.
"""

import os
import signal
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
from prefect.states import Scheduled

_LABEL = "prefect.worker.name"


def give_back(pool: str, worker: str) -> None:
    """Schedule anew what the worker of that name had taken from the pool; it may not run any more.

    A run that no worker had put its name to yet counts as its own, and what another has taken as the other's.
    """
    taken = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.PENDING])))
    ours = WorkPoolFilter(name=WorkPoolFilterName(any_=[pool]))
    with get_client(sync_client=True) as client:
        for run in client.read_flow_runs(flow_run_filter=taken, work_pool_filter=ours):
            if run.labels.get(_LABEL, worker) == worker:
                _end_process(run.id)
                state = Scheduled(scheduled_time=run.expected_start_time)
                client.set_flow_run_state(run.id, state, force=True)


def _end_process(run_id: UUID) -> None:
    """End what was already starting for the run: it would begin beside what the next worker starts."""
    mark = f"PREFECT__FLOW_RUN_ID={run_id}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended meanwhile, or is another user's
            if mark in (folder / "environ").read_bytes().split(b"\0"):
                os.kill(int(folder.name), signal.SIGKILL)
