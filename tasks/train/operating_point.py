"""The operating point: how far accuracy is traded for finding rare classes, by validation images.

A softmax learns the classes' shares along with the faces, so a rare class is found too rarely however well it
is told apart. Adding to the logits moves the borders between classes (Menon et al., 2021, post-hoc logit
adjustment) and costs nothing on a device: it becomes part of the biases.
"""

import numpy as np
from pydantic import BaseModel, Field

from tasks.classes import CLASS_OF_EMOTION, CLASSES
from tasks.prepare.splits import Split
from tasks.train.networks import HEAD

_STEPS = (0.1, 0.3, 0.6, -0.1, -0.3, -0.6)
_LARGEST = 0.6
"""Natural logarithms: a class weighs 1.8 times as much at the most, against one that goes down 3.3 times.

A larger shift is made for the few validation images of a rare class. On other persons it is worth nothing and
costs accuracy and that class's precision (docs/experiments.md).
"""
FEWEST_IMAGES = 200
"""Validation images that a class needs to be shifted.

Of 94, one is a point of the class's recall and a fifth of one of macro recall: shifts were made for one to
three of them, and faces that are partly covered were called tired for it (docs/experiments.md).
"""


class Point(BaseModel, frozen=True, extra="forbid"):
    """What the validation images say of one choice. None for a class without an image, or never answered."""

    accuracy: float
    macro_recall: float
    recall: dict[str, float | None]
    precision: dict[str, float | None]


class OperatingPoint(BaseModel, frozen=True, extra="forbid"):
    """The choice, as part of the network's biases, and what it changed on the validation images."""

    given_up: float = Field(description="Share of validation accuracy that might be given up")
    shift: dict[str, float] = Field(description="Added to each class's logits")
    held: tuple[str, ...] = Field((), description="Classes not shifted for want of validation images")
    before: Point
    after: Point


def choose_point(network, validation: Split, given_up: float) -> OperatingPoint:
    """Shift the network's biases by `best_shift` on the validation images, and say what that changed."""
    probabilities = network.predict(validation.images, batch_size=256, verbose=0)
    labels = np.asarray(validation.labels)
    shift = best_shift(probabilities, labels, given_up)
    head = network.get_layer(HEAD)
    kernel, bias = head.get_weights()
    head.set_weights([kernel, bias + (shift if len(bias) == len(CLASSES) else shift[list(CLASS_OF_EMOTION)])])
    logits, shifted = _logits(probabilities), enough_images(labels)
    return OperatingPoint(
        given_up=given_up,
        shift=dict(zip(CLASSES, np.round(shift.astype(float), 3).tolist(), strict=True)),
        held=tuple(name for place, name in enumerate(CLASSES) if place not in shifted),
        before=_point(logits, labels),
        after=_point(logits + shift, labels),
    )


def best_shift(probabilities: np.ndarray, labels: np.ndarray, given_up: float) -> np.ndarray:
    """The shift of logits, float32 (5,), with the largest macro recall for at most `given_up` of accuracy.

    Found by steepest ascent from no shift, so never worse than none on these images: probabilities (N, 5),
    labels (N,). A class of fewer than `FEWEST_IMAGES` stays as it is; what is found of it counts.
    """
    logits, unit = _logits(probabilities), np.eye(len(CLASSES), dtype=np.float32)
    moves = [step * unit[place] for place in enough_images(labels) for step in _STEPS]
    shift = np.zeros(len(CLASSES), np.float32)
    accuracy, recall = _accuracy_and_recall(logits, labels)
    floor = accuracy - given_up - 1e-9
    while True:
        tried = [moved for move in moves if np.abs(moved := shift + move).max() <= _LARGEST + 1e-6]
        found = [_accuracy_and_recall(logits + one, labels) for one in tried]
        allowed = [(found[place][1], place) for place in range(len(tried)) if found[place][0] >= floor]
        best, place = max(allowed, default=(0.0, 0), key=lambda one: (one[0], -one[1]))
        if best <= recall:
            return shift
        shift, recall = tried[place], best


def enough_images(labels: np.ndarray) -> np.ndarray:
    """The classes of labels (N,) that have `FEWEST_IMAGES`, in order, int (K,)."""
    return np.flatnonzero(np.bincount(labels, minlength=len(CLASSES)) >= FEWEST_IMAGES)


def _logits(probabilities: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(probabilities, 1e-9))


def _accuracy_and_recall(logits: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    right = logits.argmax(axis=1) == labels
    return float(right.mean()), float(np.mean([right[labels == place].mean() for place in np.unique(labels)]))


def _point(logits: np.ndarray, labels: np.ndarray) -> Point:
    answers = logits.argmax(axis=1)
    accuracy, macro_recall = _accuracy_and_recall(logits, labels)
    right = answers == labels
    return Point(
        accuracy=accuracy,
        macro_recall=macro_recall,
        recall={name: _mean(right[labels == place]) for place, name in enumerate(CLASSES)},
        precision={name: _mean(right[answers == place]) for place, name in enumerate(CLASSES)},
    )


def _mean(right: np.ndarray) -> float | None:
    return float(right.mean()) if len(right) else None
