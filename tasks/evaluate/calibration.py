"""Does a confidence of 0.8 mean right in 80 of 100 cases?

In: probabilities float32 (N, 5) and labels (N,). Out: a table of confidence bins and the expected
calibration error (Guo et al., 2017, "On calibration of modern neural networks").
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Reliability:
    """Mean confidence, accuracy and number of images of each non-empty bin, all (B,); `edges` even."""

    edges: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    images: np.ndarray

    @property
    def ece(self) -> float:
        """Mean gap between confidence and accuracy, weighted by images, in [0, 1]."""
        gap = np.abs(self.confidence - self.accuracy)
        return float((gap * self.images).sum() / self.images.sum())


def reliability(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> Reliability:
    """Bin the confidence of the predicted class into `bins` equal widths over [0, 1]."""
    confidence = np.clip(probabilities.max(1).astype(float), 0, 1)
    right = probabilities.argmax(1) == labels
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    images = np.bincount(place, minlength=bins)
    there = images > 0
    return Reliability(
        edges=np.linspace(0, 1, bins + 1),
        confidence=np.bincount(place, confidence, bins)[there] / images[there],
        accuracy=np.bincount(place, right, bins)[there] / images[there],
        images=images[there],
    )
