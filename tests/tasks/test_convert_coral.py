"""The file for a Coral, with a program in the compiler's place: it takes what the compiler takes, and writes
a graph as that does, all but the last operation in one of its own."""

import sys
from pathlib import Path

import pytest

from tasks.convert.coral import COMPILER, compile_for_coral

_COMPILES = """
import sys
from pathlib import Path
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools.flatbuffer_utils import convert_object_to_bytearray, read_model_from_bytearray

assert sys.argv[1:3] == ["-s", "-o"]
folder, source = Path(sys.argv[3]), Path(sys.argv[4])
tree = read_model_from_bytearray(bytearray(source.read_bytes()))
code = schema.OperatorCodeT()
code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
code.customCode = "edgetpu-custom-op"
tree.operatorCodes.append(code)
graph = tree.subgraphs[0]
taken = schema.OperatorT()
taken.opcodeIndex = len(tree.operatorCodes) - 1
taken.inputs, taken.outputs = list(graph.inputs), list(graph.operators[-2].outputs)
graph.operators = [taken, graph.operators[-1]]
(folder / f"{source.stem}_edgetpu.tflite").write_bytes(convert_object_to_bytearray(tree))
"""


@pytest.fixture
def int8(tmp_path: Path, tiny_releases: tuple[Path, Path]) -> Path:
    path = tmp_path / "model_int8.tflite"
    path.write_bytes((tiny_releases[0] / path.name).read_bytes())
    return path


def as_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "program.py").write_text(program)
    (folder / COMPILER).write_text(f'#!/bin/sh\nexec {sys.executable} {folder}/program.py "$@"\n')
    (folder / COMPILER).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_the_compiled_file_lies_beside_and_tells_how_much_the_accelerator_takes(
    int8: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_compiler(tmp_path, monkeypatch, _COMPILES)
    coral = compile_for_coral(int8)
    compiled = int8.with_name("model_int8_edgetpu.tflite")
    assert (coral.path, coral.bytes) == (compiled, compiled.stat().st_size)
    assert coral.operations and coral.on_tpu == coral.operations - 1
    assert f"{coral.on_tpu} of {coral.operations} operations" in coral.said
    assert coral.said.endswith("a rollout brings the plain INT8 file.")


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("import sys; sys.exit('ERROR: op builtin_code out of range')", "ended with 1 and said: ERROR: op"),
        ("print('Internal compiler error. Aborting!')", "ended with 0 and said: Internal compiler error"),
    ],
)
def test_a_graph_that_the_compiler_refuses_is_told_and_no_error(
    int8: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, why: str
) -> None:
    as_compiler(tmp_path, monkeypatch, program)
    coral = compile_for_coral(int8)
    assert coral.path is None and why in coral.said


def test_without_the_compiler_one_line_says_so(int8: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert compile_for_coral(int8).said == (
        "No file for a Coral: edgetpu_compiler is not on the path of this machine."
    )
