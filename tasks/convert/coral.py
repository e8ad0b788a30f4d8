"""The INT8 file once more, compiled for a Coral (Edge TPU), where Google's compiler is on the path.

In: model_int8.tflite. Out: model_int8_edgetpu.tflite beside it, and how many of the graph's operations the
accelerator takes, counted in the two files themselves. It can't be run here: a device that has a Coral names
its library in the inventory (`delegate`), and `stress-vision benchmark FILE --device NAME` measures there.
"""

import shutil
import subprocess
import tempfile
from pathlib import Path

from pydantic import BaseModel

from storage.files import arriving

COMPILER = "edgetpu_compiler"
_CUSTOM = b"edgetpu-custom-op"
_TIMEOUT_S = 300


class Coral(BaseModel, frozen=True, extra="forbid"):
    """What became of the file for the accelerator; `path` is None where there is none, `said` tells why."""

    said: str
    path: Path | None = None
    bytes: int | None = None
    operations: int | None = None
    """Of the INT8 graph."""
    on_tpu: int | None = None
    """Of these, how many the accelerator takes; the rest runs on the device's CPU."""


def compile_for_coral(int8: Path) -> Coral:
    """Compile the file where the compiler is there; that it refuses a graph is told, no error."""
    compiler = shutil.which(COMPILER)
    if compiler is None:
        return Coral(said=f"No file for a Coral: {COMPILER} is not on the path of this machine.")
    path = int8.with_name(f"{int8.stem}_edgetpu.tflite")
    with tempfile.TemporaryDirectory() as folder:
        command = [compiler, "-s", "-o", folder, str(int8)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            return Coral(said=f"No file for a Coral: {COMPILER} could not be run: {error}.")
        made = Path(folder) / path.name
        if done.returncode or not made.exists():
            why = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[-1]
            return Coral(said=f"No file for a Coral: {COMPILER} ended with {done.returncode} and said: {why}")
        with arriving(path) as part:
            shutil.copyfile(made, part)
    return _coverage(int8, path)


def _coverage(int8: Path, path: Path) -> Coral:
    every = len(_operations(int8))
    left = sum(custom != _CUSTOM for custom in _operations(path))
    on_tpu = every - left
    return Coral(
        said=f"{path.name} for a Coral: {on_tpu} of {every} operations run on the accelerator. It is for "
        "`stress-vision benchmark`; a rollout brings the plain INT8 file.",
        path=path,
        bytes=path.stat().st_size,
        operations=every,
        on_tpu=on_tpu,
    )


def _operations(path: Path) -> list[bytes | None]:
    """The custom name of each operation of a file's graph, None for built-in ones."""
    from ai_edge_litert import schema_py_generated as schema

    tree = schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes()))
    return [tree.operatorCodes[op.opcodeIndex].customCode for op in tree.subgraphs[0].operators]
