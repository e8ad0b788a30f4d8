"""The stage itself: `prepare` runs the steps in order and puts the finished directory in its place."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from storage.errors import InputError
from storage.files import arriving_directory
from storage.objects import ObjectStore
from tasks.classes import CLASSES
from tasks.config.prepare import SPLITS, PrepareConfig
from tasks.ingest import Ingested
from tasks.prepare.audit import audit
from tasks.prepare.collection import Collection, collect
from tasks.prepare.elsewhere import audit_elsewhere, learned_first, part, write_elsewhere
from tasks.prepare.facts import write_facts
from tasks.prepare.fer2013 import SIDE_PX
from tasks.prepare.grouping import Findings, find_groups
from tasks.prepare.known import known_path
from tasks.prepare.labels import DISPUTED, REASONS, UNLABELLED, disputed, resolve
from tasks.prepare.metadata import describe
from tasks.prepare.pictures import draw
from tasks.prepare.pixels import PixelFile
from tasks.prepare.prepared import PreparedData
from tasks.prepare.shortcuts import audit_shortcuts
from tasks.prepare.splits import DROPPED, TEST, Candidates, assign, load_split
from tasks.prepare.threads import Pool
from tasks.prepare.writing import Arrangement, write_split


def prepare(ingested: Ingested, config: PrepareConfig, work_dir: Path) -> PreparedData:
    """The data set of that content and config: made, or found finished under `work_dir/prepared`.

    InputError where a source can't be used, too much of it is unreadable, or a class has no image; StoreError
    where the disk is full or refuses.
    """
    config = settled(config, ingested)
    fingerprint = config.fingerprint(_content(ingested))
    finished = Path(work_dir) / "prepared" / fingerprint
    if (finished / "metadata.json").exists():
        return PreparedData.read(finished, reused=True)
    with arriving_directory(finished) as made:
        _make(ingested, config, fingerprint, made)
    return PreparedData.read(finished, reused=False)


def settled(config: PrepareConfig, ingested: Ingested) -> PrepareConfig:
    """The config with the label set and the channels that its defaults stand for here.

    InputError where FER+'s votes are wanted and there are none.
    """
    update = {"label_set": _label_set(config, ingested), "channels": config.channels or _channels(config)}
    return config.model_copy(update=update)


def _channels(config: PrepareConfig) -> int:
    return 3 if config.image_px > SIDE_PX else 1


def _label_set(config: PrepareConfig, ingested: Ingested) -> str:
    rated = any(source.votes for source in ingested.sources)
    bare = [one.name for one in ingested.sources if one.format == "fer2013_csv" and not one.votes]
    if config.label_set == "auto":
        return "ferplus_votes" if rated and not bare else "fer2013"
    if config.label_set != "fer2013" and not rated:
        names = bare or [source.name for source in ingested.sources]
        raise InputError(
            f"prepare: label_set = {config.label_set} needs FER+'s fer2013new.csv, which lies in none of the "
            f"sources {names}; put it beside FER-2013's images, or set label_set to auto or fer2013"
        )
    return config.label_set


def publish(store: ObjectStore, data: PreparedData) -> None:
    """Upload a data set that the store doesn't have; metadata.json last, so that with it all is there."""
    folder = f"prepared/{data.fingerprint}"
    if store.exists(f"{folder}/{data.metadata_path.name}"):
        return
    for path in sorted(data.directory.iterdir(), key=lambda path: path == data.metadata_path):
        store.upload(path, f"{folder}/{path.name}")


def _content(ingested: Ingested) -> str:
    return json.dumps(
        [
            [one.name, one.format, one.use, one.fingerprint, one.vocabulary, one.lists]
            for one in ingested.sources
        ],
        sort_keys=True,
    )


def _make(ingested: Ingested, config: PrepareConfig, fingerprint: str, directory: Path) -> None:
    from threadpoolctl import threadpool_limits

    with (
        # the pool's threads are the parallelism: a matrix product that waits for threads of its own stalls it
        threadpool_limits(1, "blas"),
        Pool(config.threads) as pool,
        PixelFile(directory / "pixels", config.image_px, config.channels) as pixels,
    ):
        everything = collect(learned_first(ingested), config, pixels, pool)
        known = known_path(directory.parent, config.image_px, config.channels)
        parted = part(everything, find_groups(everything, config, pool, known), ingested)
        images = parted.learned
        arrangement = arrange(images, parted.learned_findings, config)
        for name in SPLITS:
            write_split(directory, name, images, arrangement, config)
        write_facts(directory, images, arrangement)
        metadata: dict[str, Any] = describe(images, arrangement, config) | {"fingerprint": fingerprint}
        sets = write_elsewhere(directory, parted, arrangement.splits, config)
        metadata["elsewhere"] = {name: one.model_dump(mode="json") for name, one in sets.items()}
        metadata["audit"] = audit(directory, images, arrangement.findings, config, pool)
        elsewhere = audit_elsewhere(directory, parted)
        metadata["audit"]["elsewhere"] = elsewhere.model_dump(mode="json")
        metadata["audit"]["leaked_pairs"] += elsewhere.leaked
        shortcuts = audit_shortcuts(
            load_split(directory, "train"),
            images.names,
            config.seed,
            # mapped anew for each few images, to bound memory
            lambda rows: load_split(directory, "train").images[rows],
        )
        metadata["audit"]["shortcuts"] = shortcuts.model_dump(mode="json")
        metadata["warnings"] += [*shortcuts.errors, *shortcuts.warnings]
        metadata["pictures"] = draw(directory, images, arrangement, metadata)
    (directory / "metadata.json").write_text(json.dumps(metadata, indent=1))


def arrange(images: Collection, findings: Findings, config: PrepareConfig) -> Arrangement:
    """Label and split of every image. InputError where an expected class is left with none."""
    labels = resolve(images.votes, findings.copies, config)
    use = np.where(findings.blank, UNLABELLED, labels.use)
    strata = labels.labels.astype(np.int64) * len(images.names) + images.sources
    splits = assign(
        Candidates(findings.groups, strata, images.hashes, use, images.usages, images.sources), config
    )
    # after the split, so that a new image which disputes an old one moves no other between splits
    out = disputed(labels, findings.first, findings.near)[findings.copies] & (splits >= 0)
    if config.disputed == "kept in test":
        out &= splits != TEST
    splits[out] = DROPPED
    labels = replace(labels, reasons=np.where(out, REASONS.index(DISPUTED), labels.reasons))
    arranged = Arrangement(findings, labels, splits)
    _check_some_left(arranged, config)
    _check_classes(labels.labels[splits >= 0], config)
    return arranged


def _check_some_left(arranged: Arrangement, config: PrepareConfig) -> None:
    """InputError where every image was dropped, with how many for which reason."""
    if (arranged.splits >= 0).any():
        return
    blank = arranged.findings.blank
    reasons = np.bincount(arranged.labels.reasons[~blank], minlength=len(REASONS))
    told = [
        f"{count:,} have {reason}" for reason, count in zip(REASONS, reasons, strict=True) if reason and count
    ]
    told = [f"{np.count_nonzero(blank):,} are blank (blank_std = {config.blank_std:g})"] * bool(
        blank.any()
    ) + told
    raise InputError(
        f"prepare: none of {len(blank):,} images is left to learn from: {', '.join(told)}; look at the files "
        "in the store, or change these fields"
    )


def _check_classes(labels: np.ndarray, config: PrepareConfig) -> None:
    present = [CLASSES[label] for label in np.unique(labels)]
    missing = [name for name in config.expected_classes if name not in present]
    if missing:
        raise InputError(
            f"prepare: expected images of {list(config.expected_classes)}, got none of {missing}; "
            "add some to datasets/custom/<class>/ or take the class out of expected_classes"
        )
    if len(present) < 2:
        raise InputError(
            f"prepare: expected images of two classes or more, got only {present}; add FER-2013 to "
            "datasets/fer2013/ or other classes to datasets/custom/<class>/"
        )
