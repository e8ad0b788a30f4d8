"""The results of a night on drawn faces, as the report gets them: real figures of made-up answers."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from tasks.advice import Measured, advise
from tasks.benchmark import LatencyFigures
from tasks.convert import ConvertedModels, TensorInfo, TfliteModel
from tasks.evaluate import agreement, evaluate_predictions
from tasks.gate import GateConfig, figures_of, judge
from tasks.prepare import PrepareConfig, load_split
from tasks.report import ReportInputs, installed_versions
from tasks.train import TrainConfig, TrainedModel
from tests.tasks.small_model import prepared_data

HISTORY = {
    "loss": [1.6, 1.2, 0.9, 0.7, 0.55],
    "val_loss": [1.6, 1.3, 1.2, 1.2, 1.3],
    "val_accuracy": [0.2, 0.4, 0.5, 0.55, 0.54],
}


def small_run(folder: Path, per_class: int = 10, **targets: float) -> ReportInputs:
    """Answers that are right for most faces, evaluated, judged by `targets`; no release and no fleet yet."""
    data = prepared_data(folder / "data", per_class=per_class)
    labels = load_split(data.directory, "test").labels
    exact = _answers(labels)
    rounded = np.round(exact * 256) / 256
    evaluations = {
        name: evaluate_predictions(answers, folder / name, data, folder / "evaluation", name)
        for name, answers in (("float", exact), ("int8", rounded))
    }
    converted = ConvertedModels(models={"int8": _tflite_model(folder / "model_int8.tflite")})
    train, prepare, gate = TrainConfig(), PrepareConfig(), GateConfig(**targets)
    verdict = judge(
        figures_of(
            evaluations["int8"],
            evaluations["float"],
            model_bytes=converted.models["int8"].bytes,
            host_latency_ms=converted.models["int8"].host_latency_ms["p95"],
            leaked_pairs=0,
        ),
        gate,
    )
    measured = Measured(
        train=train,
        prepare=prepare,
        targets=gate,
        history=HISTORY,
        counts=data.counts,
        int8=evaluations["int8"],
        float_evaluation=evaluations["float"],
    )
    return ReportInputs(
        experiment_id="20261122_031500",
        started_at=datetime(2026, 11, 22, 3, 15, tzinfo=UTC),
        config={"train": train.model_dump(mode="json"), "gate": gate.model_dump(mode="json")},
        targets=gate,
        data=data,
        trained=_trained(folder),
        evaluations=evaluations,
        converted=converted,
        verdict=verdict,
        agreement=agreement(exact, rounded),
        advice=advise(measured),
        versions=installed_versions(),
        stage_seconds={"train": 312.5, "evaluate": 2.1},
    )


def _answers(labels: np.ndarray) -> np.ndarray:
    """Probabilities float32 (N, 5) that favour the truth, not always enough."""
    logits = np.random.default_rng(3).normal(size=(len(labels), 5)) + 2 * np.eye(5)[labels]
    return (np.exp(logits) / np.exp(logits).sum(1, keepdims=True)).astype(np.float32)


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
        host_latency_ms={"mean": 0.21, "std": 0.01, "p50": 0.2, "p95": 0.24, "p99": 0.3},
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
        health_before={},
        health_after={},
        machine={"model": "Raspberry Pi 5"},
    )
