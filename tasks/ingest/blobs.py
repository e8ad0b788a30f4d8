"""Blobs: the content-addressed cache, one file `<aa>/<sha256>` for each distinct content.

Every blob's modification time is set to one constant when it is made. One that still has it, and its size, is
taken as it is (a look at 36,000 of them takes a fraction of a second); any other is hashed again. What rots
without a new time is found by hashing a part of the cache on each day, so that every blob has its turn.
"""

import hashlib
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from storage.files import explained, replacing
from tasks.ingest.manifest import SourceFile

_STAMP_NS = 1_000_000_000 * 10**9
_DAY_S = 86_400


def blob_path(blobs: Path, sha256: str) -> Path:
    """Where the content of that hash lies (or would lie)."""
    return blobs / sha256[:2] / sha256


def incoming(blobs: Path) -> Path:
    """A fresh name in the cache's own file system to download to, for `adopt`."""
    return blobs / "incoming" / uuid.uuid4().hex


def adopt(blobs: Path, path: Path, sha256: str) -> None:
    """Move a whole file of that hash into the cache."""
    blob = blob_path(blobs, sha256)
    with explained("write", blob):
        _stamp(path)
        blob.parent.mkdir(exist_ok=True)
        path.replace(blob)


def put(blobs: Path, data: bytes) -> str:
    """Write bytes into the cache and return their SHA-256."""
    sha256 = hashlib.sha256(data).hexdigest()
    with replacing(blob_path(blobs, sha256)) as file:
        file.write(data)
        file.flush()
        _stamp(file.fileno())
    return sha256


def is_sound(blobs: Path, file: SourceFile, recheck_days: int) -> bool:
    """Whether the cache holds the file's content; hashes it where its time is strange or its day has come."""
    path = f"{blobs}/{file.sha256[:2]}/{file.sha256}"
    try:
        stat = os.stat(path)  # noqa: PTH116 - for each image of every night: a third of the time of Path's
        if stat.st_size != file.size:
            return False
        if stat.st_mtime_ns == _STAMP_NS and not _is_due(file.sha256, recheck_days):
            return True
        return _hashes_to(blob_path(blobs, file.sha256), file.sha256)
    except OSError:
        return False


def _hashes_to(blob: Path, sha256: str) -> bool:
    with blob.open("rb") as content:
        sound = hashlib.file_digest(content, "sha256").hexdigest() == sha256
    if sound:
        _stamp(blob)
    return sound


def evict(blobs: Path, keep: Callable[[], set[str]], max_bytes: int) -> None:
    """Where the cache is over its bound, remove least recently used blobs not in `keep()` until it fits.

    Use is what the file system records as access, so at least once a day on the usual `relatime` mount.
    """
    cached = [(entry.stat(), entry) for entry in _entries(blobs)]
    excess = sum(stat.st_size for stat, _ in cached) - max_bytes
    if excess <= 0:
        return
    kept = keep()
    for stat, entry in sorted(cached, key=lambda one: one[0].st_atime_ns):
        if excess > 0 and entry.name not in kept:
            Path(entry.path).unlink(missing_ok=True)
            excess -= stat.st_size


def clear_incoming(blobs: Path) -> None:
    """Remove what killed runs left half-fetched, once it is a day old."""
    for path in incoming(blobs).parent.glob("*"):
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_ctime > _DAY_S:
                path.unlink()


def _stamp(path: Path | int) -> None:
    os.utime(path, ns=(time.time_ns(), _STAMP_NS))


def _is_due(sha256: str, recheck_days: int) -> bool:
    return recheck_days > 0 and (int(sha256[:8], 16) - int(time.time() // _DAY_S)) % recheck_days == 0


def _entries(blobs: Path) -> Iterator[os.DirEntry]:
    for folder in blobs.glob("??"):
        with os.scandir(folder) as entries:
            yield from entries
