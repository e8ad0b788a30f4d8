"""What metadata.json says of a data set: counts, what was dropped and why, warnings."""

import numpy as np

from tasks.classes import CLASSES
from tasks.config.prepare import CODE_VERSION, SPLITS, PrepareConfig
from tasks.prepare.augment import drawn_of
from tasks.prepare.collection import Collection
from tasks.prepare.fer2013 import SIDE_PX
from tasks.prepare.labels import REASONS
from tasks.prepare.splits import LEAKED
from tasks.prepare.writing import Arrangement


def describe(images: Collection, arrangement: Arrangement, config: PrepareConfig) -> dict:
    """metadata.json, less the audit and the pictures."""
    labels, splits = arrangement.labels.labels, arrangement.splits
    per_source = {name: _per_source(images, labels, splits == place) for place, name in enumerate(SPLITS)}
    counts = {name: _per_class(labels[splits == place]) for place, name in enumerate(SPLITS)}
    train = np.array(list(counts["train"].values()))
    drawn = drawn_of(train, config.drawing)
    stored = np.maximum(drawn - train, 0) if config.store_augmented else np.zeros_like(drawn)
    counts |= {
        name: dict(zip(CLASSES, column.tolist(), strict=True))
        for name, column in (("train_augmented", stored), ("train_drawn", drawn))
    }
    return {
        "schema": 1,
        "code_version": CODE_VERSION,
        "classes": list(CLASSES),
        "label_set": config.label_set,
        "split": config.split,
        "image_px": config.image_px,
        "channels": config.channels,
        "sources": list(images.names),
        "counts": counts,
        "counts_per_source": per_source,
        "read": {name: int((images.sources == number).sum()) for number, name in enumerate(images.names)},
        "unreadable": images.unreadable,
        "origins": {name: origin.model_dump(mode="json") for name, origin in images.origins.items()},
        "notes": [note for name, origin in images.origins.items() for note in origin.notes(name, config)],
        "dropped": _dropped(arrangement),
        "conflicting_labels": _conflicts(arrangement),
        "warnings": [
            *_own_labels(images, config),
            *(said for name, origin in images.origins.items() for said in origin.warnings(name)),
            *_warnings(images, labels, splits, counts),
        ],
        "config": config.model_dump(mode="json"),
    }


def _per_class(labels: np.ndarray) -> dict[str, int]:
    return dict(zip(CLASSES, np.bincount(labels, minlength=len(CLASSES)).tolist(), strict=True))


def _per_source(images: Collection, labels: np.ndarray, chosen: np.ndarray) -> dict[str, dict[str, int]]:
    return {
        name: _per_class(labels[chosen & (images.sources == number)])
        for number, name in enumerate(images.names)
    }


def _dropped(arrangement: Arrangement) -> dict[str, int]:
    """Images that are in no split, by the first reason that applies."""
    labels, out = arrangement.labels, arrangement.splits < 0
    leaked = (arrangement.splits == LEAKED) & ~arrangement.findings.blank
    dropped = {"blank": int((out & arrangement.findings.blank).sum()), "leaked": int(leaked.sum())}
    rest = out & ~arrangement.findings.blank & ~leaked
    return dropped | {
        reason: int((rest & (labels.reasons == number)).sum())
        for number, reason in enumerate(REASONS)
        if reason
    }


def _conflicts(arrangement: Arrangement) -> dict[str, int]:
    """Distinct images whose copies disagree, and how many of them the majority could not settle."""
    first, labels = arrangement.findings.first, arrangement.labels
    mine = labels.conflicting[first]
    return {"distinct_images": int(mine.sum()), "unsettled": int((mine & (labels.reasons[first] > 0)).sum())}


def _own_labels(images: Collection, config: PrepareConfig) -> list[str]:
    """About FER-2013's labels; its images are known by their size."""
    if config.label_set != "fer2013" or all(one.side_px != SIDE_PX for one in images.origins.values()):
        return []
    return [
        "labels are the sources' own: on FER-2013's, networks are right for 65 to 76 % of all images, so "
        "84 % is out of reach; put FER+'s fer2013new.csv beside its images and leave label_set at auto"
    ]


def _warnings(images: Collection, labels: np.ndarray, splits: np.ndarray, counts: dict) -> list[str]:
    found = []
    for number, name in enumerate(CLASSES):
        mine = np.unique(images.sources[(labels == number) & (splits >= 0)])
        if len(images.names) > 1 and len(mine) == 1:
            found.append(
                f"{name} comes from {images.names[mine[0]]} alone: a network may learn to tell the source, "
                "so read its figures per source"
            )
        if not len(mine):
            found.append(
                f"no source has an image of {name}: the network can't tell it, and is judged on the other "
                "classes"
            )
        else:
            found += [f"{name} has no image in {split}" for split in SPLITS if not counts[split][name]]
    return found
