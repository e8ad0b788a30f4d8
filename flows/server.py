"""The Prefect server that is started for one command, where the user has none."""

import signal
from concurrent.futures import Future
from threading import Thread

from prefect.client.orchestration import get_client


def start_server() -> None:
    """Start the server for this command, unless PREFECT_API_URL names one; RuntimeError where none comes up.

    It is deaf to Ctrl-C, which a terminal sends to all that runs in its foreground: a run whose server has
    gone tries to reach it for minutes.
    """
    started: Future[None] = Future()
    Thread(target=_start, args=(started,), daemon=True).start()
    started.result()  # Ctrl-C is heard while this waits


def _start(started: Future[None]) -> None:
    # what a thread has blocked stays blocked in the processes that it starts
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with get_client(sync_client=True):
            started.set_result(None)
    except Exception as error:
        started.set_exception(error)
