"""What became of a variant, and which variants are worth a look."""

import math
from collections.abc import Sequence

from pydantic import BaseModel, ValidationError

from storage.errors import InputError, MissingObject
from storage.objects import ObjectStore
from tasks.convert import TfliteModel
from tasks.evaluate import Evaluation
from tasks.train import TrainedModel


class Figures(BaseModel, frozen=True, extra="forbid"):
    """A variant's INT8 model on the validation split. Shares are 0 to 1, intervals 95 %."""

    experiment_id: str
    label_set: str
    data_fingerprint: str
    images: int
    accuracy: float
    accuracy_ci: tuple[float, float]
    macro_recall: float
    quantization_loss: float
    """Points of 100 of accuracy lost from float to INT8."""
    bytes: int
    host_p95_ms: float
    instructions_m: float | None
    parameters: int
    epochs: int
    train_seconds: float


class Finished(BaseModel, frozen=True, extra="forbid"):
    """A variant with its figures."""

    name: str
    figures: Figures


class Failed(BaseModel, frozen=True, extra="forbid"):
    """A variant that ended with an error."""

    name: str
    error: str


Outcome = Finished | Failed
"""What became of a variant."""


def figures_of(
    trained: TrainedModel, original: Evaluation, model: TfliteModel, quantized: Evaluation
) -> Figures:
    """Collect them. InputError where an evaluation is not of the validation split."""
    for evaluation in (original, quantized):
        if evaluation.split != "val":
            raise InputError(f"a sweep chooses by the val split, got figures of the {evaluation.split} split")
    return Figures(
        experiment_id=trained.experiment_id,
        label_set=quantized.label_set,
        data_fingerprint=quantized.data_fingerprint,
        images=quantized.images,
        accuracy=quantized.accuracy,
        accuracy_ci=quantized.accuracy_ci,
        macro_recall=quantized.macro_recall,
        quantization_loss=100 * (original.accuracy - quantized.accuracy),
        bytes=model.bytes,
        host_p95_ms=math.nan if model.host_p95_ms is None else model.host_p95_ms,
        instructions_m=model.instructions_m,
        parameters=trained.parameters,
        epochs=trained.epochs,
        train_seconds=trained.seconds,
    )


def record_figures(store: ObjectStore, key: str, figures: Figures) -> None:
    """Remember the figures of the configuration and data of that key."""
    store.write(_place(key), figures.model_dump_json(indent=1).encode())


def recall_figures(store: ObjectStore, key: str) -> Figures | None:
    """What `record_figures` wrote, or None; also None for what another version of this program wrote."""
    try:
        return Figures.model_validate_json(store.read(_place(key)))
    except (MissingObject, ValidationError):
        return None


def finished(outcomes: Sequence[Outcome]) -> list[Finished]:
    """The variants that have figures."""
    return [one for one in outcomes if isinstance(one, Finished)]


def best(outcomes: Sequence[Outcome]) -> Finished | None:
    """The most accurate variant, the one of least work among equals; None where none finished."""
    cost = compute_cost(outcomes)
    return min(
        finished(outcomes),
        key=lambda one: (-one.figures.accuracy, getattr(one.figures, cost)),
        default=None,
    )


def compute_cost(outcomes: Sequence[Outcome]) -> str:
    """The field of `Figures` for the work of an inference: instructions where all were counted."""
    counted = all(one.figures.instructions_m is not None for one in finished(outcomes))
    return "instructions_m" if counted else "host_p95_ms"


def frontier(outcomes: Sequence[Outcome], cost: str) -> list[Finished]:
    """Variants that no other beats in both accuracy and `cost`, a field of `Figures`; the cheapest first."""
    kept: list[Finished] = []
    for outcome in sorted(
        finished(outcomes), key=lambda one: (getattr(one.figures, cost), -one.figures.accuracy)
    ):
        if not kept or outcome.figures.accuracy > kept[-1].figures.accuracy:
            kept.append(outcome)
    return kept


def _place(key: str) -> str:
    return f"sweeps/variants/{key}.json"
