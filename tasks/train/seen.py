"""Which images a network has learnt from, by their pixels.

A data set that grows moves a few images between splits, so that a network's successor may meet among its test
images ones that the network was trained on. Out: `seen_images.npy` beside the network, sorted digests uint64
(N,) of the images that it, and every network that it started from, was trained on or chosen by.

Digests, not ids: a row that is inserted into a CSV file renames those below it.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import IO

import numpy as np

from storage.errors import InputError
from storage.files import replacing
from tasks.prepare.splits import Split

SEEN_IMAGES = "seen_images.npy"


def write_seen(directory: Path, splits: Iterable[Split], earlier: np.ndarray) -> None:
    """Write the images of the splits trained on, and those of the network that training started from."""
    with replacing(directory / SEEN_IMAGES) as file:
        np.save(file, np.unique(np.concatenate([*(split.digests for split in splits), earlier])))


def read_seen(file: Path | IO[bytes]) -> np.ndarray:
    """The digests uint64 (N,) of such a file. OSError, EOFError or ValueError where it is none."""
    seen = np.load(file)
    if not isinstance(seen, np.ndarray) or seen.dtype != np.uint64 or seen.ndim != 1:
        shape = f"{seen.dtype} {seen.shape}" if isinstance(seen, np.ndarray) else type(seen).__name__
        raise ValueError(f"it holds {shape} instead of uint64 (N,)")
    return seen


def unseen(split: Split, seen: Path | None) -> Split:
    """The images of a split whose digests don't lie in the file `seen`; all where there is none.

    InputError where the file can't be read: a network would be tested on what it may know.
    """
    if seen is None:
        return split
    try:
        new = ~np.isin(split.digests, read_seen(seen))
    except (OSError, EOFError, ValueError) as error:
        raise InputError(
            f"{seen} can't be read ({error}), so it can't be told which images the network has learnt from; "
            "delete it where the store has it in the experiment's folder, or train anew"
        ) from None
    return split if new.all() else split.where(new)
