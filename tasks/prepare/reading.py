"""One source, read a block at a time: fer2013.csv, or photos in folders or lists.

In: a source's manifest and its files in the cache. Out: `Block`s in a fixed order. FER+'s votes come by row
where there is fer2013.csv, and by content (`fer2013_rows`) where there are folders of its images.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from storage.errors import InputError
from tasks.classes import FER2013_EMOTIONS
from tasks.config.prepare import PrepareConfig
from tasks.ingest import SourceFile, SourceManifest, blob_path, is_votes
from tasks.prepare.blocks import Block, Given, measure, one_vote
from tasks.prepare.fer2013 import SIDE_PX, Rows, read_fer2013
from tasks.prepare.fer2013_rows import AMBIGUOUS, UNKNOWN, by_photo, recognise
from tasks.prepare.ferplus import Table, read_ferplus
from tasks.prepare.lists import read_lists
from tasks.prepare.photos import Photo, decode, label_of, to_canvas, usage_of
from tasks.prepare.threads import Pool

Files = dict[str, SourceFile]

RECOGNISED, STRANGE, UNSURE = "recognised", "strange", "unsure"
"""Counts of a block whose images were looked for in FER-2013: found, not found, one of several."""
UNLISTED, LEFT_OUT = "unlisted", "left out"

_USAGE_NAMES = ("Training", "PublicTest", "PrivateTest")
_FER2013_LABELS = one_vote(FER2013_EMOTIONS)
_BATCH = 64


def read_source(
    source: SourceManifest, files: Files, blobs: Path, config: PrepareConfig, pool: Pool
) -> Iterator[Block]:
    """All images of a source. InputError where a file can't be used."""
    if source.format == "fer2013_csv":
        yield from _read_csv(source.name, files, blobs, config, pool)
    elif source.format == "image_lists":
        listed = read_lists(source, files, blobs)
        counts = Counter({UNLISTED: listed.unlisted, LEFT_OUT: listed.left_out})
        heard = _photo_block(source.name, [], {}, None, config, faults=listed.faults, counts=counts)
        yield replace(heard, said=listed.said)
        yield from _read_photos(source.name, listed.labels, files, blobs, None, config, pool)
    else:
        labels = {key: name for key in sorted(files) if (name := label_of(key, source.vocabulary))}
        rated = source.votes and config.label_set != "fer2013"
        table = by_photo(_votes(source.name, files, blobs), source.name) if rated else None
        yield from _read_photos(source.name, labels, files, blobs, table, config, pool)


def _read_csv(name: str, files: Files, blobs: Path, config: PrepareConfig, pool: Pool) -> Iterator[Block]:
    key = _data_file(name, files)
    table = None if config.label_set == "fer2013" else _votes(name, files, blobs)
    rows = read_fer2013(blob_path(blobs, files[key].sha256), f"{name}: {key}", pool)
    count = 0
    for block in pool.in_order(lambda one: _csv_block(name, one, table, config), rows):
        count += len(block.ids) + len(block.faults)
        yield block
    if table is not None and count != len(table):
        raise InputError(
            f"{name}: fer2013new.csv has {len(table)} rows, {key} has {count}; expected a row for each row, "
            "in the same order: upload the two files that belong together"
        )


def _data_file(name: str, files: Files) -> str:
    keys = [key for key in files if not is_votes(key)]
    if len(keys) != 1:
        raise InputError(
            f"{name}: expected one fer2013.csv (plain, .gz, .xz or .zip), got {sorted(keys)[:5]}"
        )
    return keys[0]


def _votes(name: str, files: Files, blobs: Path) -> Table:
    for key, file in files.items():
        if is_votes(key):
            return read_ferplus(blob_path(blobs, file.sha256), f"{name}: {key}")
    raise InputError(f"{name}: no fer2013new.csv; put it beside fer2013.csv or set label_set to fer2013")


def _csv_block(name: str, rows: Rows, table: Table | None, config: PrepareConfig) -> Block:
    labels = _FER2013_LABELS[rows.emotions]
    if table is not None:
        labels = _voted(labels, table, np.minimum(rows.rows, len(table) - 1))
    ids = [
        f"{name}:{_USAGE_NAMES[usage]}:{row}"
        for usage, row in zip(rows.usages.tolist(), rows.rows.tolist(), strict=True)
    ]
    return measure(
        to_canvas(rows.images, config.image_px, config.channels),
        labels,
        usages=rows.usages,
        ids=ids,
        sides=np.full(len(ids), SIDE_PX),
        faults=[(f"{name}: row {row} (line {row + 2})", why) for row, why in rows.faults],
    )


def _voted(labels: Given, table: Table, rows: np.ndarray) -> Given:
    return replace(labels, votes=table.votes[rows], emotions=table.emotions[rows])


def _read_photos(
    name: str,
    labels: dict[str, str],
    files: Files,
    blobs: Path,
    table: Table | None,
    config: PrepareConfig,
    pool: Pool,
) -> Iterator[Block]:
    """Photos by key, each with a name of TO_CLASS; `table` has votes by photo of FER-2013."""
    photos = list(labels.items())
    batches = (photos[start : start + _BATCH] for start in range(0, len(photos), _BATCH))
    paths = {key: blob_path(blobs, files[key].sha256) for key in labels}
    return pool.in_order(lambda batch: _photo_block(name, batch, paths, table, config), batches)


def _photo_block(
    name: str,
    photos: list[tuple[str, str]],
    paths: dict[str, Path],
    table: Table | None,
    config: PrepareConfig,
    *,
    faults: list[tuple[str, str]] | None = None,
    counts: Counter[str] | None = None,
) -> Block:
    good, read, faults = [], [], list(faults or [])
    for key, label in photos:
        try:
            read.append(decode(paths[key], config.image_px, config.channels, config.max_photo_mpx))
            good.append((key, label))
        except ValueError as error:
            faults.append((f"{name}: {key}", str(error)))
    labels = one_vote([label for _, label in good])
    if table is not None:
        labels, counts = _recognised(
            labels, table, _as_in_fer2013(read, [paths[key] for key, _ in good], config)
        )
    shape = (-1, config.image_px, config.image_px, config.channels)
    return measure(
        np.array([photo.pixels for photo in read], np.uint8).reshape(shape),
        labels,
        usages=np.array([usage_of(key) for key, _ in good], np.int8),
        ids=[f"{name}:{key}" for key, _ in good],
        sides=np.array([photo.side_px for photo in read], np.int64),
        faults=faults,
        counts=counts,
    )


def _as_in_fer2013(read: list[Photo], paths: list[Path], config: PrepareConfig) -> np.ndarray:
    """uint8 (n, 48, 48), read again where the canvas is another."""
    if (config.image_px, config.channels) != (SIDE_PX, 1):
        read = [decode(path, SIDE_PX, 1, config.max_photo_mpx) for path in paths]
    return np.array([photo.pixels for photo in read], np.uint8).reshape(-1, SIDE_PX, SIDE_PX)


def _recognised(labels: Given, table: Table, images: np.ndarray) -> tuple[Given, Counter[str]]:
    """The photos' votes for those images that are of FER-2013; the others keep the label they came with."""
    shown = recognise(images)
    found = shown >= 0
    voted = _voted(labels, table, np.maximum(shown, 0))
    mixed = Given(
        np.where(found[:, None], voted.votes, labels.votes),
        np.where(found[:, None], voted.emotions, labels.emotions),
        labels.posted,
    )
    strange, unsure = (int((shown == one).sum()) for one in (UNKNOWN, AMBIGUOUS))
    return mixed, Counter({RECOGNISED: int(found.sum()), STRANGE: strange, UNSURE: unsure})
