"""95 % intervals, deterministic and without a loop over images.

In: counts. Out: (low, high). Resampling N images with replacement and counting them into the cells of a
table is one multinomial draw over that table, so a bootstrap costs its rounds times its cells, whatever N is.
"""

from collections.abc import Callable

import numpy as np


def bootstrap_intervals(
    counts: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray],
    rounds: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> list[tuple[float, float]]:
    """Percentile bootstrap of `statistic`, which maps tables (rounds, *counts.shape) to (rounds, S).

    Returns S intervals, in the statistic's own unit.
    """
    total = int(counts.sum())
    draws = np.random.default_rng(seed).multinomial(total, counts.ravel() / total, size=rounds)
    values = statistic(draws.reshape(rounds, *counts.shape))
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail], axis=0)
    return list(zip(low.tolist(), high.tolist(), strict=True))


def share_interval(part: int, whole: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's score interval (1927) of the share part / whole.

    Shares use it and not the bootstrap, which collapses to a point where all or none of a few images are
    right, exactly where doubt is largest; with thousands of images both agree.
    """
    share, weight = part / whole, z * z / whole
    centre = (share + weight / 2) / (1 + weight)
    half = z * np.sqrt(share * (1 - share) / whole + weight / (4 * whole)) / (1 + weight)
    return float(max(0.0, centre - half)), float(min(1.0, centre + half))
