"""A block: some images of one source, what the source says of them, and what their pixels tell.

In: uint8 (n, P, P, C) on the common canvas, and names of `tasks.classes.TO_CLASS`. Out: a `Block`.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np

from tasks.classes import EMOTIONS, TO_CLASS, emotion_of
from tasks.prepare.ferplus import VOTES
from tasks.prepare.labels import UNSAID
from tasks.prepare.pixels import to_grey

STATISTICS = ("brightness", "contrast", "sharpness")
"""Mean grey level, its standard deviation, and the Laplacian's (Pech-Pacheco et al., 2000, square it)."""


@dataclass(frozen=True)
class Given:
    """What a source says of n images."""

    votes: np.ndarray
    """uint8 (n, 8), columns `ferplus.VOTES`"""
    emotions: np.ndarray
    """uint8 (n, 8), the same votes by emotion"""
    posted: np.ndarray
    """uint8 (n,), the place in EMOTIONS of the source's own label; `labels.UNSAID` without one"""

    def __getitem__(self, rows: np.ndarray) -> "Given":
        return Given(self.votes[rows], self.emotions[rows], self.posted[rows])


@dataclass(frozen=True)
class Block:
    """Some images of one source; `faults` are (where, what is wrong), `counts` what happened to how many."""

    images: np.ndarray
    votes: np.ndarray
    emotions: np.ndarray
    posted: np.ndarray
    usages: np.ndarray
    ids: np.ndarray
    faults: list[tuple[str, str]]
    hashes: np.ndarray
    statistics: np.ndarray
    sides: np.ndarray
    """int (n,), the shorter side that each had before it came onto the canvas, pixels"""
    counts: Counter[str] = field(default_factory=Counter)
    said: frozenset[str] = frozenset()
    """Labels of the source's lists, as they are compared."""


def one_vote(names: Sequence[str]) -> Given:
    """One vote an image, for the class and emotion that its source names."""
    posted = np.array([UNSAID if (place := emotion_of(name)) is None else place for name in names], np.uint8)
    votes = [[TO_CLASS[name] == one for one in VOTES] for name in names]
    emotions = posted[:, None] == np.arange(len(EMOTIONS))
    return Given(np.array(votes, np.uint8).reshape(-1, len(VOTES)), emotions.astype(np.uint8), posted)


def measure(
    images: np.ndarray,
    given: Given,
    *,
    usages: np.ndarray,
    ids: list[str],
    sides: np.ndarray,
    faults: list[tuple[str, str]],
    counts: Counter[str] | None = None,
) -> Block:
    """A block of images uint8 (n, P, P, C)."""
    return Block(
        images,
        **vars(given),
        usages=usages,
        ids=np.array([name.encode() for name in ids], "S"),
        faults=faults,
        hashes=hash_images(images),
        statistics=statistics_of(images),
        sides=sides,
        counts=counts or Counter(),
    )


def hash_images(images: np.ndarray) -> np.ndarray:
    """A content hash of each image, uint64 (n,)."""
    digests = b"".join(blake2b(image, digest_size=8).digest() for image in np.ascontiguousarray(images))
    return np.frombuffer(digests, np.uint64)


def statistics_of(images: np.ndarray) -> np.ndarray:
    """Brightness, contrast and sharpness of uint8 (n, P, P, C), float32 (n, 3), in grey levels."""
    grey = to_grey(images)
    inner = grey[:, 1:-1, 1:-1]
    edges = grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:] - 4 * inner
    columns = [grey.mean(axis=(1, 2)), grey.std(axis=(1, 2)), edges.std(axis=(1, 2))]
    return np.stack(columns, axis=1).reshape(-1, len(STATISTICS))
