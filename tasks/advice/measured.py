"""What the rules look at, and what they give."""

from pydantic import BaseModel

from tasks.evaluate.figures import Evaluation
from tasks.evaluate.layers import LayerError
from tasks.gate import GateConfig
from tasks.prepare import PrepareConfig
from tasks.train import TrainConfig

Value = str | float | int | bool | tuple[int, ...]


class Advice(BaseModel, frozen=True):
    """One finding, its likely cause, and config fields (dotted, from the run's config) with values to try."""

    finding: str
    likely_cause: str
    changes: dict[str, Value] = {}
    beyond_config: str = ""


class Measured(BaseModel, frozen=True):
    """The figures the rules look at. `latency_ms`: p95 of the slowest device, or of this host."""

    train: TrainConfig
    prepare: PrepareConfig
    targets: GateConfig
    history: dict[str, list[float]]
    counts: dict[str, dict[str, int]]
    int8: Evaluation
    float_evaluation: Evaluation | None = None
    model_bytes: int | None = None
    latency_ms: float | None = None
    delegate_partitions: int | None = None
    undelegated: tuple[str, ...] = ()
    layer_errors: tuple[LayerError, ...] = ()


def new_values(run: Measured, changes: dict[str, Value]) -> dict[str, Value]:
    """The changes that differ from the run's own config."""
    return {path: value for path, value in changes.items() if _current(run, path) != value}


def _current(run: Measured, path: str) -> Value:
    value: object = run
    for name in path.split("."):
        value = getattr(value, name)
    return value


def training_figures(run: Measured) -> Evaluation:
    """What training is judged by: INT8, but float where quantization loses more than its bound.

    What that loses isn't put down to training: `quantization_loss` tells of it.
    """
    lossy = points_lost(run) > run.targets.max_quantization_loss
    return run.float_evaluation if run.float_evaluation and lossy else run.int8


def points_lost(run: Measured) -> float:
    """Accuracy lost by quantization in points; none where the float model was not evaluated."""
    return 100 * (run.float_evaluation.accuracy - run.int8.accuracy) if run.float_evaluation else 0.0


def real_images(run: Measured) -> dict[str, int]:
    """Training images per expected class, augmented ones not counted."""
    total, augmented = run.counts.get("train", {}), run.counts.get("train_augmented", {})
    return {name: total.get(name, 0) - augmented.get(name, 0) for name in run.prepare.expected_classes}
