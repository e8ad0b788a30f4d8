"""A file timed on a device that answers what it is told to; over real SSH: tests/flows/test_steps.py."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flatbuffers
import pytest
from ai_edge_litert import schema_py_generated as schema

from deployments.fleet import Device
from deployments.program import Answer
from storage.errors import DeviceError, ModelError
from tasks.benchmark import BenchmarkConfig
from tasks.benchmark_file import time_here, time_on_device
from tasks.convert.instructions import smallest_model
from tests.tasks.small_run import latency
from tests.tasks.test_rollout_visit import DEVICE

GOOD: Answer = {"ok": True, **latency(5).model_dump(mode="json")}
HOT = {"temperature_c": 91.0}


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> dict[str, Answer]:
    """What the device answers to each command."""
    told: dict[str, Answer] = {"start": {"ok": True}, "time": GOOD}

    class Program:
        def __init__(self, connection: object) -> None:
            assert connection == "connection"

        def start(self, **_: object) -> Answer:
            return told["start"]

        def ask(self, command: str, **_: object) -> Answer:
            return told[command]

    @contextlib.contextmanager
    def connect(device: Device, timeout_s: float) -> Iterator[str]:
        assert device is DEVICE and timeout_s > 0
        yield "connection"

    monkeypatch.setattr("tasks.benchmark_file.connect", connect)
    monkeypatch.setattr("tasks.benchmark_file.DeviceProgram", Program)
    return told


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.tflite"
    path.write_bytes(b"1234TFL3 and what follows")
    return path


def test_figures_of_a_fit_device_are_told(answers: dict[str, Answer], file: Path) -> None:
    assert time_on_device(file, DEVICE, BenchmarkConfig(), 60).p50_ms == 5


@pytest.mark.parametrize(
    ("command", "answer", "why"),
    [
        ("start", {"ok": False, "kind": "error", "error": "no Python"}, "no Python"),
        (
            "time",
            {"ok": False, "kind": "refused", "error": "no\x1b[31m\nruntime"},
            r"can't time .*model\.tflite: no runtime; without --device",
        ),
        ("time", {**GOOD, "p95_ms": float("nan")}, "can't be used: p95_ms"),
        ("time", {"ok": True}, "can't be used: runs"),
        ("time", {**GOOD, "health_after": HOT}, "in no state to be measured: too hot"),
    ],
)
def test_a_device_that_can_not_be_measured_is_one_error_that_names_it(
    answers: dict[str, Any], file: Path, command: str, answer: Answer, why: str
) -> None:
    answers[command] = answer
    with pytest.raises(DeviceError, match=rf"device pi-1.*{why}"):
        time_on_device(file, DEVICE, BenchmarkConfig(), 60)


def test_half_a_file_is_one_error_that_says_where_a_whole_one_comes_from(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(smallest_model()[:200])
    with pytest.raises(
        ModelError, match=r"model\.tflite: .*valid Flatbuffer.*is it whole\? `stress-vision convert`"
    ):
        time_here(path, 10)


def test_a_file_that_takes_floats_is_timed_too(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(smallest_model())
    assert time_here(path, 10).p95_ms > 0


def test_a_graph_without_an_input_is_one_error(tmp_path: Path) -> None:
    tree = schema.ModelT.InitFromObj(schema.Model.GetRootAs(smallest_model()))
    tree.subgraphs[0].inputs = []
    builder = flatbuffers.Builder(1024)
    builder.Finish(tree.Pack(builder), b"TFL3")
    path = tmp_path / "model.tflite"
    path.write_bytes(builder.Output())
    with pytest.raises(ModelError, match=r"model\.tflite: .* it has no input, expected that of an image"):
        time_here(path, 10)
