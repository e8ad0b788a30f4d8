"""Who goes where: whole groups to train, val or test; and the reader of the files that result.

In: groups, classes, sources of N images. Out: splits int8 (N,): 0 train, 1 val, 2 test, DROPPED, LEAKED.

A group's split is a matter of its first image alone, first in the order of reading: a keyed hash of its
pixels falls into test, val or train. So a group stays where it is whatever joins the set; what joins a group
goes where that is, as rows are appended and file numbers grow; where an image ties two groups together, the
later one moves. The shares hold in every class and source, up to chance: of n groups alike, by the square
root of share · (1 - share) / n.
"""

import struct
import zipfile
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Literal

import numpy as np

from storage.errors import InputError
from tasks.config.prepare import SPLITS, PrepareConfig
from tasks.prepare.labels import CLASS_SUMS, SCORED, TRAIN_ONLY

TRAIN, VAL, TEST = range(len(SPLITS))
DROPPED, LEAKED = -1, -2
SplitName = Literal["train", "val", "test"]


@dataclass(frozen=True)
class Split:
    """One split, N images. Real arrays over the file's pages: slice them, don't write to them."""

    images: np.ndarray
    """uint8 (N, P, P, C)"""
    labels: np.ndarray
    """uint8 (N,), index into CLASSES"""
    emotions: np.ndarray
    """float32 (N, 8), the target of each of EMOTIONS, rows sum to 1"""
    sources: np.ndarray
    """uint8 (N,), index into metadata["sources"]"""
    ids: np.ndarray
    """bytes (N,)"""
    augmented: np.ndarray
    """bool (N,), only ever true in train"""
    digests: np.ndarray
    """uint64 (N,), a hash of the image's pixels; an augmented one has its original's"""
    groups: np.ndarray
    """int32 (N,), copies, near duplicates and frames of one person share a number, in all three splits"""

    @property
    def votes(self) -> np.ndarray:
        """float32 (N, 5), the target of each class: the sum of its emotions'."""
        return self.emotions @ CLASS_SUMS

    def where(self, chosen: np.ndarray) -> "Split":
        """The chosen images alone, by a mask or by their places."""
        return Split(**{name: column[chosen] for name, column in vars(self).items()})


def load_split(directory: Path, name: SplitName) -> Split:
    """A split of a prepared data set, its images mapped from the file rather than read.

    InputError where the file is missing or isn't one of prepare's.
    """
    return _read(directory / f"{name}_data.npz")


def load_elsewhere(directory: Path, source: str) -> Split:
    """The images of a source with `use = "evaluate"`, read like `load_split`; its groups are its own."""
    return _read(elsewhere_path(directory, source))


def elsewhere_path(directory: Path, source: str) -> Path:
    """Where the images of a source with `use = "evaluate"` lie."""
    return directory / f"elsewhere_{source}.npz"


def _read(path: Path) -> Split:
    try:
        with zipfile.ZipFile(path) as archive:
            return Split(**{member: _map(path, archive, member) for member in Split.__dataclass_fields__})
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path}: expected a split that prepare wrote, got {error}; delete {path.parent} and run "
            "again: the data set comes from the store, or is prepared anew"
        ) from None


def _map(path: Path, archive: zipfile.ZipFile, member: str) -> np.ndarray:
    """A stored (uncompressed) member of an NPZ as an array over the file. Layout: PKZIP APPNOTE 4.3.7."""
    info = archive.getinfo(f"{member}.npy")
    if info.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{member} compressed")
    with path.open("rb") as file:
        file.seek(info.header_offset + 26)
        file.seek(sum(struct.unpack("<HH", file.read(4))), 1)
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        if 0 in shape:
            return np.empty(shape, dtype)
        return np.memmap(path, dtype, "r", file.tell(), shape).view(np.ndarray)


@dataclass(frozen=True)
class Candidates:
    """What the assignment looks at, a row an image."""

    groups: np.ndarray
    strata: np.ndarray
    """int (N,): a number for each class and source."""
    hashes: np.ndarray
    use: np.ndarray
    """labels.SCORED, TRAIN_ONLY or UNLABELLED"""
    usages: np.ndarray
    sources: np.ndarray


def assign(images: Candidates, config: PrepareConfig) -> np.ndarray:
    """The split of each image, int8 (N,). Images without a label are DROPPED.

    Images of a group that lies in val or test are LEAKED where the official split has them in a lesser one.
    """
    count = int(images.groups.max()) + 1
    placed = _fixed_groups(images, count) if config.split == "official" else np.full(count, DROPPED)
    scored = images.use == SCORED
    free = scored & (placed[images.groups] == DROPPED)
    _place(placed, images, free, (config.test_share, config.val_share), config.seed)
    without_val = _sources_without_val(images)
    if config.split == "official":
        open_train = scored & without_val & (images.usages == TRAIN) & (placed[images.groups] == TRAIN)
        _place(
            placed,
            images,
            open_train,
            (0, config.val_share / (config.val_share + config.train_share)),
            config.seed,
        )
    placed[placed == DROPPED] = TRAIN
    splits = placed[images.groups].astype(np.int8)
    splits[(images.use == TRAIN_ONLY) & (splits != TRAIN)] = LEAKED
    if config.split == "official":
        splits[(images.usages >= 0) & (images.usages < splits) & ~(without_val & (splits == VAL))] = LEAKED
    splits[~np.isin(images.use, (SCORED, TRAIN_ONLY))] = DROPPED
    return splits


def _fixed_groups(images: Candidates, count: int) -> np.ndarray:
    """The highest official split among a group's images: a group that reaches into test lies in test."""
    placed = np.full(count, DROPPED)
    np.maximum.at(placed, images.groups, np.where(images.use == SCORED, images.usages, DROPPED))
    return placed


def _sources_without_val(images: Candidates) -> np.ndarray:
    """bool (N,): official sources of two folders, train and test, whose val is cut from train."""
    with_val = np.unique(images.sources[images.usages == VAL])
    return (images.usages >= 0) & ~np.isin(images.sources, with_val)


def _place(
    placed: np.ndarray, images: Candidates, chosen: np.ndarray, shares: tuple[float, float], seed: int
) -> None:
    """Put the groups of the chosen images into test, val, train by `shares` of (test, val)."""
    if not chosen.any():
        return
    groups, strata = _strata(images.groups[chosen], images.strata[chosen])
    numbers, first = np.unique(images.groups, return_index=True)
    leaders = images.hashes[first[np.searchsorted(numbers, groups)]]
    marks = np.array([_mark(content, seed) for content in leaders.tolist()])
    placed[groups] = np.array([TEST, VAL, TRAIN])[np.searchsorted(np.cumsum(shares), marks, side="right")]
    for stratum in np.unique(strata):
        mine = groups[strata == stratum]
        _leave_none_empty(placed, mine[np.argsort(marks[strata == stratum])], shares)


def _strata(groups: np.ndarray, strata: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each group's number, and the stratum that most of its images belong to."""
    pairs, counts = np.unique(np.stack([groups, strata], axis=1), axis=0, return_counts=True)
    order = np.lexsort((pairs[:, 1], -counts, pairs[:, 0]))
    numbers, first = np.unique(pairs[order, 0], return_index=True)
    return numbers, pairs[order[first], 1]


def _mark(content: int, seed: int) -> float:
    """From 0 up to 1, spread evenly."""
    digest = blake2b(content.to_bytes(8, "little"), digest_size=8, key=seed.to_bytes(16, "little"))
    return int.from_bytes(digest.digest(), "little") / 2**64


def _leave_none_empty(placed: np.ndarray, groups: np.ndarray, shares: tuple[float, float]) -> None:
    """Give each split one of the groups, in the order of their marks, if there are enough of them.

    Only a class with a few dozen groups needs this.
    """
    wanted = [split for split, share in ((TEST, shares[0]), (VAL, shares[1])) if share > 0]
    if len(groups) > len(wanted):
        for place, split in enumerate(wanted):
            if split not in placed[groups]:
                placed[groups[place]] = split
        if TRAIN not in placed[groups]:
            placed[groups[-1]] = TRAIN
