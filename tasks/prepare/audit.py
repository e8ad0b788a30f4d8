"""What of a finished data set leaks, as its files show it, and what a naive split would leak.

In: the three NPZ files and the pairs that `grouping` found. Out: a dictionary for metadata.json; the gate
reads `audit["leaked_pairs"]`: copies by the hash of the written pixels, and pairs that the search found and
that were torn apart nevertheless. What the search overlooked can't be among them: for that there is
`audit["second_look"]`, which looks at a sample in another way and bounds what may have been missed.
"""

from itertools import combinations
from pathlib import Path

import numpy as np

from tasks.config.prepare import SPLITS, PrepareConfig
from tasks.prepare.blocks import hash_images
from tasks.prepare.collection import Collection
from tasks.prepare.grouping import Findings
from tasks.prepare.second_look import look_again
from tasks.prepare.splits import Split, SplitName, load_split
from tasks.prepare.threads import Pool

_MAPPED = 4096
"""Images mapped at once: 9 MB at 48 px grey."""


def audit(directory: Path, images: Collection, findings: Findings, config: PrepareConfig, pool: Pool) -> dict:
    """Pairs across the written splits (exact by hash of the written pixels, near by the pairs found)."""
    splits = {name: load_split(directory, name) for name in SPLITS}
    counts = _count_in_splits(splits, images, findings)
    hashes = [_hashes(directory, name) for name in SPLITS]
    exact = sum(len(np.intersect1d(a, b)) for a, b in combinations(hashes, 2))
    train = splits["train"]
    strangers = ~np.isin(train.ids[train.augmented], train.ids[~train.augmented])
    found = {
        "exact_pairs_across": exact,
        "near_pairs_across": _across(counts, findings.near),
        "same_person_pairs_across": _across(counts, findings.frames),
        "augmented_from_outside_train": int(strangers.sum()),
        "augmented_outside_train": int(splits["val"].augmented.sum() + splits["test"].augmented.sum()),
    }
    return {
        "leaked_pairs": sum(found.values()),
        **found,
        "naive_random_split": _naive(findings, config),
        "found": _found(findings),
        "second_look": look_again(directory, config.seed, pool),
        "thresholds": {"near_duplicate": config.near_duplicate, "same_scene": config.same_scene},
    }


def _hashes(directory: Path, name: SplitName) -> np.ndarray:
    """Of the real images in a split's file, uint64. Mapped anew for each part of it, to bound memory."""
    real = np.flatnonzero(~load_split(directory, name).augmented)
    chunks = (real[start : start + _MAPPED] for start in range(0, len(real), _MAPPED))
    return np.concatenate(
        [
            np.empty(0, np.uint64),
            *(hash_images(load_split(directory, name).images[chunk]) for chunk in chunks),
        ]
    )


def _count_in_splits(splits: dict[str, Split], images: Collection, findings: Findings) -> np.ndarray:
    """How many copies of each distinct image the files hold, int (D, 3)."""
    order = np.argsort(images.ids)
    counts = np.zeros((len(findings.first), len(SPLITS)), np.int64)
    for place, split in enumerate(splits.values()):
        rows = order[np.searchsorted(images.ids, split.ids[~split.augmented], sorter=order)]
        np.add.at(counts[:, place], findings.copies[rows], 1)
    return counts


def _across(counts: np.ndarray, pairs: np.ndarray) -> int:
    """Pairs of images, of which there are `counts` copies in each split, that lie in two splits."""
    first, second = counts[pairs[:, 0]], counts[pairs[:, 1]]
    return int((first.sum(axis=1) * second.sum(axis=1) - (first * second).sum(axis=1)).sum())


def _naive(findings: Findings, config: PrepareConfig) -> dict[str, int]:
    """Leaks of a random split of the same images, blank ones left out, by the same shares."""
    rng = np.random.default_rng(config.seed)
    shares = (config.train_share, config.val_share, config.test_share)
    splits = rng.choice(len(SPLITS), len(findings.copies), p=shares)
    counts = np.zeros((len(findings.first), len(SPLITS)), np.int64)
    np.add.at(counts, (findings.copies[~findings.blank], splits[~findings.blank]), 1)
    exact = (counts.sum(axis=1) ** 2 - (counts**2).sum(axis=1)).sum() // 2
    twins = np.stack([np.arange(len(counts))] * 2, axis=1)
    linked = np.concatenate([twins, findings.near, findings.near[:, ::-1]])
    in_train = np.zeros(len(counts), bool)
    np.logical_or.at(in_train, linked[:, 0], counts[linked[:, 1], 0] > 0)
    return {
        "exact_pairs_across": int(exact),
        "near_pairs_across": _across(counts, findings.near),
        "same_person_pairs_across": _across(counts, findings.frames),
        "test_images": int(counts[:, 2].sum()),
        "test_images_with_a_twin_in_train": int(counts[in_train, 2].sum()),
    }


def _found(findings: Findings) -> dict[str, int]:
    sizes = np.bincount(findings.copies)
    return {
        "images": len(findings.copies),
        "distinct_images": len(findings.first),
        "groups_of_copies": int((sizes > 1).sum()),
        "near_pairs": len(findings.near),
        "same_person_pairs": len(findings.frames),
        "groups": int(findings.groups.max()) + 1,
        "largest_group": int(np.bincount(findings.groups).max()),
        "images_with_a_twin": int(np.isin(findings.copies, findings.near).sum()),
        "blank_images": int(findings.blank.sum()),
    }
