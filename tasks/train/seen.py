"""Which images a network has learnt from, by their pixels.

A data set that grows moves a few images between splits, so that a network's successor may meet among its test
images ones that the network was trained on. Out: `seen_images.npy` beside the network, sorted digests uint64
(N,) of the images that it, and every network that it started from, was trained on or chosen by.

Digests, not ids: a row that is inserted into a CSV file renames those below it.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from storage.files import replacing
from tasks.prepare.splits import Split

SEEN_IMAGES = "seen_images.npy"


def write_seen(directory: Path, splits: Iterable[Split], earlier: np.ndarray) -> None:
    """Write the images of the splits trained on, and those of the network that training started from."""
    with replacing(directory / SEEN_IMAGES) as file:
        np.save(file, np.unique(np.concatenate([*(split.digests for split in splits), earlier])))


def unseen(split: Split, seen: Path | None) -> Split:
    """The images of a split whose digests don't lie in the file `seen`; all where there is none."""
    new = ~np.isin(split.digests, np.load(seen) if seen else [])
    return split if new.all() else split.where(new)
