"""Fetch: bring the cache up to date with one listing, many objects at once, resumable at any point."""

import gc
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from storage.errors import StoreError
from storage.objects import ObjectInfo, ObjectStore
from tasks.ingest.blobs import adopt, incoming, is_sound, put
from tasks.ingest.manifest import SourceFile, SourceObject, load_objects, save_objects
from tasks.ingest.sources import is_image, is_tar
from tasks.ingest.tars import unpack

_SAVE_EVERY_S = 5
_IN_MEMORY_BYTES = 2**20
_SLICE = 1000
"""Objects queued at once, so that millions of them don't all wait in memory."""


class Place(NamedTuple):
    """Where a source's objects come from and go to, and who hears of it."""

    store: ObjectStore
    prefix: str
    blobs: Path
    manifest_path: Path
    report: Callable[..., None]
    """Takes a %-format and its values, like `Logger.info`."""
    advanced: Callable[[int, int], None]
    """Takes how many objects are fetched, and of how many."""
    known: dict[str, str] | None = None
    """The source's vocabulary, where folders name the class."""

    @property
    def uri(self) -> str:
        return f"{self.store.uri}/{self.prefix}"


def bring_up_to_date(
    place: Place, listed: list[ObjectInfo], *, threads: int, recheck_days: int, max_image_bytes: int
) -> tuple[list[SourceObject], int]:
    """Fetch what the last manifest doesn't have as it is listed, and write the new manifest.

    Returns all objects in the listing's order, and how many were fetched. Raises StoreError where an object
    can't be read, and keeps what was fetched until then.
    """
    with uncollected():
        before = _last_objects(place)
        held = {}
        for info in listed:
            last = before.get(info.key)
            if (
                last
                and last[:3] == info
                and all(is_sound(place.blobs, file, recheck_days) for file in last.files)
            ):
                held[info.key] = last
    missing = [info for info in listed if info.key not in held]
    if missing or len(before) > len(held):
        _fetch_all(place, missing, held, threads, max_image_bytes)
    return [held[info.key] for info in listed], len(missing)


@contextmanager
def uncollected() -> Iterator[None]:
    """No garbage collection meanwhile.

    Tens of thousands of new tuples, none of them garbage, make Python search all objects of the process,
    which takes as long as all else of a night with nothing new.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _fetch_all(
    place: Place, missing: list[ObjectInfo], held: dict[str, SourceObject], threads: int, max_image_bytes: int
) -> None:
    """Add every missing object to `held`, and write the manifest every few seconds and at any end."""
    saved = time.monotonic()
    try:
        for done, fetched in enumerate(_fetched(place, missing, threads, max_image_bytes), start=1):
            held[fetched.key] = fetched
            place.advanced(done, len(missing))
            if time.monotonic() - saved > _SAVE_EVERY_S:
                save_objects(place.manifest_path, place.uri, held.values())
                place.report("%s: %d of %d objects fetched", place.uri, done, len(missing))
                saved = time.monotonic()
    finally:
        save_objects(place.manifest_path, place.uri, held.values())


def _last_objects(place: Place) -> dict[str, SourceObject]:
    try:
        return {held.key: held for held in load_objects(place.manifest_path, place.uri)}
    except StoreError as error:
        if place.manifest_path.exists():
            place.report("%s; everything is fetched again", error)
        return {}


def _fetched(
    place: Place, missing: list[ObjectInfo], threads: int, max_image_bytes: int
) -> Iterator[SourceObject]:
    with ThreadPoolExecutor(threads, thread_name_prefix="ingest") as pool:
        for start in range(0, len(missing), _SLICE):
            yield from pool.map(
                lambda info: _fetch(place, info, max_image_bytes), missing[start : start + _SLICE]
            )


def _fetch(place: Place, listed: ObjectInfo, max_image_bytes: int) -> SourceObject:
    key = listed.key
    if not listed.version:
        return _broken(place, key)
    if listed.size > _IN_MEMORY_BYTES or is_tar(key):
        return _fetch_by_file(place, key, max_image_bytes)
    info, data = place.store.load(f"{place.prefix}/{key}")
    _check_size(place, key, len(data), info.size)
    return SourceObject(key, info.size, info.version, (SourceFile(key, info.size, put(place.blobs, data)),))


def _broken(place: Place, key: str) -> SourceObject:
    """What is no file, as an image without content: `prepare` tells of it with the unreadable ones."""
    if not is_image(key):
        raise StoreError(f"{place.uri}/{key}: expected a file, got a link to nothing, a pipe or the like")
    return SourceObject(key, 0, "", (SourceFile(key, 0, put(place.blobs, b"")),))


def _fetch_by_file(place: Place, key: str, max_image_bytes: int) -> SourceObject:
    path = incoming(place.blobs)
    try:
        info, sha256 = place.store.download(f"{place.prefix}/{key}", path)
        _check_size(place, key, path.stat().st_size, info.size)
        if is_tar(key):
            files = unpack(path, place.uri, key, place.blobs, max_image_bytes, place.known)
        else:
            adopt(place.blobs, path, sha256)
            files = (SourceFile(key, info.size, sha256),)
        return SourceObject(key, info.size, info.version, files)
    finally:
        path.unlink(missing_ok=True)


def _check_size(place: Place, key: str, came: int, expected: int) -> None:
    if came != expected:
        raise StoreError(f"{place.uri}/{key}: {came} bytes came, expected {expected}; run again")
