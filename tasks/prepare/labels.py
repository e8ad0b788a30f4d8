"""One label for each distinct image.

Copies of an image share the sum of their votes, so that a conflict between them is settled by majority;
a tie leaves the image without a label. A FER+ label needs more than `ferplus_min_share` of all votes.
Near duplicates with different labels are one photo, of which a label must be wrong: all of them are dropped.
"""

from dataclasses import dataclass

import numpy as np

from tasks.classes import CLASS_OF_EMOTION, CLASSES, EMOTIONS
from tasks.config.prepare import PrepareConfig
from tasks.prepare.ferplus import OTHERS, VOTES

SCORED, TRAIN_ONLY, UNLABELLED = 0, 1, 2

CLASS_SUMS = np.eye(len(CLASSES), dtype=np.float32)[list(CLASS_OF_EMOTION)]
"""float32 (8, 5): shares of EMOTIONS times this are shares of CLASSES."""

UNSAID = 255
"""Instead of an emotion's place: the label is a class of several emotions."""


@dataclass(frozen=True)
class Labels:
    """For N images: labels uint8 (N,), votes float32 (N, 5) with sum 1, use uint8 (N,)."""

    labels: np.ndarray
    votes: np.ndarray
    use: np.ndarray
    """SCORED: may go to any split. TRAIN_ONLY: no majority, soft target only. UNLABELLED: dropped."""
    reasons: np.ndarray
    """Why an image is not SCORED: index into REASONS, 0 where it is."""
    conflicting: np.ndarray
    """bool (N,): copies of this image carry different labels."""


DISPUTED = "near duplicate with another label"
REASONS = ("", "tie", "no majority", *OTHERS, DISPUTED)


def resolve(votes: np.ndarray, copies: np.ndarray, config: PrepareConfig) -> Labels:
    """Labels of images with votes uint8 (N, 8), `copies` int (N,) numbering the distinct images from 0."""
    total = np.zeros((int(copies.max()) + 1, len(VOTES)), np.float32)
    np.add.at(total, copies, votes)
    ours = total[:, : len(CLASSES)]
    top, everything = ours.max(axis=1), total.sum(axis=1)
    tie = (ours == top[:, None]).sum(axis=1) > 1
    crowd = config.label_set != "fer2013"
    scored = ~tie & (top > (config.ferplus_min_share if crowd else 0) * everything)
    soft = (config.label_set == "ferplus_votes") & ~scored & (ours.sum(axis=1) > 0.5 * everything)
    labels = ours.argmax(axis=1).astype(np.uint8)
    hard = np.eye(len(CLASSES), dtype=np.float32)[labels]
    shares = ours / np.maximum(ours.sum(axis=1, keepdims=True), 1)
    targets = shares if config.label_set == "ferplus_votes" else hard
    use = np.where(scored, SCORED, np.where(soft, TRAIN_ONLY, UNLABELLED)).astype(np.uint8)
    return Labels(
        labels[copies],
        targets[copies],
        use[copies],
        _reasons(total, tie, scored)[copies],
        _conflicts(votes, copies),
    )


def by_emotion(votes: np.ndarray, emotions: np.ndarray, copies: np.ndarray) -> np.ndarray:
    """Targets `votes` float32 (N, 5) spread over each class's emotions, float32 (N, 8).

    As the votes for `emotions` uint8 (N, 8) stand, those of copies together; evenly where none says which.
    """
    total = np.zeros((int(copies.max()) + 1, len(EMOTIONS)), np.float32)
    np.add.at(total, copies, emotions)
    classes = list(CLASS_OF_EMOTION)
    unsaid = (total @ CLASS_SUMS == 0)[:, classes]
    total = np.where(unsaid, 1, total)
    return (total / (total @ CLASS_SUMS)[:, classes])[copies] * votes[:, classes]


def with_posted(targets: np.ndarray, posted: np.ndarray, share: float) -> np.ndarray:
    """Targets float32 (N, 8) of which `share` goes to the emotion `posted` uint8 (N,), where one is named."""
    there = posted != UNSAID
    own = np.eye(len(EMOTIONS), dtype=np.float32)[np.where(there, posted, 0)]
    return np.where(there[:, None], (1 - share) * targets + share * own, targets).astype(np.float32)


def disputed(labels: Labels, first: np.ndarray, near: np.ndarray) -> np.ndarray:
    """bool (D,): distinct images (`first` int (D,) of N) in a pair of `near` int (k, 2) with two labels."""
    label, scored = labels.labels[first], labels.use[first] == SCORED
    a, b = near.T
    torn = near[scored[a] & scored[b] & (label[a] != label[b])]
    return np.isin(np.arange(len(first)), torn)


def _reasons(total: np.ndarray, tie: np.ndarray, scored: np.ndarray) -> np.ndarray:
    winner = total.argmax(axis=1)
    other = np.where(winner >= len(CLASSES), REASONS.index(OTHERS[0]) + winner - len(CLASSES), 2)
    return np.where(scored, 0, np.where(tie & (winner < len(CLASSES)), 1, other)).astype(np.uint8)


def _conflicts(votes: np.ndarray, copies: np.ndarray) -> np.ndarray:
    top = votes.argmax(axis=1)
    low = np.full(int(copies.max()) + 1, len(VOTES))
    high = np.zeros_like(low)
    np.minimum.at(low, copies, top)
    np.maximum.at(high, copies, top)
    return (low != high)[copies]
