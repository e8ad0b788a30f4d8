"""pytest plugin: Ctrl-C, pressed while a test runs."""

import os
import signal
import threading
from collections.abc import Callable, Iterator

import pytest


@pytest.fixture
def ctrl_c() -> Iterator[Callable[[], None]]:
    """Presses it until it is heard; also where the tests run in the background, in which it is ignored."""
    heard = threading.Event()

    def interrupt(*_: object) -> None:
        if not heard.is_set():
            heard.set()
            raise KeyboardInterrupt

    def press() -> None:
        # one that comes just before the main thread begins to wait doesn't wake it
        while not heard.wait(0.2):
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, interrupt)
    yield press
    signal.signal(signal.SIGINT, before)
