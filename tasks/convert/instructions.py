"""Instructions per inference, by a counter that the user names: a cost that no busy machine blurs.

In: a command, which the environment variable STRESS_VISION_INSTRUCTION_COUNTER of this machine names, and the
path of a .tflite. Out: instructions of one inference, in millions. The command is no part of the
configuration: whoever may fill in a form must not choose what runs here.

It is run without a shell, the model's path as its last argument, and prints one number: how many
instructions one inference takes, as a count (7228392, not 7.2). What it counts on is its own matter: an
emulated Cortex-A76, a board's own counters. Only figures of one counter compare.
"""

import math
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from storage.errors import InputError

COUNTER_VARIABLE = "STRESS_VISION_INSTRUCTION_COUNTER"
DEADLINE_S = 600
_FEWEST = 1000
"""No inference takes fewer instructions: a smaller number was meant in millions, or is no count at all."""


def counter_command() -> str:
    """The command that counts on this machine; empty where there is none."""
    return os.environ.get(COUNTER_VARIABLE, "").strip()


def check_counter(deadline_s: float = DEADLINE_S) -> None:
    """See that the counter, where there is one, counts a small network, before a long training.

    Raises InputError as `count_instructions` does.
    """
    if command := counter_command():
        with tempfile.TemporaryDirectory() as directory:
            model = Path(directory) / "smallest.tflite"
            model.write_bytes(smallest_model())
            count_instructions(command, model, deadline_s)


def smallest_model() -> bytes:
    """A .tflite of one dense layer without learning: float32 (1, 128) to float32 (1, 128), weights zero."""
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools.flatbuffer_utils import convert_object_to_bytearray

    def tensor(name: str, shape: tuple[int, int], buffer: int) -> Any:
        made = schema.TensorT()
        made.name, made.shape, made.type, made.buffer = name, shape, schema.TensorType.FLOAT32, buffer
        return made

    layer, operation, code = schema.FullyConnectedOptionsT(), schema.OperatorT(), schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.FULLY_CONNECTED
    operation.inputs, operation.outputs = [0, 1, -1], [2]
    operation.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
    operation.builtinOptions = layer
    empty, weights, graph, model = schema.BufferT(), schema.BufferT(), schema.SubGraphT(), schema.ModelT()
    weights.data = bytes(4 * 128 * 128)
    graph.tensors = [tensor("in", (1, 128), 0), tensor("w", (128, 128), 1), tensor("out", (1, 128), 0)]
    graph.inputs, graph.outputs, graph.operators = [0], [2], [operation]
    model.version, model.buffers, model.subgraphs, model.operatorCodes = 3, [empty, weights], [graph], [code]
    return bytes(convert_object_to_bytearray(model))


def _words(command: str) -> list[str]:
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise InputError(f"{COUNTER_VARIABLE} {command!r} can't be read: {error}") from None
    if not words or not shutil.which(words[0]):
        raise InputError(f"{COUNTER_VARIABLE} {command!r}: this machine has no such program")
    return words


def count_instructions(command: str, model: Path, deadline_s: float = DEADLINE_S) -> float:
    """Millions of instructions that one inference of `model` takes, as `command` counts them.

    Raises InputError where the command fails, passes its deadline, or prints anything but a count.
    """
    call = f"{COUNTER_VARIABLE} {command!r} on {model.name}"
    words = [*_words(command), str(model)]
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
