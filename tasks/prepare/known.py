"""What earlier nights found out about pairs of images, so that each image is looked at once, not every night.

A file `.known-….npz` beside the prepared data sets: digests uint64 (K,) of the images of the last search,
sorted; pairs uint64 (k, 2) of digests and scores float32 (k,) of all pairs among them that are alike at all.
Pairs of two known images that it doesn't list are not one photo. The verdict on a pair depends on its two
images alone, so a search with it ends as one without.
"""

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from storage.files import replacing

SEARCH_VERSION = 1
"""Part of the file's name. Raise it when the same two images may now get another verdict."""


@dataclass(frozen=True)
class Known:
    """Images that were compared, all with all, and the pairs that are alike."""

    digests: np.ndarray
    pairs: np.ndarray
    scores: np.ndarray

    def within(self, digests: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The pairs among images with these digests, as places (k, 2) in them, and their scores."""
        order = np.argsort(digests)
        places = np.searchsorted(digests, self.pairs, sorter=order).clip(max=max(0, len(digests) - 1))
        places = order[places] if len(digests) else places.astype(np.int64)
        present = (digests[places] == self.pairs).all(axis=1) if len(digests) else np.zeros(len(places), bool)
        return places[present], self.scores[present]


NOTHING = Known(np.empty(0, np.uint64), np.empty((0, 2), np.uint64), np.empty(0, np.float32))


def known_path(folder: Path, px: int, channels: int) -> Path:
    """Where what is known of images on that canvas lies under `folder`."""
    return folder / f".known-{SEARCH_VERSION}-{px}x{channels}.npz"


def read_known(path: Path) -> Known:
    """What the file says; nothing where there is none, or none that can be read: all is looked at again."""
    try:
        with path.open("rb") as opened, np.load(opened) as file:
            return Known(file["digests"], file["pairs"].reshape(-1, 2), file["scores"])
    except (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error):
        return NOTHING


def write_known(path: Path, known: Known) -> None:
    """Put it in place, whole."""
    with replacing(path) as file:
        np.savez(file, digests=known.digests, pairs=known.pairs, scores=known.scores)
