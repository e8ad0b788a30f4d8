"""FER+: the votes of ten annotators for each image of FER-2013 (Barsoum et al., 2016).

In: `fer2013new.csv`. Out: votes uint8 (n, 8), columns `VOTES`: our five classes, then contempt,
unknown and NF (no face); and the same by emotion, uint8 (n, 8), columns `EMOTIONS`. Row i belongs to
row i of fer2013.csv: the number in the column `Image name` skips rows and must never be used to join.

The rule, the paper's with our classes in place of its eight:
 1. an emotion that a single annotator chose is an outlier, its vote is removed;
 2. the rest are merged by `tasks.classes.TO_CLASS`; contempt, unknown and NF have no class of ours, but
    their votes count in the total;
 3. an image's label is the class with more than `ferplus_min_share` (paper: half) of all its votes; an image
    without one can't be scored, and is left out of val and test;
 4. label set `ferplus` leaves it out of train, too; `ferplus_votes` trains on it as long as our five
    classes hold more than half of its votes, with the classes' shares as soft target.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from storage.errors import InputError
from tasks.classes import CLASSES, EMOTIONS, FERPLUS_EMOTIONS, TO_CLASS
from tasks.prepare.fer2013 import open_packed
from tasks.prepare.table import read_table

OTHERS = ("contempt", "unknown", "NF")
VOTES = (*CLASSES, *OTHERS)
"""What an image can be voted to be. Any label is such a row of votes: a hard one is a single vote."""

_COLUMNS = (*FERPLUS_EMOTIONS, "unknown", "NF")
_MOST = 20
"""Votes for one of them; ten annotators saw each image, a few twice."""


@dataclass(frozen=True)
class Table:
    """Votes of n images, uint8 (n, 8): by class and other (`VOTES`), and by emotion (`EMOTIONS`)."""

    votes: np.ndarray
    emotions: np.ndarray

    def __len__(self) -> int:
        return len(self.votes)


def read_ferplus(path: Path, name: str) -> Table:
    """Votes without outliers, in the file's row order. InputError names row and column."""
    with open_packed(path, name) as file:
        cells = read_table(file, name, _COLUMNS)
    wrong = ~cells.isin([str(count) for count in range(_MOST + 1)]).to_numpy()
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise InputError(
            f"{name}: row {row}: {_COLUMNS[column]}: expected 0 to {_MOST} votes, got "
            f"{cells.iat[row, column]!r}; take the file from FER+'s repository"
        )
    return _merge(cells.to_numpy(np.uint8))


def _merge(raw: np.ndarray) -> Table:
    kept = np.where(raw <= 1, 0, raw)
    votes = np.zeros((len(raw), len(VOTES)), np.uint8)
    emotions = np.zeros((len(raw), len(EMOTIONS)), np.uint8)
    for place, column in enumerate(_COLUMNS):
        votes[:, VOTES.index(TO_CLASS.get(column, column))] += kept[:, place]
        if column in EMOTIONS:
            emotions[:, EMOTIONS.index(column)] = kept[:, place]
    return Table(votes, emotions)
