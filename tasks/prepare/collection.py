"""Every readable image of every source, with what is known of it.

In: the ingested manifests. Out: a `Collection`: pixels in a scratch file, the rest as columns in memory
(N images): votes uint8 (N, 8) with the columns `ferplus.VOTES`, emotions uint8 (N, 8) the same votes by
emotion, posted uint8 (N,) the place in EMOTIONS of the source's own label (`labels.UNSAID` without one),
usages int8 (N,) 0 train 1 val 2 test -1 unsaid, sources uint8 (N,), ids bytes (N,), hashes uint64 (N,) of
the pixels, statistics float32 (N, 3).
"""

from dataclasses import dataclass, replace

import numpy as np

from storage.errors import InputError
from tasks.config.prepare import PrepareConfig
from tasks.ingest import Ingested
from tasks.prepare.blocks import Block
from tasks.prepare.origins import Origin, origin_of
from tasks.prepare.persons import read_persons
from tasks.prepare.pixels import PixelFile
from tasks.prepare.reading import read_source
from tasks.prepare.threads import Pool

_LISTED = 200


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
    origins: dict[str, Origin]
    """source → what became of its files"""
    persons: dict[str, str]
    """id → group, of the photos that a `groups.csv` names."""


def collect(ingested: Ingested, config: PrepareConfig, pixels: PixelFile, pool: Pool) -> Collection:
    """Read every source. InputError where a file can't be used, or too much of a source is unreadable."""
    blocks, sources, unreadable, origins, persons = [], [], {}, {}, {}
    for number, source in enumerate(ingested.sources):
        files = {file.key: file for file in source.files()}
        mine = []
        for block in read_source(source, files, ingested.blobs, config, pool):
            pixels.append(block.images)
            mine.append(replace(block, images=np.empty(0, np.uint8)))
        unreadable[source.name] = _judge_faults(source.name, mine, config.max_bad_share)
        origins[source.name] = origin_of(source, mine, config)
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
        origins=origins,
        persons=persons,
    )


def _judge_faults(name: str, blocks: list[Block], max_bad_share: float) -> dict:
    faults = [fault for block in blocks for fault in block.faults]
    total = sum(len(block.ids) for block in blocks) + len(faults)
    if len(faults) > max_bad_share * total:
        first = "; ".join(f"{where}: {why}" for where, why in faults[:3])
        raise InputError(
            f"{name}: {len(faults)} of {total} images can't be read, more than max_bad_share = "
            f"{max_bad_share:g} allows; mend or remove them, or raise it; the first: {first}"
        )
    listed = [{"where": where, "why": why} for where, why in faults[:_LISTED]]
    return {"count": len(faults), "of": total, "share": len(faults) / max(total, 1), "listed": listed}
