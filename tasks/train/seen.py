"""Which images a network has learnt from, by their pixels.

A data set that grows moves a few images between splits, so that a network's successor may meet among its test
images ones that the network was trained on. Out: `seen_images.npy` beside the network, sorted digests uint64
(N,) of the images that it, and every release that it started from, was trained on or chosen by.
"""

from hashlib import blake2b
from pathlib import Path

import numpy as np

from storage.files import replacing
from tasks.prepare.splits import Split

SEEN_IMAGES = "seen_images.npy"


def write_seen(directory: Path, splits: dict[str, Split], earlier: np.ndarray) -> None:
    """Write the images of the splits trained on, and those of the network that training started from."""
    ours = [digests(split.images) for split in splits.values()]
    with replacing(directory / SEEN_IMAGES) as file:
        np.save(file, np.unique(np.concatenate([*ours, earlier])))


def unseen(split: Split, seen: np.ndarray) -> Split:
    """The images of a split that aren't among the digests `seen`."""
    new = ~np.isin(digests(split.images), seen)
    if new.all():
        return split
    return Split(**{name: getattr(split, name)[new] for name in Split.__dataclass_fields__})


def digests(images: np.ndarray) -> np.ndarray:
    """A number for each of the images uint8 (N, P, P, C): uint64 (N,).

    Not their ids: a row that is inserted into a CSV file renames those below it.
    """
    hashes = (blake2b(image.tobytes(), digest_size=8).digest() for image in images)
    return np.frombuffer(b"".join(hashes), np.uint64)
