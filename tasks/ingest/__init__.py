"""Ingest: the images of every source, from object storage to a content-addressed cache on this machine.

In: a store URI and the sources' prefixes in it. Out: `Ingested`: per source a manifest of its files (key,
size, SHA-256), their bytes under `work_dir/blobs/<aa>/<sha256>`, and one fingerprint over all of it.

A source is either `fer2013.csv` (or `icml_face_data.csv`, also .gz, .xz, .zip), or folders of images named by
class, `<class>/…` or `train|val|test/<class>/…`, or images with lists that say their classes; any part may be
packed into `*.tar` files. FER+'s `fer2013new.csv` may lie beside the first two.

Only objects that are new or changed since the last manifest are fetched. A run killed at any point leaves
whole blobs and a readable manifest; the next one goes on from there and ends the same.
"""

import hashlib
import json
import logging
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from prefect import get_run_logger, task
from pydantic import BaseModel, Field

from storage.errors import InputError
from storage.objects import ObjectInfo, ObjectStore
from storage.opening import open_store
from tasks.config.ingest import IngestConfig, Source
from tasks.ingest.blobs import blob_path, clear_incoming, evict
from tasks.ingest.fetch import Place, bring_up_to_date, uncollected
from tasks.ingest.manifest import (
    SourceFile,
    SourceManifest,
    SourceObject,
    files_of,
    fingerprint,
)
from tasks.ingest.sources import (
    LAYOUTS,
    Layout,
    class_folder,
    find_layout,
    is_image,
    is_tar,
    is_votes,
    unread_photos,
)
from tasks.progress import showing_progress
from tasks.vocabulary import as_label

__all__ = [
    "IngestConfig",
    "Ingested",
    "Source",
    "SourceFile",
    "SourceManifest",
    "blob_path",
    "class_folder",
    "ingest",
    "ingest_sources",
    "is_votes",
]

_log = logging.getLogger(__name__)

_SHOWN = 20


class Ingested(BaseModel, frozen=True, extra="forbid"):
    """All sources, whole and checked, in this machine's cache."""

    sources: tuple[SourceManifest, ...]
    fingerprint: str = Field(
        description="SHA-256 over every source, key and file SHA-256, and labels' meaning"
    )
    blobs: Path
    seconds: float


def ingest(
    store: ObjectStore,
    config: IngestConfig,
    work_dir: Path,
    report: Callable[..., None] = _log.info,
    advanced: Callable[[int, int], None] = lambda done, of: None,
) -> Ingested:
    """Bring the cache up to date with every source.

    `report` hears of progress in words, like `Logger.info`, `advanced` of how many objects of a source are
    fetched, and of how many.

    Sources that are not required and hold nothing are left out. Raises InputError for a source that is
    missing, laid out in no known way, or larger than the cache; StoreError where store or disk fail.
    """
    started = time.monotonic()
    blobs = work_dir / "blobs"
    clear_incoming(blobs)
    with uncollected():
        planned = [_plan(store, source, config, work_dir, report, advanced) for source in config.sources]
    plans = [plan for plan in planned if plan]
    _check_total(store.uri, plans, config.cache_max_bytes)
    sources = tuple(_carry_out(plan, config) for plan in plans)
    if any(source.fetched for source in sources):
        evict(blobs, lambda: _referenced(sources), config.cache_max_bytes)
    return Ingested(
        sources=sources,
        fingerprint=_combine(sources),
        blobs=blobs,
        seconds=time.monotonic() - started,
    )


class _Plan(NamedTuple):
    source: Source
    place: Place
    layout: Layout
    wanted: list[ObjectInfo]


def _plan(
    store: ObjectStore,
    source: Source,
    config: IngestConfig,
    work_dir: Path,
    report: Callable[..., None],
    advanced: Callable[[int, int], None],
) -> _Plan | None:
    manifest_path = work_dir / "manifests" / f"{source.name}.json"
    known = None if source.lists else source.vocabulary
    place = Place(store, source.prefix, work_dir / "blobs", manifest_path, report, advanced, known)
    start = len(source.prefix) + 1
    listed = [info._replace(key=info.key[start:]) for info in store.list(source.prefix, broken=True)]
    layout = find_layout(source, place.uri, (info.key for info in listed))
    if layout is None:
        keys = [info.key for info in listed]
        if source.required or unread_photos(keys):
            raise InputError(f"{place.uri}: no data of source {source.name!r}; {LAYOUTS}; got {_found(keys)}")
        return None
    wanted = [info for info in listed if info.key in layout.keys]
    if layout.format != "fer2013_csv":
        _check_images(place.uri, wanted, config.max_image_bytes)
    return _Plan(source, place, layout, wanted)


def _found(keys: list[str]) -> str:
    """What lies where data was expected, and what to do about it."""
    if not keys:
        return "no file"
    told = f"{', '.join(map(repr, keys[:3]))}{' and others' if len(keys) > 3 else ''}"
    if unread_photos(keys):
        return f"{told}: save photos as JPEG or PNG"
    return f"{told}: lay the data itself, unpacked, at the top of this folder"


def _check_images(uri: str, wanted: list[ObjectInfo], max_bytes: int) -> None:
    for info in wanted:
        if info.size > max_bytes and not is_tar(info.key):
            raise InputError(
                f"{uri}/{info.key}: {info.size} bytes, an image or a list has at most "
                f"max_image_bytes = {max_bytes}; "
                "remove it or raise the limit"
            )


def _check_total(uri: str, plans: list[_Plan], max_bytes: int) -> None:
    if not plans:
        raise InputError(f"{uri}: no source holds any data; {LAYOUTS}")
    total = sum(info.size for plan in plans for info in plan.wanted)
    if total > max_bytes:
        raise InputError(f"{uri}: the sources have {total} bytes, cache_max_bytes = {max_bytes}; raise it")


def _carry_out(plan: _Plan, config: IngestConfig) -> SourceManifest:
    objects, fetched = bring_up_to_date(
        plan.place,
        plan.wanted,
        threads=config.max_threads,
        recheck_days=config.recheck_days,
        max_image_bytes=config.max_image_bytes,
    )
    return _summarise(plan, objects, fetched)


def _summarise(plan: _Plan, objects: list[SourceObject], fetched: int) -> SourceManifest:
    name, place, layout = plan.source.name, plan.place, plan.layout
    files = files_of(objects)
    ((key, count),) = Counter(file.key for file in files).most_common(1)
    if count > 1:
        holders = [held.key for held in objects if any(file.key == key for file in held.files)]
        raise InputError(f"{place.uri}: {key!r} stands in {' and in '.join(holders)}; keep or rename one")
    return SourceManifest(
        name=name,
        format=layout.format,
        use=plan.source.use,
        vocabulary=plan.source.vocabulary,
        lists=plan.source.lists,
        mapping=tuple(dict.fromkeys(map(as_label, plan.source.mapping))),
        folders=_folders(layout, files) if plan.source.mapping else (),
        left_out=layout.left_out,
        votes=any(is_votes(file.key) for file in files),
        manifest_path=place.manifest_path,
        fingerprint=fingerprint(name, files),
        objects=len(objects),
        bytes=sum(held.size for held in objects),
        fetched=fetched,
        reused=len(objects) - fetched,
        ignored=tuple(key.encode(errors="backslashreplace").decode() for key in layout.ignored[:_SHOWN]),
        ignored_count=len(layout.ignored),
        unread_photos=unread_photos(layout.ignored),
    )


def _folders(layout: Layout, files: list[SourceFile]) -> tuple[str, ...]:
    if layout.format != "class_folders":
        return ()
    packed = (class_folder(file.key) for file in files if is_image(file.key))
    return tuple(sorted(layout.folders.union(filter(None, packed))))


def _referenced(sources: tuple[SourceManifest, ...]) -> set[str]:
    return {file.sha256 for source in sources for file in source.files()}


def _combine(sources: tuple[SourceManifest, ...]) -> str:
    lines = sorted(
        json.dumps([one.name, one.fingerprint, one.use, one.vocabulary, one.lists], sort_keys=True)
        for one in sources
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@task(name="ingest", task_run_name="ingest")
def ingest_sources(store_uri: str, config: IngestConfig, work_dir: Path) -> Ingested:
    """Fetch what is new in every source of the store, and say how much that was."""
    log = get_run_logger()
    with showing_progress("ingest", "objects") as advanced:
        ingested = ingest(open_store(store_uri), config, work_dir, report=log.info, advanced=advanced)
    for source in ingested.sources:
        log.info(
            "%s (%s): %d objects, %.1f MB; %d fetched, %d reused",
            source.name, source.format, source.objects, source.bytes / 1e6, source.fetched, source.reused,
        )  # fmt: skip
        if source.left_out:
            log.info("%s: %d images of classes that are left out", source.name, source.left_out)
        if source.unread_photos:
            log.warning("%s: %s", source.name, source.unread_note)
        if source.ignored_count:
            log.warning("%s: %d files are no data: %s", source.name, source.ignored_count, source.ignored)
    return ingested
