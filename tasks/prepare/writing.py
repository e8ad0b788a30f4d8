"""From a collection to the files of a data set.

In: a `Collection`, its labels and splits. Out, in a directory: train_data.npz, val_data.npz, test_data.npz
(members: see `splits.Split`), and the counts and findings that go into metadata.json.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tasks.config.prepare import SPLITS, PrepareConfig
from tasks.prepare.archive import write_npz
from tasks.prepare.augment import Alterations, alter, plan
from tasks.prepare.collection import Collection
from tasks.prepare.grouping import Findings
from tasks.prepare.labels import Labels, by_emotion, with_posted
from tasks.prepare.pixels import CHUNK


@dataclass(frozen=True)
class Arrangement:
    """What was decided about each of N images."""

    findings: Findings
    labels: Labels
    splits: np.ndarray
    """int8 (N,): see `splits.assign`."""


def write_split(
    directory: Path,
    name: str,
    images: Collection,
    arrangement: Arrangement,
    config: PrepareConfig,
) -> None:
    """Write `<name>_data.npz`, shuffled; with `store_augmented`, train is filled up with copies."""
    rng = np.random.default_rng([config.seed, SPLITS.index(name)])
    real = np.flatnonzero(arrangement.splits == SPLITS.index(name))
    target = config.target_per_class if name == "train" and config.store_augmented else 0
    extra = plan(real, arrangement.labels.labels[real], target, rng)
    order = rng.permutation(len(real) + len(extra.bases))
    numbers = np.concatenate([real, extra.bases])[order]
    augmented = order >= len(real)
    columns = {
        "labels": arrangement.labels.labels[numbers],
        "emotions": _targets(name, images, arrangement, config)[numbers],
        "sources": images.sources[numbers],
        "ids": images.ids[numbers],
        "augmented": augmented,
        "digests": images.hashes[numbers],
        "groups": arrangement.findings.groups[numbers].astype(np.int32),
    }
    chunks = _chunks(images, numbers, order - len(real), extra)
    write_npz(directory / f"{name}_data.npz", columns, chunks, (len(numbers), *images.pixels.shape))


def _targets(name: str, images: Collection, arrangement: Arrangement, config: PrepareConfig) -> np.ndarray:
    """float32 (N, 8). What is validated and tested on keeps the votes alone."""
    targets = by_emotion(arrangement.labels.votes, images.emotions, arrangement.findings.copies)
    share = config.posted_share if name == "train" and config.label_set == "ferplus_votes" else 0
    return with_posted(targets, images.posted, share)


def _chunks(
    images: Collection, numbers: np.ndarray, places: np.ndarray, extra: Alterations
) -> Iterator[np.ndarray]:
    """Images in order, a chunk at a time; `places` are places in `extra`, negative for real images."""
    for start in range(0, len(numbers), CHUNK):
        chunk = images.pixels.read(numbers[start : start + CHUNK])
        mine = places[start : start + CHUNK]
        altered = mine >= 0
        if altered.any():
            chunk[altered] = alter(chunk[altered], extra[mine[altered]])
        yield chunk
