"""A night on drawn faces, as gate, advice and report get it: real figures of made-up answers."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from tasks.benchmark import Health, LatencyFigures, Machine
from tasks.candidate import Candidate
from tasks.classes import CLASSES
from tasks.config import RetrainConfig
from tasks.convert import ConvertedModels, TensorInfo, TfliteModel
from tasks.evaluate import evaluate_predictions
from tasks.evaluate.camera_figures import CLEAN, Cameras
from tasks.evaluate.cameras import camera_figures
from tasks.evaluate.elsewhere import ElsewhereEvaluation, set_figures
from tasks.gate import judge
from tasks.latency import Latency
from tasks.night import Night
from tasks.prepare import Split, load_split
from tasks.train import TrainedModel
from tests.tasks.small_model import prepared_data

HISTORY = {
    "loss": [1.6, 1.2, 0.9, 0.7, 0.55],
    "val_loss": [1.6, 1.3, 1.2, 1.2, 1.3],
    "val_accuracy": [0.2, 0.4, 0.5, 0.55, 0.54],
}


def small_night(folder: Path, per_class: int = 10, **targets: float) -> Night:
    """A night whose candidate is judged by `targets`; no release and no fleet yet."""
    candidate = small_candidate(folder, per_class)
    config = RetrainConfig.model_validate({"targets": targets})
    return Night(
        id=candidate.trained.experiment_id,
        key="ab" * 32,
        started_at=datetime(2026, 11, 22, 3, 15, tzinfo=UTC),
        config=config,
        champion=None,
        data=candidate.data,
        candidate=candidate,
        verdict=judge(candidate, config.targets),
    )


def small_candidate(folder: Path, per_class: int = 10) -> Candidate:
    """Answers that are right for most faces, evaluated."""
    data = prepared_data(folder / "data", per_class=per_class)
    labels = load_split(data.directory, "test").labels
    exact = _answers(labels)
    original, int8 = (
        evaluate_predictions(answers, folder / name, data, folder / "evaluation", name)
        for name, answers in (("float", exact), ("int8", np.round(exact * 256) / 256))
    )
    return Candidate(
        data=data,
        trained=_trained(folder),
        original=original,
        converted=ConvertedModels(models={"int8": _tflite_model(folder / "model_int8.tflite")}),
        int8=int8,
        cameras=_cameras(labels, exact, folder),
        elsewhere=_elsewhere(load_split(data.directory, "test"), exact, folder),
        against=(),
    )


def _answers(labels: np.ndarray) -> np.ndarray:
    """Probabilities float32 (N, 5) that favour the truth, not always enough."""
    logits = np.random.default_rng(3).normal(size=(len(labels), 5)) + 2 * np.eye(5)[labels]
    return (np.exp(logits) / np.exp(logits).sum(1, keepdims=True)).astype(np.float32)


def _cameras(labels: np.ndarray, exact: np.ndarray, folder: Path) -> Cameras:
    """The images as they are, and a camera that shows every other one as another face."""
    blurred = np.where(np.arange(len(labels))[:, None] % 2, exact, exact[::-1])
    return Cameras(
        model="int8",
        split="test",
        images=len(labels),
        truth=dict.fromkeys(CLASSES, 0.2),
        cameras=(camera_figures(CLEAN, exact, labels), camera_figures("blur 1 px", blurred, labels)),
        json_path=folder / "int8_cameras.json",
        picture=folder / "int8_cameras.png",
    )


def _elsewhere(test: Split, exact: np.ndarray, folder: Path) -> ElsewhereEvaluation:
    """The test split, and the same as another set."""
    return ElsewhereEvaluation(
        model="int8",
        model_path=folder / "model_int8.tflite",
        data_fingerprint="ab",
        test=set_figures("test", exact, test),
        sets=(set_figures("office", exact[::-1], test),),
        json_path=folder / "int8_elsewhere.json",
    )


def _tflite_model(path: Path) -> TfliteModel:
    return TfliteModel(
        format="int8",
        path=path,
        bytes=770_000,
        sha256="ab" * 32,
        input=TensorInfo(shape=(1, 48, 48, 1), dtype="uint8", scale=1.0, zero_point=0),
        output=TensorInfo(shape=(1, 5), dtype="uint8", scale=1 / 256, zero_point=0),
        min_runtime_version="2.3.0",
        delegate_partitions=1,
        undelegated=(),
        host_latency=host_latency(0.24),
    )


def _trained(folder: Path) -> TrainedModel:
    return TrainedModel(
        experiment_id="20261122_031500",
        directory=folder,
        model_path=folder / "final_model.keras",
        parameters=733_000,
        keras_bytes=2_900_000,
        epochs=5,
        best_epoch=4,
        history=HISTORY,
        seconds=312.5,
        images_per_s=780.0,
        pictures={},
    )


def host_latency(p95_ms: float) -> Latency:
    """What the benchmark of conversion tells of this machine."""
    mean_ms = p95_ms / 1.2
    return Latency(
        runs=100,
        mean_ms=mean_ms,
        std_ms=mean_ms / 20,
        p50_ms=mean_ms,
        p95_ms=p95_ms,
        p99_ms=mean_ms * 1.5,
        fps=1000 / mean_ms,
    )


def latency(p50_ms: float) -> LatencyFigures:
    """What a device's benchmark reports."""
    return LatencyFigures(
        runs=100,
        warmup=10,
        threads=1,
        mean_ms=p50_ms * 1.02,
        std_ms=0.1,
        p50_ms=p50_ms,
        p95_ms=p50_ms * 1.2,
        p99_ms=p50_ms * 1.5,
        fps=1000 / p50_ms,
        runtime="ai-edge-litert 2.3.0",
        delegate="XNNPACK",
        cpu_share=1.0,
        health_before=Health(),
        health_after=Health(),
        machine=Machine(model="Raspberry Pi 5"),
    )
