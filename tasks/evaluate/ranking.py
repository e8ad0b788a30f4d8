"""How well scores rank the images of a class above all others, whatever the threshold.

In: scores (N,), which images are of the class, and their groups. Out: a `Ranking`. A threshold that suits one
camera is wrong for another; the order of the scores may still be right, and these figures see only that.
"""

import numpy as np
from pydantic import BaseModel, Field

from tasks.evaluate.figures import Interval

_ROUNDS = 1000


class Ranking(BaseModel, frozen=True):
    """One class against the rest. Intervals are 95 %, by resampling groups."""

    auc: float = Field(description="Area under the curve, 0.5 is chance")
    auc_ci: Interval = Field(description="Its interval")
    recall_at_5: float = Field(description="Share found at the threshold where 5 % of the others are, too")
    recall_at_5_ci: Interval = Field(description="Its interval")
    recall_at_10: float = Field(description="Share found at the threshold where 10 % of the others are, too")
    recall_at_10_ci: Interval = Field(description="Its interval")


def rank(scores: np.ndarray, positive: np.ndarray, groups: np.ndarray, seed: int = 0) -> Ranking | None:
    """The figures of scores (N,) for the images `positive` bool (N,); None where all or none are.

    Between two scores the curve is a straight line: equal scores, of which an INT8 model gives many, count as
    in any order.
    """
    if positive.all() or not positive.any():
        return None
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    figures = _figures(np.ones(len(scores)), positive[order], ends).tolist()
    intervals = _intervals(positive[order], ends, groups[order], seed)
    names = ("auc", "recall_at_5", "recall_at_10")
    return Ranking.model_validate(
        dict(zip(names, figures, strict=True))
        | {f"{name}_ci": interval for name, interval in zip(names, intervals, strict=True)}
    )


def _intervals(positive: np.ndarray, ends: np.ndarray, groups: np.ndarray, seed: int) -> list[Interval]:
    """95 % intervals of `_figures`: percentiles over draws of as many groups as there are."""
    members = np.unique(groups, return_inverse=True)[1]
    rng, count = np.random.default_rng(seed), int(members.max()) + 1
    if count == 1:
        return [(0.0, 1.0)] * 3
    drawn = (np.bincount(rng.integers(0, count, count), minlength=count) for _ in range(_ROUNDS))
    figures = [_figures(times[members], positive, ends) for times in drawn]
    low, high = np.nanquantile(figures, [0.025, 0.975], axis=0).tolist()
    return list(zip(low, high, strict=True))


def _figures(weights: np.ndarray, positive: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Area and recall at 5 and 10 % false alarms, (3,), of images in order, best score first.

    `ends` are the last places of equal scores. NaN where the weights leave a kind without an image.
    """
    found = np.append(0, np.cumsum(weights * positive)[ends])
    alarms = np.append(0, np.cumsum(weights * ~positive)[ends])
    if not found[-1] or not alarms[-1]:
        return np.full(3, np.nan)
    found, alarms = found / found[-1], alarms / alarms[-1]
    return np.append(np.trapezoid(found, alarms), np.interp([0.05, 0.10], alarms, found))
