"""Instructions per inference, by a counter that the user names: a cost that no busy machine blurs.

In: a command and the path of a .tflite. Out: instructions of one inference, in millions.

The command is run without a shell, the model's path as its last argument, and prints one number: how many
instructions one inference takes, as a count (7228392, not 7.2). What it counts on is its own matter: an
emulated Cortex-A76, a board's own counters. Only figures of one counter compare.
"""

import math
import os
import shlex
import shutil
import signal
import subprocess
from pathlib import Path

from storage.errors import InputError

DEADLINE_S = 600
_FEWEST = 1000
"""No inference takes fewer instructions: a smaller number was meant in millions, or is no count at all."""


def find_counter(command: str) -> list[str]:
    """The command's words. Raises InputError where its program isn't there: ask before a long training."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise InputError(f"instruction_counter {command!r} can't be read: {error}") from None
    if not words or not shutil.which(words[0]):
        raise InputError(f"instruction_counter {command!r}: this machine has no such program")
    return words


def count_instructions(command: str, model: Path, deadline_s: float = DEADLINE_S) -> float:
    """Millions of instructions that one inference of `model` takes, as `command` counts them.

    Raises InputError where the command fails, passes its deadline, or prints anything but a count.
    """
    call = f"instruction_counter {command!r} on {model.name}"
    words = [*find_counter(command), str(model)]
    try:
        status, said, complaint = _run(words, call, deadline_s)
    except OSError as error:
        raise InputError(f"{call}: can't be started: {error.strerror}") from error
    if status:
        raise InputError(f"{call}: exit status {status}: {_last_line(complaint) or _last_line(said)}")
    try:
        count = float(said)
    except ValueError:
        raise InputError(f"{call}: expected one number on stdout, got {said.strip()[:100]!r}") from None
    if not math.isfinite(count) or count < _FEWEST:
        raise InputError(f"{call}: expected a count of at least {_FEWEST}, got {said.strip()}")
    return count / 1e6


def _run(words: list[str], call: str, deadline_s: float) -> tuple[int, str, str]:
    """Exit status, stdout and stderr. In a session of its own: a script's emulator ends with the script."""
    with subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, errors="replace", start_new_session=True,
    ) as process:  # fmt: skip
        try:
            said, complaint = process.communicate(timeout=deadline_s)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                raise InputError(f"{call}: no count within {deadline_s:g} s") from None
            raise
    return process.returncode, said, complaint


def _last_line(text: str) -> str:
    return "".join(text.strip().splitlines()[-1:])
