"""Every format of one model: convert, try out in the runtime, give the file its name."""

import hashlib
import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np

from storage.errors import InputError, ModelError
from storage.files import arriving, write_whole
from tasks.config.convert import ConvertConfig, Format
from tasks.convert.converted import ConvertedModels, TfliteModel
from tasks.convert.coral import compile_for_coral
from tasks.convert.formats import to_tflite
from tasks.convert.instructions import count_instructions, counter_command
from tasks.convert.ranges import MARGIN, widen
from tasks.prepare import PreparedData
from tasks.train.networks import load_network

CONVERSION = "conversion.json"
"""What was found of every file: size, tensors, delegate, latency with all its figures."""
_TRIAL_TIMEOUT_S = 300
_MOST_REPAIRS = 3


def convert(model_path: Path, data: PreparedData, config: ConvertConfig, out_dir: Path) -> ConvertedModels:
    """Write model_<format>.tflite under `out_dir`, each loaded and run in ai-edge-litert first, and what was
    found of them as conversion.json. What lies there already, whole and made of the same, is taken as it is.

    Calibrates on real (not augmented) training images only. Raises ModelError where a file can't be
    converted, loaded or run, naming the operation where the runtime allows to tell, and InputError where
    the instruction counter can't be used.
    """
    network = load_network(model_path)
    if not all(np.isfinite(weights).all() for weights in network.get_weights()):
        raise ModelError(f"{model_path}: weights hold NaN or infinity; look at the run's training history")
    images = calibration_images(data, config.calibration_images)
    out_dir.mkdir(parents=True, exist_ok=True)
    formats = dict.fromkeys(("int8", *config.formats))
    made_of = _digest(network, images, config)
    standing = standing_models(out_dir, made_of)
    models = {
        name: standing.get(name) or _convert_one(network, name, images, config, out_dir) for name in formats
    }
    coral = compile_for_coral(models["int8"].path)
    converted = ConvertedModels(models=models, coral=coral, made_of=made_of)
    write_whole(out_dir / CONVERSION, converted.model_dump_json(indent=1))
    return converted


def _digest(network, images: np.ndarray, config: ConvertConfig) -> str:
    """What the files are made of. The weights, not the .keras file: saved again, that has other bytes."""
    settings = [version("tensorflow"), version("ai-edge-litert"), config.benchmark_runs, counter_command()]
    digest = hashlib.sha256(json.dumps(settings).encode())
    for array in (images, *network.get_weights()):
        digest.update(f"{array.dtype}{array.shape}".encode() + array.tobytes())
    return digest.hexdigest()


def standing_models(out_dir: Path, made_of: str) -> dict[str, TfliteModel]:
    """By format the files in `out_dir` that an earlier conversion made of the same, and that are whole."""
    try:
        earlier = ConvertedModels.model_validate_json((out_dir / CONVERSION).read_bytes())
    except (OSError, ValueError):
        return {}
    # it may have been another folder, on another machine
    models = [model.at(out_dir / model.path.name) for model in earlier.models.values()]
    return {model.format: model for model in models if earlier.made_of == made_of and model.is_whole()}


def calibration_images(data: PreparedData, count: int) -> np.ndarray:
    """At most `count` real training images uint8 (K, P, P, C), spread evenly over the split's order."""
    from tasks.prepare.splits import load_split

    train = load_split(data.directory, "train")
    real = np.flatnonzero(~train.augmented)
    if not len(real):
        raise InputError(f"{data.directory}: no real training image to calibrate INT8 on, expected some.")
    return train.images[real[np.linspace(0, len(real) - 1, min(count, len(real))).astype(int)]]


def _convert_one(
    network, format_: Format, images: np.ndarray, config: ConvertConfig, out_dir: Path
) -> TfliteModel:
    content = to_tflite(network, format_, images)
    path = out_dir / f"model_{format_}.tflite"
    with arriving(path) as part:
        part.write_bytes(content)
        tried, widened = _try_and_repair(part, images[0], config.benchmark_runs)
    content, counter = path.read_bytes(), counter_command()
    return TfliteModel(
        format=format_,
        path=path,
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        min_runtime_version=min_runtime_version(content),
        widened=widened,
        instructions_m=count_instructions(counter, path) if counter else None,
        **tried,
    )


def _try_and_repair(path: Path, image: np.ndarray, runs: int) -> tuple[dict, tuple[str, ...]]:
    """Run the file; where XNNPACK refuses it for ranges that are too narrow, widen them and run it again."""
    widened: list[str] = []
    repairs = 0
    while "error" in (tried := run_in_runtime(path, image, runs)):
        factors = {suspect["tensor"]: suspect["ratio"] * MARGIN for suspect in tried["suspects"]}
        repaired = widen(path.read_bytes(), factors) if factors and repairs < _MOST_REPAIRS else None
        if repaired is None:
            raise ModelError(_refusal(path, tried))
        path.write_bytes(repaired)
        widened += [suspect["operation"] for suspect in tried["suspects"]]
        repairs += 1
    return tried, tuple(widened)


def run_in_runtime(path: Path, image: np.ndarray, runs: int) -> dict:
    """What `tasks/convert/trial.py` says of a file: its figures, or `error` and `suspects`.

    Raises ModelError where the runtime dies, hangs, or computes something else than numbers.
    """
    # -P: the program's folder stays off the import path, where its siblings' names could hide a library's
    command = [sys.executable, "-P", str(Path(__file__).with_name("trial.py")), str(path), str(runs)]
    # it finds `tasks` where we were found, installed or not
    paths = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    try:
        done = subprocess.run(
            command, input=image.tobytes(), capture_output=True, timeout=_TRIAL_TIMEOUT_S, env=environment
        )
    except subprocess.TimeoutExpired as error:
        raise ModelError(f"{path}: ai-edge-litert did not finish {runs} runs in {error.timeout} s") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise ModelError(f"{path}: ai-edge-litert ended with exit status {done.returncode}: {' '.join(said)}")
    tried = json.loads(done.stdout)
    if not tried.pop("finite", True):
        raise ModelError(f"{path}: the outputs hold NaN or infinity; look at the run's training history")
    return tried


def _refusal(path: Path, tried: dict) -> str:
    suspects = ", ".join(f"{s['operation']} (factor {s['ratio']:.0f})" for s in tried["suspects"])
    return (
        f"{path.name}: ai-edge-litert with its default delegate can't load it: {tried['error']} "
        f"Operations out of XNNPACK's range (factor below 256): {suspects or 'none found'}. "
        "Train with train.model.activation = relu6, or another architecture."
    )


def min_runtime_version(model: bytes) -> str:
    """The oldest TFLite runtime that knows all of the model's operations, from the file's metadata."""
    from ai_edge_litert import schema_py_generated as schema

    tree = schema.ModelT.InitFromObj(schema.Model.GetRootAs(model))
    for entry in tree.metadata or []:
        if entry.name == b"min_runtime_version":
            return bytes(tree.buffers[entry.buffer].data).rstrip(b"\0").decode()
    return ""
