"""Which images belong together, and what was found on the way.

In: a `Collection`. Out: `Findings`: `copies` numbers the D distinct images, `groups` the sets that must lie
in one split; pairs are of distinct images.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tasks.config.prepare import PrepareConfig
from tasks.prepare.collection import Collection
from tasks.prepare.duplicates import candidates, compare, join, number_copies
from tasks.prepare.known import NOTHING, Known, read_known, write_known
from tasks.prepare.persons import neighbouring_frames, same_person
from tasks.prepare.threads import Pool
from tasks.prepare.verdict import SAME_PLACE

_KEPT = 0.8
"""Pairs less alike than any `near_duplicate` may ask for are not worth keeping."""


@dataclass(frozen=True)
class Findings:
    """Duplicates among N images, D of them distinct."""

    first: np.ndarray
    """int (D,): the first image of each distinct one."""
    copies: np.ndarray
    """int (N,): which distinct image each one is."""
    groups: np.ndarray
    """int (N,): images of one group go to one split."""
    blank: np.ndarray
    """bool (N,): next to no contrast, so nothing to compare by."""
    near: np.ndarray
    """int (k, 2): distinct images that show one photo."""
    scores: np.ndarray
    """float32 (k,): how alike the near pairs are."""
    frames: np.ndarray
    """int (m, 2): distinct images that show one person, by frame number or `groups.csv`."""


def find_groups(images: Collection, config: PrepareConfig, pool: Pool, known: Path | None = None) -> Findings:
    """Exact copies, pictures of one photo and frames of one person, joined into groups.

    `known` is the file in which what was found out about pairs is kept from night to night.
    """
    first, copies = number_copies(images.hashes)
    blank = images.statistics[:, 1] < config.blank_std
    seen = np.flatnonzero(~blank[first])
    numbers = first[seen]
    pairs, scores = _one_photo(images, numbers, pool, known)
    near = scores > config.near_duplicate
    frames = neighbouring_frames(images.persons, images.ids[numbers])
    maps = np.broadcast_to(SAME_PLACE, (len(frames), 2, 2))
    alike = compare(images.pixels, numbers, frames, maps, pool) > config.same_scene
    persons = copies[same_person(images.persons, images.ids)]
    near_pairs, frame_pairs = seen[pairs[near]], np.concatenate([seen[frames[alike]], persons])
    groups = join(len(first), np.concatenate([near_pairs, frame_pairs]))[copies]
    return Findings(first, copies, groups, blank, near_pairs, scores[near], frame_pairs)


def _one_photo(
    images: Collection, numbers: np.ndarray, pool: Pool, path: Path | None
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (k, 2) of places in `numbers`, in order, that are alike, and their scores."""
    digests = images.hashes[numbers]
    known = read_known(path) if path else NOTHING
    pairs, maps = candidates(images.pixels, numbers, ~np.isin(digests, known.digests), pool)
    scores = compare(images.pixels, numbers, pairs, maps, pool)
    old_pairs, old_scores = known.within(digests)
    kept = scores > _KEPT
    pairs = np.sort(np.concatenate([old_pairs, pairs[kept]]), axis=1)
    scores = np.concatenate([old_scores, scores[kept]])
    order = np.lexsort(pairs.T[::-1])
    pairs, scores = pairs[order], scores[order]
    if path:
        write_known(path, Known(np.sort(digests), digests[pairs], scores))
    return pairs, scores
