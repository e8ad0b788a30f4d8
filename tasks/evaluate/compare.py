"""Two models on the same images: agreement, and who is right where only one is.

In: probabilities float32 (N, 5) of each, labels (N,) and the groups of images that belong together. Out:
counts and what follows from them. Images that both get right or both get wrong say nothing about which is
better, so the pair of answers is compared (McNemar, 1947), not two accuracies.
"""

import numpy as np
from pydantic import BaseModel

from storage.errors import InputError
from tasks.evaluate.intervals import independent_images

_NEXT = 1e-9


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
    independent_images: float | None = None
    """How many images without relations would say as much; None: as many as there are."""

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

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """The difference in accuracy, two-sided: the values that a score test doesn't reject.

        Tango (1998), "Equivalence test and confidence interval for the difference in proportions for the
        paired-sample design". It covers with few discordant images, too, and isn't a point without any.
        """
        from scipy.optimize import brentq
        from scipy.stats import norm

        z, found = float(norm.ppf((1 + confidence) / 2)), self.difference

        def beyond(difference: float, side: int) -> float:
            return side * (found - difference) - z * self._standard_error(difference)

        # without discordant images the difference found is a root, too, and not the one wanted
        low = brentq(beyond, -1, found - _NEXT, args=(1,)) if found > -1 else -1.0
        high = brentq(beyond, found + _NEXT, 1, args=(-1,)) if found < 1 else 1.0
        return float(low), float(high)

    def _standard_error(self, difference: float) -> float:
        """Of `self.difference` if the true one were `difference`, its nuisance at its likeliest."""
        ours, theirs = self.candidate_only / self.images, self.champion_only / self.images
        linear = -ours - theirs + (2 - ours + theirs) * difference
        constant = -theirs * difference * (1 - difference)
        champion_only = (np.sqrt(linear**2 - 8 * constant) - linear) / 4
        variance = 2 * champion_only + difference * (1 - difference)
        return float(np.sqrt(max(0.0, variance) / (self.independent_images or self.images)))


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


def compare(
    candidate: np.ndarray, champion: np.ndarray, labels: np.ndarray, groups: np.ndarray | None = None
) -> Paired:
    """Count who is right on each image; `groups` int (N,) tells which images belong together."""
    _check_same_images(candidate, champion)
    ours, theirs = candidate.argmax(1) == labels, champion.argmax(1) == labels
    return Paired(
        both_right=int((ours & theirs).sum()),
        candidate_only=int((ours & ~theirs).sum()),
        champion_only=int((~ours & theirs).sum()),
        neither=int((~ours & ~theirs).sum()),
        independent_images=None if groups is None else independent_images(ours * 1.0 - theirs, groups),
    )


def _check_same_images(a: np.ndarray, b: np.ndarray) -> None:
    if a.shape != b.shape or not len(a):
        raise InputError(
            f"can't compare predictions of shape {a.shape} with {b.shape}: run both on the same images"
        )
