"""Which images belong together, and what was found on the way.

In: a `Collection`. Out: `Findings`: `copies` numbers the D distinct images, `groups` the sets that must lie
in one split; pairs are of distinct images.
"""

from dataclasses import dataclass

import numpy as np

from tasks.prepare.collection import Collection
from tasks.prepare.config import PrepareConfig
from tasks.prepare.duplicates import candidates, compare, describe_images, join, number_copies
from tasks.prepare.persons import neighbouring_frames, same_person
from tasks.prepare.threads import Pool


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
    """float32 (k,): the near pairs' aligned correlation."""
    frames: np.ndarray
    """int (m, 2): distinct images that show one person, by frame number or `groups.csv`."""


def find_groups(images: Collection, config: PrepareConfig, pool: Pool) -> Findings:
    """Exact copies, near duplicates and frames of one person, joined into groups."""
    first, copies = number_copies(images.hashes)
    blank = images.statistics[:, 1] < config.blank_std
    seen = np.flatnonzero(~blank[first])
    numbers = first[seen]
    descriptors, inner = describe_images(images.pixels.chunks(numbers), pool)
    pairs = candidates(descriptors, inner, pool)
    scores = compare(images.pixels, numbers, descriptors, pairs, pool)
    near = scores > config.near_duplicate
    frames = neighbouring_frames(images.persons, images.ids[numbers])
    alike = compare(images.pixels, numbers, descriptors, frames, pool) > config.same_scene
    persons = copies[same_person(images.persons, images.ids)]
    near_pairs, frame_pairs = seen[pairs[near]], np.concatenate([seen[frames[alike]], persons])
    groups = join(len(first), np.concatenate([near_pairs, frame_pairs]))[copies]
    return Findings(first, copies, groups, blank, near_pairs, scores[near], frame_pairs)
