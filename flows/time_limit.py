"""A run that hangs ends by itself, so that it keeps no slot from the nights after it.

An exception can't end a thread that is stuck in a driver or a socket, so the process goes. That is as a
power cut to everything else: the next night takes up the record, and a device in mid-rollout reverts.
"""

import contextvars
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext
from prefect.states import Failed

from flows.leaving import end_at_once

_MARK_S = 30
"""How long the server has to take the final state."""
_log = logging.getLogger("prefect.flow_runs")


@contextmanager
def time_limit(hours: float) -> Iterator[None]:
    """End this process with status 1 where the block takes longer, its run marked Failed, "TimedOut"."""
    ended = threading.Event()
    context = contextvars.copy_context()
    arguments = (context, ended, hours)
    threading.Thread(target=_end_after, args=arguments, name="time limit", daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _end_after(context: contextvars.Context, ended: threading.Event, hours: float) -> None:
    if ended.wait(3600 * hours):
        return
    said = f"Not done after {hours:g} hours (time_limit_h), and ended. The next night goes on with it."
    _log.error(said)
    # a server that hangs too must not keep us
    marking = threading.Thread(target=context.run, args=(_mark, said), daemon=True)
    marking.start()
    marking.join(_MARK_S)
    end_at_once(1)


def _mark(said: str) -> None:
    run = FlowRunContext.get()
    if run and run.flow_run:
        with suppress(Exception), get_client(sync_client=True) as client:
            client.set_flow_run_state(UUID(str(run.flow_run.id)), Failed(name="TimedOut", message=said))
