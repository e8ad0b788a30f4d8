"""Two models on the same images: agreement, and who is right where only one is.

In: probabilities float32 (N, 5) of each and labels (N,). Out: counts and what follows from them.
Images that both get right or both get wrong say nothing about which is better, so the pair of
answers is compared (McNemar, 1947), not two accuracies.
"""

import numpy as np
from pydantic import BaseModel

from storage.errors import InputError
from tasks.evaluate.intervals import bootstrap_intervals


class Agreement(BaseModel, frozen=True):
    """`share` of images with the same predicted class; differences are of probabilities, in [0, 1]."""

    images: int
    share: float
    mean_difference: float
    max_difference: float


class Paired(BaseModel, frozen=True):
    """Numbers of images that both, only one, or neither of candidate and champion gets right."""

    both_right: int
    candidate_only: int
    champion_only: int
    neither: int

    @property
    def images(self) -> int:
        return self.both_right + self.candidate_only + self.champion_only + self.neither

    @property
    def difference(self) -> float:
        """Candidate's accuracy minus champion's."""
        return (self.candidate_only - self.champion_only) / self.images

    @property
    def p_value(self) -> float:
        """McNemar's exact two-sided test that neither model is better."""
        from scipy.stats import binomtest

        only_one = self.candidate_only + self.champion_only
        return float(binomtest(self.candidate_only, only_one).pvalue) if only_one else 1.0

    def interval(self, confidence: float = 0.95, rounds: int = 10_000, seed: int = 0) -> tuple[float, float]:
        """Paired bootstrap of the difference in accuracy, two-sided."""
        counts = np.array([self.candidate_only, self.champion_only, self.both_right + self.neither])
        return bootstrap_intervals(
            counts, lambda draws: (draws[:, :1] - draws[:, 1:2]) / self.images, rounds, seed, confidence
        )[0]


def agreement(predictions_a: np.ndarray, predictions_b: np.ndarray) -> Agreement:
    """How far two models say the same of the same images."""
    _check_same_images(predictions_a, predictions_b)
    gap = np.abs(predictions_a.astype(float) - predictions_b)
    return Agreement(
        images=len(gap),
        share=float((predictions_a.argmax(1) == predictions_b.argmax(1)).mean()),
        mean_difference=float(gap.mean()),
        max_difference=float(gap.max()),
    )


def compare(candidate: np.ndarray, champion: np.ndarray, labels: np.ndarray) -> Paired:
    """Count who is right on each image."""
    _check_same_images(candidate, champion)
    ours, theirs = candidate.argmax(1) == labels, champion.argmax(1) == labels
    return Paired(
        both_right=int((ours & theirs).sum()),
        candidate_only=int((ours & ~theirs).sum()),
        champion_only=int((~ours & theirs).sum()),
        neither=int((~ours & ~theirs).sum()),
    )


def _check_same_images(a: np.ndarray, b: np.ndarray) -> None:
    if a.shape != b.shape or not len(a):
        raise InputError(
            f"can't compare predictions of shape {a.shape} with {b.shape}: run both on the same images"
        )
