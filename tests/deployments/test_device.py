"""The program on the device, run as a device runs it: as a process, killed where it hurts."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import deployments
from tests.deployments.device_program import NEW, OLD, Answer, current, state, upload
from tests.waiting import wait_until

PROGRAM = Path(deployments.__file__).parent / "pi" / "device.py"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


def ask(root: Path, command: str, *words: object, program: tuple[str, ...] = (str(PROGRAM),)) -> Answer:
    line = [sys.executable, "-S", *program, "--root", str(root), command, *map(str, words)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=300, check=False)
    return (
        json.loads(done.stdout.splitlines()[-1]) if done.stdout else {"ok": False, "status": done.returncode}
    )


def stage(root: Path, version: str) -> str:
    upload(root, version)
    assert ask(root, "stage", "--version", version)["ok"]
    return version


def run_release(root: Path, version: str) -> str:
    """Stage, switch and confirm: the release that a device has run so far."""
    stage(root, version)
    assert ask(root, "confirm", "--token", ask(root, "switch", "--version", version)["token"])["ok"]
    return version


def test_an_unconfirmed_switch_goes_back_by_itself(root: Path) -> None:
    """Nobody speaks to the device meanwhile, and its watchdog outlives who asked for the switch."""
    old = run_release(root, OLD)
    new = stage(root, NEW)
    assert ask(root, "switch", "--version", new, "--confirm-within-s", 0.5)["version"] == new
    wait_until(lambda: state(root)["last_return"] is not None)
    assert state(root)["last_return"] == {"from": new, "to": old, "why": "not confirmed in time"}
    assert current(root) == old


def test_a_command_that_hangs_with_the_lock_does_not_keep_a_device_on_an_unconfirmed_release(
    root: Path,
) -> None:
    old, new = run_release(root, OLD), stage(root, NEW)
    held = (
        f"import fcntl, time; f = open({str(root / 'lock')!r}); print(flush=True); input(); "
        "fcntl.flock(f, 2); time.sleep(600)"
    )
    command = [sys.executable, "-c", held]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdin and holder.stdout and holder.stdout.readline(), "it has started"
        assert ask(root, "switch", "--version", new, "--confirm-within-s", 1)["ok"]
        holder.stdin.write("\n")
        holder.stdin.flush()
        wait_until(lambda: current(root) == old)
        assert holder.wait(60) == -signal.SIGKILL


def test_a_command_is_ended_by_the_kernel_after_its_time_box(root: Path) -> None:
    root.mkdir()
    os.mkfifo(root / "state.json")  # reading it never ends
    line = [sys.executable, "-S", str(PROGRAM), "--root", str(root), "--within-s", "1", "inspect"]
    assert subprocess.run(line, timeout=300, check=False).returncode == -signal.SIGALRM


_KILL_AT_STEP = """
import os, runpy, signal, sys, pathlib
left, step = [int(sys.argv[1])], pathlib.Path.replace
def counted(function):
    def call(*args, **kwargs):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    return call
for owner, name in ((pathlib.Path, "replace"), (pathlib.Path, "symlink_to"), (os, "fsync")):
    setattr(owner, name, counted(getattr(owner, name)))
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_killed_at_any_step_of_a_switch_current_is_a_whole_release_and_ends_as_the_proven_one(
    root: Path,
) -> None:
    old = run_release(root, OLD)
    new = stage(root, NEW)
    reached: list[str | None] = []
    answer: Answer = {}
    for step in range(1, 40):
        answer = ask(root, "switch", "--version", new, program=("-c", _KILL_AT_STEP, str(step), str(PROGRAM)))
        reached.append(current(root))
        assert reached[-1] in (old, new)
        assert (root / "current" / "model_int8.tflite").is_file()
        let_the_deadline_pass(root)
        assert ask(root, "inspect")["current"] == old
        if answer["ok"]:
            break
        assert answer["status"] == -signal.SIGKILL
    assert answer["ok"] and len(reached) > 6
    assert {old, new} == set(reached)


def let_the_deadline_pass(root: Path) -> None:
    """As if the time were up; waiting for it would race with whatever else this machine does."""
    pending = state(root)["pending"]
    if pending:
        (root / "state.json").write_text(json.dumps({**state(root), "pending": {**pending, "deadline": 0}}))


def test_the_program_needs_nothing_of_ours_and_no_runtime_to_switch(root: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    line = [sys.executable, "-I", "-S", str(PROGRAM), "--root", str(root), "inspect"]
    done = subprocess.run(
        line, capture_output=True, text=True, timeout=300, check=False, env=environment, cwd="/"
    )
    answer = json.loads(done.stdout)
    assert answer["ok"] and answer["machine"]["runtime"] is None
