"""Every readable image of every source, with what is known of it.

In: the ingested manifests. Out: a `Collection`: pixels in a scratch file, the rest as columns in memory
(N images): votes uint8 (N, 8) with the columns `ferplus.VOTES`, emotions uint8 (N, 8) the same votes by
emotion, posted uint8 (N,) the place in EMOTIONS of the source's own label (`labels.UNSAID` without one),
usages int8 (N,) 0 train 1 val 2 test -1 unsaid, sources uint8 (N,), ids bytes (N,), hashes uint64 (N,) of
the pixels, statistics float32 (N, 3).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path, PurePosixPath

import numpy as np

from storage.errors import InputError
from tasks.classes import EMOTIONS, FER2013_EMOTIONS, TO_CLASS, emotion_of
from tasks.ingest import Ingested, SourceFile, SourceManifest, blob_path
from tasks.prepare.config import PrepareConfig
from tasks.prepare.fer2013 import Rows, read_fer2013
from tasks.prepare.ferplus import VOTES, Table, read_ferplus
from tasks.prepare.labels import UNSAID
from tasks.prepare.persons import read_persons
from tasks.prepare.photos import class_of, decode, to_canvas, usage_of
from tasks.prepare.pixels import PixelFile, to_grey
from tasks.prepare.threads import Pool

STATISTICS = ("brightness", "contrast", "sharpness")
"""Mean grey level, its standard deviation, and the Laplacian's (Pech-Pacheco et al., 2000, square it)."""

_USAGE_NAMES = ("Training", "PublicTest", "PrivateTest")
_FERPLUS_FILE = "fer2013new.csv"
_LISTED = 200
_BATCH = 64


@dataclass(frozen=True)
class Block:
    """Some images of one source and what their pixels tell; `faults` are (where, what is wrong)."""

    images: np.ndarray
    votes: np.ndarray
    emotions: np.ndarray
    posted: np.ndarray
    usages: np.ndarray
    ids: np.ndarray
    faults: list[tuple[str, str]]
    hashes: np.ndarray
    statistics: np.ndarray


@dataclass(frozen=True)
class Collection:
    """All that was read."""

    pixels: PixelFile
    names: tuple[str, ...]
    votes: np.ndarray
    emotions: np.ndarray
    posted: np.ndarray
    usages: np.ndarray
    sources: np.ndarray
    ids: np.ndarray
    hashes: np.ndarray
    statistics: np.ndarray
    unreadable: dict[str, dict]
    """source → {"count", "of", "share", "listed": [{"where", "why"}]}"""
    persons: dict[str, str]
    """id → group, of the photos that a `groups.csv` names."""


def collect(ingested: Ingested, config: PrepareConfig, pixels: PixelFile, pool: Pool) -> Collection:
    """Read every source. InputError where a file can't be used, or too much of a source is unreadable."""
    blocks, sources, unreadable, persons = [], [], {}, {}
    for number, source in enumerate(ingested.sources):
        files = {file.key: file for file in source.files()}
        mine = []
        for block in _read(source, files, ingested.blobs, config, pool):
            pixels.append(block.images)
            mine.append(replace(block, images=np.empty(0, np.uint8)))
        unreadable[source.name] = _judge_faults(source.name, mine, config.max_bad_share)
        persons |= read_persons(source.name, files, ingested.blobs)
        blocks += mine
        sources.append(np.full(sum(len(block.ids) for block in mine), number, np.uint8))
    if not blocks or sum(map(len, sources)) == 0:
        names = [source.name for source in ingested.sources]
        raise InputError(
            f"prepare: no image in any of the sources {names}; put some into the store's datasets/"
        )
    return Collection(
        pixels=pixels,
        names=tuple(source.name for source in ingested.sources),
        votes=np.concatenate([block.votes for block in blocks]),
        emotions=np.concatenate([block.emotions for block in blocks]),
        posted=np.concatenate([block.posted for block in blocks]),
        usages=np.concatenate([block.usages for block in blocks]),
        sources=np.concatenate(sources),
        ids=np.concatenate([block.ids for block in blocks]),
        hashes=np.concatenate([block.hashes for block in blocks]),
        statistics=np.concatenate([block.statistics for block in blocks]),
        unreadable=unreadable,
        persons=persons,
    )


def _read(
    source: SourceManifest, files: dict[str, SourceFile], blobs: Path, config: PrepareConfig, pool: Pool
) -> Iterator[Block]:
    read = _read_csv if source.format == "fer2013_csv" else _read_folders
    return read(source.name, files, blobs, config, pool)


def _read_csv(
    name: str, files: dict[str, SourceFile], blobs: Path, config: PrepareConfig, pool: Pool
) -> Iterator[Block]:
    key = _data_file(name, files)
    table = None if config.label_set == "fer2013" else _ferplus_table(name, files, blobs)
    rows = read_fer2013(blob_path(blobs, files[key].sha256), f"{name}: {key}", pool)
    count = 0
    for block in pool.in_order(lambda one: _csv_block(name, one, table, config), rows):
        count += len(block.ids) + len(block.faults)
        yield block
    if table is not None and count != len(table):
        raise InputError(
            f"{name}: {_FERPLUS_FILE} has {len(table)} rows, {key} has {count}; expected a row for each row, "
            "in the same order: upload the two files that belong together"
        )


def _data_file(name: str, files: dict[str, SourceFile]) -> str:
    keys = [key for key in files if not _is_ferplus(key)]
    if len(keys) != 1:
        raise InputError(
            f"{name}: expected one fer2013.csv (plain, .gz, .xz or .zip), got {sorted(keys)[:5]}"
        )
    return keys[0]


def _is_ferplus(key: str) -> bool:
    return PurePosixPath(key).name.lower().startswith(_FERPLUS_FILE)


def _ferplus_table(name: str, files: dict[str, SourceFile], blobs: Path) -> Table:
    for key, file in files.items():
        if _is_ferplus(key):
            return read_ferplus(blob_path(blobs, file.sha256), f"{name}: {key}")
    raise InputError(f"{name}: no {_FERPLUS_FILE}; put it beside fer2013.csv or set label_set to fer2013")


def _csv_block(name: str, rows: Rows, table: Table | None, config: PrepareConfig) -> Block:
    labels = _FER2013_LABELS[rows.emotions]
    if table is not None:
        given = np.minimum(rows.rows, len(table) - 1)
        labels = replace(labels, votes=table.votes[given], emotions=table.emotions[given])
    ids = [
        f"{name}:{_USAGE_NAMES[usage]}:{row}"
        for usage, row in zip(rows.usages.tolist(), rows.rows.tolist(), strict=True)
    ]
    faults = [(f"{name}: row {row} (line {row + 2})", why) for row, why in rows.faults]
    return _measure(
        to_canvas(rows.images, config.image_px, config.channels), labels, rows.usages, ids, faults
    )


@dataclass(frozen=True)
class _Given:
    """What a source says of n images: votes uint8 (n, 8), emotions uint8 (n, 8), posted uint8 (n,)."""

    votes: np.ndarray
    emotions: np.ndarray
    posted: np.ndarray

    def __getitem__(self, rows: np.ndarray) -> "_Given":
        return _Given(self.votes[rows], self.emotions[rows], self.posted[rows])


def _given(names: Sequence[str]) -> _Given:
    """One vote an image, for the class and emotion that its source names."""
    posted = np.array([UNSAID if (place := emotion_of(name)) is None else place for name in names], np.uint8)
    votes = [[TO_CLASS[name] == one for one in VOTES] for name in names]
    emotions = posted[:, None] == np.arange(len(EMOTIONS))
    return _Given(np.array(votes, np.uint8).reshape(-1, len(VOTES)), emotions.astype(np.uint8), posted)


_FER2013_LABELS = _given(FER2013_EMOTIONS)


def _read_folders(
    name: str, files: dict[str, SourceFile], blobs: Path, config: PrepareConfig, pool: Pool
) -> Iterator[Block]:
    classes = {key: found for key in sorted(files) if (found := class_of(key))}
    photos = list(classes.items())
    batches = (photos[start : start + _BATCH] for start in range(0, len(photos), _BATCH))
    paths = {key: blob_path(blobs, files[key].sha256) for key in classes}
    return pool.in_order(lambda batch: _photo_block(name, batch, paths, config), batches)


def _photo_block(
    name: str, photos: list[tuple[str, str]], paths: dict[str, Path], config: PrepareConfig
) -> Block:
    images, good, faults = [], [], []
    for key, class_name in photos:
        try:
            images.append(decode(paths[key], config.image_px, config.channels, config.max_photo_mpx))
            good.append((key, class_name))
        except ValueError as error:
            faults.append((f"{name}: {key}", str(error)))
    shape = (-1, config.image_px, config.image_px, config.channels)
    return _measure(
        np.array(images, np.uint8).reshape(shape),
        _given([class_name for _, class_name in good]),
        np.array([usage_of(key) for key, _ in good], np.int8),
        [f"{name}:{key}" for key, _ in good],
        faults,
    )


def _measure(
    images: np.ndarray, given: _Given, usages: np.ndarray, ids: list[str], faults: list[tuple[str, str]]
) -> Block:
    names = np.array([name.encode() for name in ids], "S")
    return Block(
        images,
        **vars(given),
        usages=usages,
        ids=names,
        faults=faults,
        hashes=hash_images(images),
        statistics=statistics_of(images),
    )


def hash_images(images: np.ndarray) -> np.ndarray:
    """A content hash of each image, uint64 (n,)."""
    digests = b"".join(blake2b(image, digest_size=8).digest() for image in np.ascontiguousarray(images))
    return np.frombuffer(digests, np.uint64)


def statistics_of(images: np.ndarray) -> np.ndarray:
    """Brightness, contrast and sharpness of uint8 (n, P, P, C), float32 (n, 3), in grey levels."""
    grey = to_grey(images)
    inner = grey[:, 1:-1, 1:-1]
    edges = grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:] - 4 * inner
    columns = [grey.mean(axis=(1, 2)), grey.std(axis=(1, 2)), edges.std(axis=(1, 2))]
    return np.stack(columns, axis=1).reshape(-1, len(STATISTICS))


def _judge_faults(name: str, blocks: list[Block], max_bad_share: float) -> dict:
    faults = [fault for block in blocks for fault in block.faults]
    total = sum(len(block.ids) for block in blocks) + len(faults)
    if len(faults) > max_bad_share * total:
        first = "; ".join(f"{where}: {why}" for where, why in faults[:3])
        raise InputError(
            f"{name}: {len(faults)} of {total} images can't be read, more than max_bad_share = "
            f"{max_bad_share:g} allows; the first: {first}"
        )
    listed = [{"where": where, "why": why} for where, why in faults[:_LISTED]]
    return {"count": len(faults), "of": total, "share": len(faults) / max(total, 1), "listed": listed}
