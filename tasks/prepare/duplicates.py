"""Images that must not be told apart: exact copies, near duplicates, frames of one person.

In: a `Collection`. Out: `copies` int (N,), which distinct image each one is, and `groups` int (N,): images
of one group go to one split.
"""

import numpy as np


def number_copies(hashes: np.ndarray) -> np.ndarray:
    """Which distinct image each one is, int64 (N,) from 0."""
    return np.unique(hashes, return_inverse=True)[1]


def join(count: int, pairs: np.ndarray) -> np.ndarray:
    """Connected components of `count` things under pairs int (k, 2): int32 (count,) from 0."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ones = np.ones(len(pairs), bool)
    graph = coo_array((ones, (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    return connected_components(graph, directed=False)[1]
