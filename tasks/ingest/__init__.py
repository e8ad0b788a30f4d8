"""Ingest: the images of every source, from object storage to a content-addressed cache on this machine.

In: a store URI and the sources' prefixes in it. Out: `Ingested`: per source a manifest of its files (key,
size, SHA-256), their bytes under `work_dir/blobs/<aa>/<sha256>`, and one fingerprint over all of it.

A source is either `fer2013.csv` (or `icml_face_data.csv`, also .gz, .xz, .zip; FER+'s `fer2013new.csv` may
lie beside it), or folders of images named by class, `<class>/…` or `train|test/<class>/…`, of which any part
may be packed into `*.tar` files.

Only objects that are new or changed since the last manifest are fetched. A run killed at any point leaves
whole blobs and a readable manifest; the next one goes on from there and ends the same.
"""

import hashlib
import logging
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from prefect import get_run_logger, task
from pydantic import BaseModel, Field, model_validator

from storage.errors import InputError
from storage.objects import ObjectInfo, ObjectStore, open_store
from tasks.ingest.blobs import blob_path, clear_incoming, evict
from tasks.ingest.fetch import Place, bring_up_to_date
from tasks.ingest.manifest import (
    SourceFile,
    SourceManifest,
    SourceObject,
    files_of,
    fingerprint,
    load_objects,
)
from tasks.ingest.sources import LAYOUTS, Format, Layout, Source, class_folder, find_layout, is_tar

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
]

_log = logging.getLogger(__name__)

_SHOWN = 20


class IngestConfig(BaseModel, frozen=True, extra="forbid", title="Ingest"):
    """Where the images come from, and what this machine keeps of them."""

    sources: tuple[Source, ...] = Field(
        (
            Source(name="fer2013", prefix="datasets/fer2013"),
            Source(name="custom", prefix="datasets/custom", required=False),
        ),
        min_length=1,
        description="Data sets to combine; each name once",
    )
    max_threads: int = Field(
        32, ge=1, le=256, description="Objects fetched at the same time, count, 1 to 256"
    )
    max_image_bytes: int = Field(
        64 * 2**20, ge=2**10, description="Largest image file accepted, bytes, 1 KiB or more"
    )
    cache_max_bytes: int = Field(
        50 * 2**30, ge=2**20, description="Bound of the local cache, bytes, 1 MiB or more"
    )
    recheck_days: int = Field(
        30,
        ge=0,
        le=3650,
        description="Days within which every cached file is hashed again; 0 never, 1 every run",
    )

    @model_validator(mode="after")
    def _names_are_unique(self) -> "IngestConfig":
        names = [source.name for source in self.sources]
        if len(set(names)) < len(names):
            raise InputError(f"two sources claim one name: {', '.join(names)}; give each its own")
        return self


class Ingested(BaseModel, frozen=True, extra="forbid"):
    """All sources, whole and checked, in this machine's cache."""

    sources: tuple[SourceManifest, ...]
    fingerprint: str = Field(description="SHA-256 over every source name, key and file SHA-256")
    blobs: Path
    seconds: float


def ingest(
    store: ObjectStore,
    config: IngestConfig,
    work_dir: Path,
    report: Callable[..., None] = _log.info,
) -> Ingested:
    """Bring the cache up to date with every source; `report` hears of progress, like `Logger.info`.

    Sources that are not required and hold nothing are left out. Raises InputError for a source that is
    missing, laid out in no known way, or larger than the cache; StoreError where store or disk fail.
    """
    started = time.monotonic()
    blobs = work_dir / "blobs"
    clear_incoming(blobs)
    found = [_ingest_source(store, source, config, work_dir, report) for source in config.sources]
    sources = tuple(manifest for manifest in found if manifest)
    if not sources:
        raise InputError(f"{store.uri}: no source holds any data; {LAYOUTS}")
    if any(source.fetched for source in sources):
        evict(blobs, lambda: _referenced(work_dir), config.cache_max_bytes)
    return Ingested(
        sources=sources,
        fingerprint=_combine(sources),
        blobs=blobs,
        seconds=time.monotonic() - started,
    )


def _ingest_source(
    store: ObjectStore, source: Source, config: IngestConfig, work_dir: Path, report: Callable[..., None]
) -> SourceManifest | None:
    prefix = source.prefix.strip("/")
    manifest_path = work_dir / "manifests" / f"{source.name}.json"
    place = Place(store, prefix, work_dir / "blobs", manifest_path, report)
    listed = [info._replace(key=info.key[len(prefix) + 1 :]) for info in store.list(prefix)]
    layout = find_layout(source, place.uri, (info.key for info in listed))
    if layout is None:
        if source.required:
            raise InputError(f"{place.uri}: no data of source {source.name!r}; {LAYOUTS}")
        return None
    wanted = [info for info in listed if info.key in layout.keys]
    _check_sizes(place, layout.format, wanted, config)
    objects, fetched = bring_up_to_date(
        place,
        wanted,
        threads=config.max_threads,
        recheck_days=config.recheck_days,
        max_image_bytes=config.max_image_bytes,
    )
    return _summarise(source.name, layout, place, objects, fetched)


def _check_sizes(place: Place, layout: Format, wanted: list[ObjectInfo], config: IngestConfig) -> None:
    for info in wanted:
        if layout == "class_folders" and not is_tar(info.key) and info.size > config.max_image_bytes:
            raise InputError(
                f"{place.uri}/{info.key}: {info.size} bytes, images have at most max_image_bytes = "
                f"{config.max_image_bytes}; remove it or raise the limit"
            )
    total = sum(info.size for info in wanted)
    if total > config.cache_max_bytes:
        raise InputError(
            f"{place.uri}: {total} bytes, but cache_max_bytes = {config.cache_max_bytes}; raise it"
        )


def _summarise(
    name: str, layout: Layout, place: Place, objects: list[SourceObject], fetched: int
) -> SourceManifest:
    files = files_of(objects)
    ((key, count),) = Counter(file.key for file in files).most_common(1)
    if count > 1:
        holders = [held.key for held in objects if any(file.key == key for file in held.files)]
        raise InputError(f"{place.uri}: {key!r} stands in {' and in '.join(holders)}; keep or rename one")
    return SourceManifest(
        name=name,
        format=layout.format,
        manifest_path=place.manifest_path,
        fingerprint=fingerprint(name, files),
        objects=len(objects),
        bytes=sum(held.size for held in objects),
        fetched=fetched,
        reused=len(objects) - fetched,
        ignored=tuple(key.encode(errors="backslashreplace").decode() for key in layout.ignored[:_SHOWN]),
        ignored_count=len(layout.ignored),
    )


def _referenced(work_dir: Path) -> set[str]:
    manifests = (work_dir / "manifests").glob("*.json")
    return {file.sha256 for path in manifests for file in files_of(load_objects(path))}


def _combine(sources: tuple[SourceManifest, ...]) -> str:
    lines = sorted(f"{source.name} {source.fingerprint}\n" for source in sources)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


@task
def ingest_sources(store_uri: str, config: IngestConfig, work_dir: Path) -> Ingested:
    """Fetch what is new in every source of the store, and say how much that was."""
    log = get_run_logger()
    ingested = ingest(open_store(store_uri), config, work_dir, report=log.info)
    for source in ingested.sources:
        log.info(
            "%s (%s): %d objects, %.1f MB; %d fetched, %d reused",
            source.name, source.format, source.objects, source.bytes / 1e6, source.fetched, source.reused,
        )  # fmt: skip
        if source.ignored_count:
            log.warning("%s: %d files are no data: %s", source.name, source.ignored_count, source.ignored)
    return ingested
