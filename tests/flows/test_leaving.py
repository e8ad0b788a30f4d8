"""A command that is told to end, and whose handlers come to nothing."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import wait_until

_HANGS = """
import _imp
import os
import signal
import subprocess
import sys
from flows import cli

def main():
    for one in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        # as where an exception is raised in a destructor: lost, and the command goes on
        signal.signal(one, lambda *_: print("heard", flush=True))
    if sys.argv[2] == "closed":
        os.close(2)
    if sys.argv[2] == "full":
        os.set_blocking(2, False)
        try:
            while os.write(2, b"." * 512):
                pass
        except BlockingIOError:
            os.set_blocking(2, True)
    server = subprocess.Popen(["sleep", "600"])
    _imp.acquire_lock()  # as left behind by an import that was interrupted: no thread can import from now on
    print(server.pid, flush=True)
    while True:
        signal.pause()

cli.LEAVES_S, cli.main = float(sys.argv[1]), main
cli.script()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_command_that_goes_on_when_it_is_told_to_end_is_ended_with_what_it_started(
    number: signal.Signals,
) -> None:
    process, server = _hanging("0.5")
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert said.count("\n") == 1 and "told to end, and not done with it after 0.5 s" in said
    wait_until(lambda: not _runs(server))


@pytest.mark.parametrize("stderr", ["closed", "full"])
def test_it_is_ended_where_it_can_not_say_so(stderr: str) -> None:
    process, server = _hanging("0", stderr)
    process.terminate()
    assert process.wait(60) == 128 + signal.SIGTERM
    process.communicate()
    wait_until(lambda: not _runs(server))


def test_other_signals_end_nothing_and_the_time_to_leave_is_kept() -> None:
    process, server = _hanging("600")
    for number in (signal.SIGUSR1, signal.SIGTERM):
        process.send_signal(number)
        assert process.stdout and process.stdout.readline() == "heard\n"
    assert process.poll() is None and _runs(server)
    os.kill(server, signal.SIGKILL)
    process.kill()
    process.communicate(timeout=60)


def _hanging(within_s: str, stderr: str = "open") -> tuple["subprocess.Popen[str]", int]:
    """A command that takes no notice of signals, at work, and the process that it has started."""
    command = ["env", "--default-signal=INT", sys.executable, "-c", _HANGS, within_s, stderr]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout
    return process, int(process.stdout.readline())


def _runs(pid: int) -> bool:
    """A process that has ended and that nobody waited for counts as ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0] not in "ZX"
    except OSError:
        return False
