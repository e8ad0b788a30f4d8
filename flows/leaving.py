"""A command that is told to end is gone in time, whatever hangs.

Python runs a signal's handler between two steps of the main thread, and Prefect's raises an exception there.
Where that is in the midst of an import, the exception may be lost, or leave a lock held that every thread
needs: of 400 commands told to end at random moments three ran on, and one waited for ever. And a signal that
comes just before the main thread begins to wait doesn't wake it. So a thread hears of it, too.
"""

import os
import select
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import NoReturn

LEAVES_S = 60
"""How long a command has to end by itself. systemd waits for as long (`flows.unit`)."""
_ENDS = (signal.SIGINT, signal.SIGTERM)


def leave_in_time(within_s: float) -> None:
    """From now on be gone that long after Ctrl-C or SIGTERM: status 130 or 143, children are told to end.

    Signals that are ignored stay so. To be called in the main thread.
    """
    hearing, told = socket.socketpair()
    told.setblocking(False)  # or Python refuses it
    # written to as the signal arrives, before and whatever its handler does
    signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
    Thread(target=_leave, args=(hearing, told, within_s), name="leaving", daemon=True).start()


def end_at_once(status: int) -> NoReturn:
    """End this process as a power cut would; its children are told to end, where /proc names them."""
    for file in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):  # of a thread, or a child, that has ended since
            for child in file.read_bytes().split():  # decoded they may need an import, which hangs
                os.kill(int(child), signal.SIGTERM)
    os._exit(status)


def _leave(hearing: socket.socket, _told: socket.socket, within_s: float) -> None:
    while (number := hearing.recv(1)[0]) not in _ENDS:
        pass
    time.sleep(within_s)
    with suppress(OSError):  # closed, or full and read by nobody
        if select.select([], [2], [], 1)[1]:
            # past every lock: who holds one may be what hangs
            os.write(2, _said(within_s).encode())
    end_at_once(128 + number)


def _said(within_s: float) -> str:
    return (
        f"error: told to end, and not done with it after {within_s:g} s: ended as by a power cut. The same "
        "command goes on with what was finished; a device in the midst of a rollout goes back by itself\n"
    )
