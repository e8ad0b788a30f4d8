"""Make up for rare classes: shift the last layer's biases, by validation images.

A softmax learns the classes' shares along with the faces, so a rare class is found too rarely however well it
is told apart. Adding to the logits moves the borders between classes (Menon et al., 2021, post-hoc logit
adjustment) and costs nothing on a device: it becomes part of the biases.
"""

import numpy as np

from tasks.classes import CLASS_OF_EMOTION, CLASSES
from tasks.prepare.splits import Split
from tasks.train.networks import HEAD

_STEPS = (0.1, 0.3, 1.0, -0.1, -0.3, -1.0)
_LARGEST = 3.0
"""Natural logarithms: a class's odds change by a factor of 20 at the most."""


def balance(network, validation: Split) -> np.ndarray:
    """Shift the network's biases by `best_shift` on the validation images; returns it, float32 (5,)."""
    head = network.get_layer(HEAD)
    kernel, bias = head.get_weights()
    shift = best_shift(
        network.predict(validation.images, batch_size=256, verbose=0), np.asarray(validation.labels)
    )
    head.set_weights([kernel, bias + (shift if len(bias) == len(CLASSES) else shift[list(CLASS_OF_EMOTION)])])
    return shift


def best_shift(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The shift of logits, float32 (5,), with the largest sum of accuracy and macro recall.

    Found by steepest ascent from no shift, so never worse than none on these images: probabilities (N, 5),
    labels (N,). A class without an image stays as it is.
    """
    logits = np.log(np.maximum(probabilities, 1e-9))
    moves = [
        step * np.eye(probabilities.shape[1], dtype=np.float32)[place]
        for place in np.unique(labels)
        for step in _STEPS
    ]
    shift = np.zeros(probabilities.shape[1], np.float32)
    score = _score(logits, labels)
    while True:
        tried = [moved for move in moves if np.abs(moved := shift + move).max() <= _LARGEST + 1e-6]
        scores = [_score(logits + one, labels) for one in tried]
        best = int(np.argmax(scores))
        if scores[best] <= score:
            return shift
        shift, score = tried[best], scores[best]


def _score(logits: np.ndarray, labels: np.ndarray) -> float:
    """Accuracy plus macro recall, from 0 to 2."""
    right = logits.argmax(axis=1) == labels
    return float(right.mean() + np.mean([right[labels == place].mean() for place in np.unique(labels)]))
