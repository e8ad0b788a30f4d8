"""95 % intervals that know which images belong together, deterministic and without a loop over images.

In: values or counts, and the group of each image (copies and frames of one person share one; most images
stand alone). Out: (low, high).

Frames of one person are right or wrong together, so that ten of them say less than ten strangers. Figures
that are no shares resample whole groups. Shares take the score interval of as many independent images as say
as much: a bootstrap collapses to a point where all or none of a few images are right, exactly where doubt is
largest, and covers too little with few groups.
"""

from collections.abc import Callable

import numpy as np

Z_95 = 1.959964


def bootstrap_intervals(
    cells: np.ndarray,
    shape: tuple[int, ...],
    groups: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray],
    rounds: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> list[tuple[float, float]]:
    """Percentile bootstrap over groups of `statistic`, which maps tables (rounds, *shape) to (rounds, S).

    `cells` int (N,) is each image's place in a flat table of `shape`. Returns S intervals, in the statistic's
    own unit. Groups with the same table are of one kind, and drawing G groups is one multinomial draw over
    the kinds: the cost is that of the kinds, whatever the number of images.
    """
    kinds, counts = _kinds_of_groups(cells, int(np.prod(shape)), groups)
    draws = np.random.default_rng(seed).multinomial(counts.sum(), counts / counts.sum(), size=rounds)
    values = statistic((draws @ kinds).reshape(rounds, *shape))
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail], axis=0)
    return list(zip(low.tolist(), high.tolist(), strict=True))


def _kinds_of_groups(cells: np.ndarray, size: int, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct tables int (K, size) that groups have, and how many groups have each, (K,)."""
    numbers, place, members = np.unique(groups, return_inverse=True, return_counts=True)
    alone = members[place] == 1
    singles = np.bincount(cells[alone], minlength=size)
    large = np.flatnonzero(members > 1)
    row = np.full(len(numbers), -1)
    row[large] = np.arange(len(large))
    tables = np.zeros((len(large), size), np.int64)
    np.add.at(tables, (row[place[~alone]], cells[~alone]), 1)
    tables, counts = np.unique(tables, axis=0, return_counts=True)
    there = np.flatnonzero(singles)
    kinds = np.concatenate([np.eye(size, dtype=np.int64)[there], tables])
    return kinds, np.concatenate([singles[there], counts])


def independent_images(values: np.ndarray, groups: np.ndarray) -> float:
    """How many images without relations would tell the mean of `values` (N,) as precisely as these, ≤ N.

    N over the design effect, the variance between groups over that of independent images (Rao and Scott,
    1992, "A simple method for the analysis of clustered binary data"), less what a few groups leave unknown
    of that variance (Korn and Graubard, 1998, "Confidence intervals for proportions with small expected
    number of positive counts estimated from survey data"). Where all values are equal, every group counts as
    one image.
    """
    from scipy.stats import t

    place, sizes = np.unique(groups, return_inverse=True, return_counts=True)[1:]
    count, total = len(sizes), len(values)
    if count == total:
        return float(total)
    if count == 1:
        return 1.0
    off = values - values.mean()
    between = count / (count - 1) * (np.bincount(place, off) ** 2).sum()
    alone = (off**2).sum()
    effective = total if between <= alone else total * alone / between
    effective = count if alone == 0 else effective
    return float(max(1.0, effective * (Z_95 / t.ppf(0.975, count - 1)) ** 2))


def share_interval(share: float, images: float, z: float = Z_95) -> tuple[float, float]:
    """Wilson's score interval (1927) of a share of `images` independent images, not always a whole number."""
    weight = z * z / images
    centre = (share + weight / 2) / (1 + weight)
    half = z * np.sqrt(share * (1 - share) / images + weight / (4 * images)) / (1 + weight)
    return float(max(0.0, centre - half)), float(min(1.0, centre + half))
