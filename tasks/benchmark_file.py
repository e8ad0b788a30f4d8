"""One .tflite file timed: on this machine, or on a device of the inventory, without a release or a rollout.

In: a file, whatever its inputs are. Out: `Latency` of a frame, `LatencyFigures` where a device measured. The
frames are noise: what a network of convolutions costs doesn't depend on what it sees.
"""

import hashlib
from pathlib import Path

import numpy as np
from prefect import get_run_logger, task

from deployments.fleet import Device
from deployments.program import DeviceProgram
from deployments.ssh import connect
from storage.errors import DeviceError, InputError
from storage.files import read_bounded
from tasks.benchmark import BenchmarkConfig, LatencyFigures, figures_of, plain
from tasks.convert.conversion import run_in_runtime
from tasks.latency import Latency
from tasks.litert import load

MARK = b"TFL3"
"""Bytes 4 to 8 of every TFLite file."""
_CONNECT_S = 10.0
_FILE_BYTES = 1 << 28


def check_tflite(path: Path) -> Path:
    """The path, where a TFLite file lies. InputError that says what was found instead."""
    if path.exists() and not path.is_file():
        # a pipe would be waited for, for ever
        raise InputError(f"{path} is no file; give the path of a .tflite file")
    try:
        with path.open("rb") as file:
            head = file.read(8)
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror}; give the path of a .tflite file") from None
    if head[4:] != MARK:
        raise InputError(
            f"{path} is no TFLite file: expected {MARK!r} in its bytes 4 to 8, got {head[4:]!r}; "
            "`stress-vision convert` makes them from an experiment"
        )
    return path


def time_here(path: Path, runs: int) -> Latency:
    """The file in ai-edge-litert on this machine, one thread. ModelError where that refuses it."""
    shape = load(check_tflite(path)).entry["shape"]
    tried = run_in_runtime(path, np.random.default_rng(0).integers(0, 256, shape, np.uint8), runs)
    return Latency.model_validate(tried["host_latency"])


def time_on_device(path: Path, device: Device, config: BenchmarkConfig, timeout_s: float) -> LatencyFigures:
    """The file on the device, as `deployments/pi/device.py` times it; nothing there is staged or switched.

    DeviceError where it can't be reached, refuses, or is in no state to be measured.
    """
    content = read_bounded(check_tflite(path), _FILE_BYTES)
    upload = f"timed-{hashlib.sha256(content).hexdigest()[:16]}"
    with connect(device, _CONNECT_S) as connection:
        program = DeviceProgram(connection)
        greeting = program.start(timeout_s=timeout_s)
        if not greeting["ok"]:
            raise DeviceError(f"device {device.name}: {plain(str(greeting['error']))}")
        answer = program.ask(
            "time", upload=upload, runs=config.runs, warmup=config.warmup, threads=config.threads,
            min_s=config.min_s, warmup_s=config.warmup_s, bytes=len(content), content=content,
            timeout_s=timeout_s,
        )  # fmt: skip
    if not answer["ok"]:
        raise DeviceError(
            f"device {device.name} can't time {path}: {plain(str(answer['error']))}; without --device it is "
            "timed on this machine, which tells whether the file is whole"
        )
    figures = figures_of(answer, device.name)
    if obstacle := figures.unfit(config):
        raise DeviceError(f"device {device.name} is in no state to be measured: {obstacle}; try again later")
    return figures


@task(name="benchmark", task_run_name="benchmark-{path.name}")
def benchmark_file(path: Path, device: Device | None, config: BenchmarkConfig, timeout_s: float) -> Latency:
    """Time a file and log its figures."""
    figures = time_on_device(path, device, config, timeout_s) if device else time_here(path, config.runs)
    said = ", ".join(f"{name} {value}" for name, value in figures.row().items())
    get_run_logger().info("%s on %s: %s", path.name, device.name if device else "this machine", said)
    return figures
