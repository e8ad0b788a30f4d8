"""What is measured of one model on one split: the result, and the figures behind it.

In: probabilities float32 (N, 5) and labels (N,). Out: an `Evaluation` of plain numbers; a figure
that can't be computed (a class without a test image) is None, never NaN and never left out.
"""

from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from tasks.classes import CLASSES
from tasks.evaluate.intervals import bootstrap_intervals, independent_images, share_interval

Interval = tuple[float, float]

STRESS = CLASSES.index("stress")
RECALLS = (0.7, 0.8, 0.9)
"""Shares of stress to find, for which the precision is told."""


class ClassFigures(BaseModel, frozen=True):
    """One class against the rest. None where the class has no image in the split."""

    precision: float | None
    recall: float | None
    recall_ci: Interval | None
    f1: float | None
    auc: float | None
    support: int


class SourceFigures(BaseModel, frozen=True):
    """The images of one source. Accuracy and interval are None where it has none in the split."""

    accuracy: float | None
    images: int
    ci: Interval | None


class CommonError(BaseModel, frozen=True):
    """`share` is the share of the true class that is taken for `predicted`."""

    truth: str
    predicted: str
    count: int
    share: float


class PrecisionAt(BaseModel, frozen=True):
    """The precision that goes with finding a share of a class's images, by a threshold on its output."""

    recall: float
    precision: float


class Evaluation(BaseModel, frozen=True):
    """Everything measured of one model on one split. Intervals are 95 %; `confusion` has truth in rows."""

    model: str
    model_path: Path
    split: str
    images: int
    left_out: int = 0
    """Further images of the split, which the network or one that it started from has learnt from."""
    label_set: str
    data_fingerprint: str
    accuracy: float
    accuracy_ci: Interval
    macro_precision: float
    macro_precision_ci: Interval
    macro_recall: float
    macro_recall_ci: Interval
    macro_f1: float
    macro_f1_ci: Interval
    auc: float | None
    """Mean over the classes that have an image in the split; None where all images are of one class."""
    ece: float
    mean_confidence: float
    per_class: dict[str, ClassFigures]
    stress_points: tuple[PrecisionAt, ...] = ()
    """What stress's precision would be at other thresholds; none without an image of stress."""
    per_source: dict[str, SourceFigures]
    confusion: list[list[int]]
    common_errors: list[CommonError]
    classification_report: str
    json_path: Path
    predictions_path: Path
    pictures: dict[str, Path]
    seconds: float

    @property
    def absent(self) -> tuple[str, ...]:
        """Classes without an image in the split: they have no figures, and the means leave them out."""
        return tuple(name for name, one in self.per_class.items() if not one.support)


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Counts int64 (5, 5): row = truth, column = prediction."""
    size = len(CLASSES)
    return np.bincount(cells_of(labels, predicted), minlength=size * size).reshape(size, size)


def cells_of(labels: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """The place of each image in the flat confusion matrix, int64 (N,)."""
    return labels.astype(np.int64) * len(CLASSES) + predicted


def macro_figures(confusion: np.ndarray) -> np.ndarray:
    """Macro precision, recall and F1 of one or many confusion matrices (…, 5, 5) → (…, 3).

    The mean runs over the classes that have an image in the split; a class that is never predicted
    counts with precision 0 (scikit-learn's `zero_division=0`).
    """
    right = np.diagonal(confusion, axis1=-2, axis2=-1)
    support, predicted = confusion.sum(-1), confusion.sum(-2)
    each = np.stack(
        [_ratio(right, predicted), _ratio(right, support), _ratio(2 * right, support + predicted)], -1
    )
    present = (support > 0)[..., None]
    return (each * present).sum(-2) / np.maximum(present.sum(-2), 1)


def class_figures(
    confusion: np.ndarray, labels: np.ndarray, probabilities: np.ndarray, groups: np.ndarray
) -> dict[str, ClassFigures]:
    """Precision, recall with its interval, F1 and one-vs-rest AUC of each class."""
    right, support, predicted = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    found = probabilities.argmax(1) == labels
    precision, recall = _ratio(right, predicted), _ratio(right, support)
    f1 = _ratio(2 * right, support + predicted)
    figures = {}
    for index, name in enumerate(CLASSES):
        there = support[index] > 0
        figures[name] = ClassFigures(
            precision=float(precision[index]) if there else None,
            recall=float(recall[index]) if there else None,
            recall_ci=_interval(found, groups, labels == index),
            f1=float(f1[index]) if there else None,
            auc=_auc(labels == index, probabilities[:, index]),
            support=int(support[index]),
        )
    return figures


def source_figures(
    right: np.ndarray, sources: np.ndarray, names: tuple[str, ...], groups: np.ndarray
) -> dict[str, SourceFigures]:
    """Accuracy with its interval for the images of each source; `right` is bool (N,)."""
    figures = {}
    for index, name in enumerate(names):
        of_source = right[sources == index]
        figures[name] = SourceFigures(
            accuracy=float(of_source.mean()) if len(of_source) else None,
            images=len(of_source),
            ci=_interval(right, groups, sources == index),
        )
    return figures


def precision_at(positive: np.ndarray, scores: np.ndarray) -> tuple[PrecisionAt, ...]:
    """The best precision at RECALLS or more, of scores (N,) for the images `positive` bool (N,)."""
    from sklearn.metrics import precision_recall_curve

    if not positive.any():
        return ()
    precision, recall, _ = precision_recall_curve(positive, scores)
    return tuple(
        PrecisionAt(recall=wanted, precision=float(precision[recall >= wanted].max())) for wanted in RECALLS
    )


def common_errors(confusion: np.ndarray, at_most: int = 8) -> list[CommonError]:
    """The pairs (truth, predicted) with most images, largest first."""
    wrong = confusion - np.diag(np.diag(confusion))
    order = np.argsort(-wrong, axis=None, kind="stable")[:at_most]
    pairs = [(int(cell) // len(CLASSES), int(cell) % len(CLASSES)) for cell in order if wrong.flat[cell]]
    return [
        CommonError(
            truth=CLASSES[truth],
            predicted=CLASSES[guess],
            count=int(wrong[truth, guess]),
            share=float(wrong[truth, guess] / confusion[truth].sum()),
        )
        for truth, guess in pairs
    ]


def measure(
    probabilities: np.ndarray,
    labels: np.ndarray,
    sources: np.ndarray,
    names: tuple[str, ...],
    groups: np.ndarray,
) -> dict[str, Any]:
    """All figures of an `Evaluation` that follow from the predictions alone, by field name.

    Images with the same number in `groups` int (N,) belong together (`tasks.evaluate.intervals`).
    """
    predicted = probabilities.argmax(1)
    confusion = confusion_matrix(labels, predicted)
    right = predicted == labels
    macro = macro_figures(confusion)
    intervals = bootstrap_intervals(cells_of(labels, predicted), confusion.shape, groups, macro_figures)
    classes = class_figures(confusion, labels, probabilities, groups)
    areas = [figures.auc for figures in classes.values() if figures.auc is not None]
    figures = {
        "images": len(labels),
        "accuracy": float(right.mean()),
        "accuracy_ci": share_interval(float(right.mean()), independent_images(right, groups)),
        "mean_confidence": float(probabilities.max(1).mean()),
        "auc": float(np.mean(areas)) if areas else None,
        "per_class": classes,
        "stress_points": precision_at(labels == STRESS, probabilities[:, STRESS]),
        "per_source": source_figures(right, sources, names, groups),
        "confusion": confusion.tolist(),
        "common_errors": common_errors(confusion),
    }
    for name, value, interval in zip(("precision", "recall", "f1"), macro, intervals, strict=True):
        figures |= {f"macro_{name}": float(value), f"macro_{name}_ci": interval}
    return figures


def classification_report(evaluation: dict[str, Any]) -> str:
    """The figures per class as a text table, for logs and terminals."""
    lines = [f"{'':>12}  precision  recall      f1     auc  images"]
    for name, one in evaluation["per_class"].items():
        cells = "".join(
            f"{'-' if value is None else format(value, '.3f'):>{width}}"
            for value, width in ((one.precision, 11), (one.recall, 8), (one.f1, 8), (one.auc, 8))
        )
        lines.append(f"{name:>12}{cells}{one.support:>8}")
    macro = "".join(
        f"{evaluation[f'macro_{key}']:>{width}.3f}"
        for key, width in (("precision", 11), ("recall", 8), ("f1", 8))
    )
    lines.append(f"{'macro':>12}{macro}{'':>8}{evaluation['images']:>8}")
    return "\n".join(lines)


def _interval(right: np.ndarray, groups: np.ndarray, chosen: np.ndarray) -> Interval | None:
    """Of the share that is right among the chosen images; None where there are none."""
    if not chosen.any():
        return None
    mine = right[chosen]
    return share_interval(float(mine.mean()), independent_images(mine, groups[chosen]))


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros(np.shape(part), float), where=whole > 0)


def _auc(positive: np.ndarray, scores: np.ndarray) -> float | None:
    """One class against the rest. Class by class, because INT8 rows don't sum to exactly 1, which
    scikit-learn's multi-class form insists on."""
    from sklearn.metrics import roc_auc_score

    if positive.all() or not positive.any():
        return None
    return float(roc_auc_score(positive, scores))
