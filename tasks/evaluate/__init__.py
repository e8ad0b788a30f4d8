"""Measure a model on images it has never seen.

In: a `.keras` or `.tflite` file and the prepared data. Out: an `Evaluation`, with `<name>_evaluation.json`,
`<name>_predictions.npz` (probabilities float32 (N, 5), labels uint8 (N,), sources uint8 (N,), ids bytes (N,))
and PNG pictures in one directory. Float and INT8 models pass through the same function.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np
from prefect import task
from prefect.logging import get_run_logger

from storage.errors import InputError
from storage.files import replacing, write_whole
from tasks.convert import ConvertedModels
from tasks.evaluate.calibration import Reliability, reliability
from tasks.evaluate.compare import Agreement, Paired, agreement, compare
from tasks.evaluate.figures import (
    STRESS,
    ClassFigures,
    CommonError,
    Evaluation,
    SourceFigures,
    classification_report,
    measure,
)
from tasks.evaluate.layers import LayerError, errors_of_files
from tasks.evaluate.pictures import draw_confident_errors, draw_confusion, draw_precision, draw_reliability
from tasks.evaluate.predict import predict
from tasks.prepare import PreparedData
from tasks.prepare.splits import Split, SplitName, load_split
from tasks.train.seen import unseen

__all__ = [
    "Agreement",
    "ClassFigures",
    "CommonError",
    "Evaluation",
    "Paired",
    "SourceFigures",
    "agreement",
    "compare",
    "evaluate",
    "evaluate_model",
    "evaluate_predictions",
    "load_predictions",
    "measure_layers",
    "predict",
]


def evaluate(
    model_path: Path,
    data: PreparedData,
    out_dir: Path,
    name: str,
    split: SplitName = "test",
    seen: Path | None = None,
) -> Evaluation:
    """Everything measured of the model at `model_path` on one split, written under `out_dir` as well.

    Images whose digests lie in the file `seen` are left out. Raises InputError for a split without images,
    ModelError for a model that can't be run on it.
    """
    return _evaluate(None, model_path, data, out_dir, name, split, seen)


def evaluate_predictions(
    probabilities: np.ndarray,
    model_path: Path,
    data: PreparedData,
    out_dir: Path,
    name: str,
    split: SplitName = "test",
    seen: Path | None = None,
) -> Evaluation:
    """The same from probabilities float32 (N, 5) that are there already."""
    return _evaluate(probabilities, model_path, data, out_dir, name, split, seen)


def _evaluate(
    probabilities: np.ndarray | None,
    model_path: Path,
    data: PreparedData,
    out_dir: Path,
    name: str,
    split: SplitName,
    seen: Path | None,
) -> Evaluation:
    whole = load_split(data.directory, split)
    images = unseen(whole, seen)
    if not len(images.labels):
        raise InputError(
            f"{data.directory}: the {split} split has no image; look at the counts in metadata.json"
        )
    started = time.monotonic()
    if probabilities is None:
        probabilities = predict(model_path, images.images)
    seconds = time.monotonic() - started
    figures = measure(probabilities, images.labels, images.sources, data.sources, images.groups)
    out_dir.mkdir(parents=True, exist_ok=True)
    table = reliability(probabilities, images.labels)
    evaluation = Evaluation(
        **figures,
        model=name,
        model_path=model_path,
        split=split,
        left_out=len(whole.labels) - len(images.labels),
        label_set=data.label_set,
        data_fingerprint=data.fingerprint,
        ece=table.ece,
        classification_report=classification_report(figures),
        json_path=out_dir / f"{name}_evaluation.json",
        predictions_path=_save_predictions(out_dir / f"{name}_predictions.npz", probabilities, images),
        pictures=_draw(figures, table, probabilities, images, out_dir, name),
        seconds=seconds,
    )
    write_whole(evaluation.json_path, evaluation.model_dump_json(indent=2))
    return evaluation


def load_predictions(evaluation: Evaluation) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities float32 (N, 5), labels uint8 (N,) and ids bytes (N,) behind an evaluation."""
    with np.load(evaluation.predictions_path) as file:
        return file["probabilities"], file["labels"], file["ids"]


def _draw(
    figures: dict[str, Any],
    table: Reliability,
    probabilities: np.ndarray,
    split: Split,
    out_dir: Path,
    name: str,
) -> dict[str, Path]:
    pictures = {
        "confusion_matrix": draw_confusion(
            np.array(figures["confusion"]), _finding(figures), out_dir / f"{name}_confusion_matrix.png"
        ),
        "reliability": draw_reliability(table, out_dir / f"{name}_reliability.png"),
        "confident_errors": draw_confident_errors(
            split.images, split.labels, probabilities, out_dir / f"{name}_confident_errors.png"
        ),
    }
    stress = split.labels == STRESS
    if stress.any():
        pictures["stress"] = draw_precision(
            stress, probabilities[:, STRESS], figures["per_class"]["stress"], out_dir / f"{name}_stress.png"
        )
    return {key: path for key, path in pictures.items() if path}


def _finding(figures: dict[str, Any]) -> str:
    low, high = figures["accuracy_ci"]
    finding = f"{figures['accuracy']:.1%} right (95 % interval {low:.1%} to {high:.1%})"
    if figures["common_errors"]:
        worst = max(figures["common_errors"], key=lambda error: error.share)
        finding += f"\n{worst.truth} is taken for {worst.predicted} in {worst.share:.0%} of cases"
    return finding


def _save_predictions(path: Path, probabilities: np.ndarray, split: Split) -> Path:
    with replacing(path) as file:
        np.savez(file, probabilities=probabilities, labels=split.labels, sources=split.sources, ids=split.ids)
    return path


@task(name="evaluate", task_run_name="evaluate-{name}")
def evaluate_model(
    model_path: Path,
    data: PreparedData,
    out_dir: Path,
    name: str,
    split: SplitName = "test",
    seen: Path | None = None,
) -> Evaluation:
    """Measure one model on a split and log its figures."""
    evaluation = evaluate(model_path, data, out_dir, name, split, seen)
    low, high = evaluation.accuracy_ci
    get_run_logger().info(
        "%s: accuracy %.3f (%.3f to %.3f), macro recall %.3f, ECE %.3f on %d %s images\n%s",
        name, evaluation.accuracy, low, high, evaluation.macro_recall, evaluation.ece, evaluation.images,
        evaluation.split, evaluation.classification_report,
    )  # fmt: skip
    return evaluation


@task(name="layer-errors", task_run_name="layer-errors")
def measure_layers(converted: ConvertedModels, data: PreparedData) -> tuple[LayerError, ...]:
    """Which layers lose most by quantization, for a night that loses too much."""
    errors = errors_of_files(converted, data)
    worst = ", ".join(f"{layer.name} {layer.relative_error:.0%}" for layer in errors[:3])
    hint = "unknown: add float32 to convert.formats"
    get_run_logger().warning("INT8 loses too much; layers with the largest error: %s", worst or hint)
    return errors
