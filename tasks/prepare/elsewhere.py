"""Sets from elsewhere: sources that a network is only ever measured on.

In: a `Collection` whose last images are of sources with `use = "evaluate"`, and what was found out about all
pairs. Out: `elsewhere_<source>.npz` beside the splits, with the same members, and an `ElsewhereSet` of each
for metadata.json.

Other images join no split, and don't move any: groups and labels of what is learnt from are made without
them. An image that shows what is in train or validation, exactly or nearly, is dropped from its set.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from pydantic import BaseModel, Field

from storage.errors import InputError
from tasks.classes import CLASSES
from tasks.config.prepare import SPLITS, PrepareConfig
from tasks.ingest import Ingested
from tasks.prepare.archive import write_npz
from tasks.prepare.blocks import hash_images
from tasks.prepare.collection import Collection
from tasks.prepare.duplicates import join
from tasks.prepare.grouping import Findings
from tasks.prepare.labels import SCORED, by_emotion, resolve
from tasks.prepare.splits import TRAIN, VAL, Split, elsewhere_path, load_elsewhere, load_split

_HOW = "take the source out of data.sources or give it other images"


class ElsewhereSet(BaseModel, frozen=True, extra="forbid"):
    """One source that is measured on, as written, and what was left out of it."""

    images: int = Field(description="Images in the set")
    groups: int = Field(description="Groups of them that are independent of one another: people, photos")
    counts: dict[str, int] = Field(description="Images of each class")
    blank: int = Field(description="Images left out for next to no contrast")
    unlabelled: int = Field(description="Images left out whose copies or votes don't agree on a label")
    copies_of_training: int = Field(description="Images left out that are in train or validation, exactly")
    near_training: int = Field(description="Images left out that show a photo of train or validation")


class ElsewhereAudit(BaseModel, frozen=True, extra="forbid"):
    """What the files say of sets from elsewhere and splits. All 0 is the proof that none was learnt from."""

    images_in_splits: int = Field(description="Images of these sources in train, validation or test")
    exact_in_training: int = Field(description="Images of these sets that are in train or validation")
    near_in_training: int = Field(description="Pairs that show one photo, here and in train or validation")

    @property
    def leaked(self) -> int:
        """Everything that must not be."""
        return self.images_in_splits + self.exact_in_training + self.near_in_training


@dataclass(frozen=True)
class Parted:
    """All images, and of those that are learnt from, which come first, what there is of them alone."""

    everything: Collection
    findings: Findings
    learned: Collection
    learned_findings: Findings


def learned_first(ingested: Ingested) -> Ingested:
    """The same with sources that are only measured on last."""
    ordered = sorted(ingested.sources, key=lambda source: source.use == "evaluate")
    return ingested.model_copy(update={"sources": tuple(ordered)})


def part(everything: Collection, findings: Findings, ingested: Ingested) -> Parted:
    """Images to learn from on their own, as if there were no others. InputError where there are none."""
    names = tuple(source.name for source in ingested.sources if source.use == "train")
    mine = everything.sources < len(names)
    count = int(mine.sum())
    if not count:
        raise InputError(
            f"prepare: no image to learn from, only sources with use = 'evaluate' "
            f"({', '.join(everything.names[len(names) :])}); add a source with use = 'train'"
        )
    learned = replace(
        everything,
        names=names,
        **{
            name: getattr(everything, name)[:count]
            for name in ("votes", "emotions", "posted", "usages", "sources", "ids", "hashes", "statistics")
        },
    )
    return Parted(everything, findings, learned, among(findings, mine))


def among(findings: Findings, chosen: np.ndarray) -> Findings:
    """What was found among the images chosen by bool (N,), as if there were no others."""
    distinct, first, copies = np.unique(findings.copies[chosen], return_index=True, return_inverse=True)
    place = np.full(len(findings.first), -1)
    place[distinct] = np.arange(len(distinct))
    near, frames = place[findings.near], place[findings.frames]
    kept = (near >= 0).all(axis=1)
    near, frames = near[kept], frames[(frames >= 0).all(axis=1)]
    groups = join(len(distinct), np.concatenate([near, frames]))[copies]
    return Findings(first, copies, groups, findings.blank[chosen], near, findings.scores[kept], frames)


def write_elsewhere(
    directory: Path, parted: Parted, splits: np.ndarray, config: PrepareConfig
) -> dict[str, ElsewhereSet]:
    """Each set into its file. `splits` int8: where the images to learn from went.

    InputError for a source of which no image is left to measure on.
    """
    exact, near = _seen_in_training(parted, splits)
    names = parted.everything.names
    return {
        names[number]: _write(directory, parted, number, exact, near, config)
        for number in range(len(parted.learned.names), len(names))
    }


def _seen_in_training(parted: Parted, splits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which images are, and which show a photo that is, in train or validation: bool (N,) each."""
    found = parted.findings
    known = np.zeros(len(found.first), bool)
    known[found.copies[: len(splits)][np.isin(splits, (TRAIN, VAL))]] = True
    close = np.zeros_like(known)
    for one, other in (found.near.T, found.near.T[::-1]):
        close[one[known[other]]] = True
    return known[found.copies], close[found.copies]


def _write(
    directory: Path, parted: Parted, number: int, exact: np.ndarray, near: np.ndarray, config: PrepareConfig
) -> ElsewhereSet:
    images = parted.everything
    mine = images.sources == number
    found = among(parted.findings, mine)
    if not mine.any():
        raise InputError(f"prepare: {images.names[number]}: no image to measure on; {_HOW}")
    labels = resolve(images.votes[mine], found.copies, config)
    reasons = [found.blank, labels.use != SCORED, exact[mine], near[mine]]
    # an image is counted under the first reason that applies
    first = np.argmax([*reasons, np.ones(len(found.blank), bool)], axis=0)
    kept = np.flatnonzero(first == len(reasons))
    left_out = np.bincount(first, minlength=len(reasons))[: len(reasons)].tolist()
    if not len(kept):
        raise InputError(
            f"prepare: {images.names[number]}: none of {len(first)} images is left to measure on: "
            f"{left_out[0]} blank, {left_out[1]} without a label, {left_out[2] + left_out[3]} in training "
            f"too; {_HOW}"
        )
    numbers = np.flatnonzero(mine)[kept]
    columns = {
        "labels": labels.labels[kept],
        "emotions": by_emotion(labels.votes, images.emotions[mine], found.copies)[kept],
        "sources": np.zeros(len(kept), np.uint8),
        "ids": images.ids[numbers],
        "augmented": np.zeros(len(kept), bool),
        "digests": images.hashes[numbers],
        "groups": found.groups[kept].astype(np.int32),
    }
    path = elsewhere_path(directory, images.names[number])
    write_npz(path, columns, images.pixels.chunks(numbers), (len(kept), *images.pixels.shape))
    counts = np.bincount(columns["labels"], minlength=len(CLASSES)).tolist()
    return ElsewhereSet(
        images=len(kept),
        groups=len(np.unique(columns["groups"])),
        counts=dict(zip(CLASSES, counts, strict=True)),
        **dict(zip(("blank", "unlabelled", "copies_of_training", "near_training"), left_out, strict=True)),
    )


def audit_elsewhere(directory: Path, parted: Parted) -> ElsewhereAudit:
    """Taken from the files themselves, by hash of the written pixels and by the pairs found."""
    names = parted.everything.names[len(parted.learned.names) :]
    if not names:
        return ElsewhereAudit(images_in_splits=0, exact_in_training=0, near_in_training=0)
    sets = [load_elsewhere(directory, name) for name in names]
    splits = [load_split(directory, name) for name in SPLITS]
    learned = [splits[TRAIN], splits[VAL]]
    prefixes = tuple(f"{name}:".encode() for name in names)
    hashes = np.concatenate([hash_images(one.images) for one in sets])
    first, second = _linked(parted, sets), _linked(parted, learned)
    near = parted.findings.near
    return ElsewhereAudit(
        images_in_splits=sum(one.startswith(prefixes) for split in splits for one in split.ids.tolist()),
        exact_in_training=int(np.isin(hashes, np.concatenate([one.digests for one in learned])).sum()),
        near_in_training=int((first[near[:, 0]] & second[near[:, 1]]).sum())
        + int((second[near[:, 0]] & first[near[:, 1]]).sum()),
    )


def _linked(parted: Parted, splits: list[Split]) -> np.ndarray:
    """Which distinct images are in the files, bool (D,)."""
    ids = np.concatenate([one.ids for one in splits])
    order = np.argsort(parted.everything.ids)
    rows = order[np.searchsorted(parted.everything.ids, ids, sorter=order)]
    there = np.zeros(len(parted.findings.first), bool)
    there[parted.findings.copies[rows]] = True
    return there
