"""A directory as an object store: the embedded default, and any mounted network share."""

import errno
import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from storage.errors import MissingObject, StoreError
from storage.objects import Downloaded, Loaded, ObjectInfo, check_key

_UNFINISHED = ".unfinished-"
"""Prefix of files that are being written; a killed writer leaves one, and no listing shows it."""

_ADVICE = {
    errno.ENOSPC: "the disk is full: free space or use another disk",
    errno.EDQUOT: "the quota is used up: free space or raise it",
    errno.EFBIG: "a file would be larger than this process may write: raise `ulimit -f` or use another disk",
    errno.EROFS: "it is mounted read-only: mount it writable or use another directory",
    errno.EACCES: "permission denied: give this user access",
    errno.EPERM: "permission denied: give this user access",
}


class LocalStore:
    """Objects are the files below `root`; linked folders and files are followed."""

    def __init__(self, root: Path):
        self.root = root
        self.uri = str(root)

    def list(self, folder: str = "") -> list[ObjectInfo]:
        folder = folder.strip("/")
        top = self.root / check_key(folder) if folder else self.root
        with explained("list", top):
            found = _walk(str(top), f"{folder}/" if folder else "", frozenset()) if top.is_dir() else ()
            return sorted(found)

    def read(self, key: str) -> bytes:
        return self.load(key).data

    def load(self, key: str) -> Loaded:
        return Loaded(*self._unchanged(key, b"".join))

    def write(self, key: str, data: bytes) -> None:
        with replacing(self._path(key), durable=True) as file:
            file.write(data)

    def download(self, key: str, path: Path) -> Downloaded:
        return Downloaded(*self._unchanged(key, lambda chunks: write_chunks(path, chunks)))

    def upload(self, path: Path, key: str) -> None:
        with path.open("rb") as file, replacing(self._path(key), durable=True) as target:
            shutil.copyfileobj(file, target, 1 << 20)

    def exists(self, key: str) -> bool:
        path = self._path(key)
        with explained("look up", path):
            return path.is_file()

    def delete(self, key: str) -> None:
        path = self._path(key)
        with explained("delete", path):
            if path.is_file():
                path.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self.root / check_key(key)

    def _unchanged(self, key: str, read: Callable[[Iterator[bytes]], Any]) -> tuple[ObjectInfo, Any]:
        source = self._path(key)
        for _ in range(2):
            with explained("read", source), source.open("rb") as file:
                before = os.fstat(file.fileno())
                result = read(_chunks(file))
                after = os.fstat(file.fileno())
            # the open file stays what it was when another takes its name: only a rewrite in place matters
            if (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns):
                return _info_of(key, before), result
        raise StoreError(f"{source}: changes while it is read; run again when its writer has finished")


@contextmanager
def replacing(path: Path, durable: bool = False) -> Iterator[BinaryIO]:
    """A file to write that takes the name `path` only when the block ends well; folders are made as needed.

    `durable` also waits until the disk has it, so that not even a power cut leaves an empty file.
    Raises StoreError where the disk is full, read-only or refuses.
    """
    unfinished = path.with_name(f"{_UNFINISHED}{uuid.uuid4().hex}")
    with explained("write", path):
        try:
            with _create(unfinished) as file:
                yield file
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            os.replace(unfinished, path)  # noqa: PTH105 - half the time of Path's, and called per image
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise


def write_chunks(path: Path, chunks: Iterable[bytes]) -> str:
    """Write the file whole or not at all, and return its SHA-256."""
    digest = hashlib.sha256()
    with replacing(path) as file:
        for chunk in chunks:
            digest.update(chunk)
            file.write(chunk)
    return digest.hexdigest()


def _create(path: Path) -> BinaryIO:
    try:
        return open(path, "xb")  # noqa: PTH123 - as above; `replacing` closes it
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        return open(path, "xb")  # noqa: PTH123


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    while chunk := file.read(1 << 20):
        yield chunk


@contextmanager
def explained(verb: str, path: Path) -> Iterator[None]:
    """Any OSError of the block as a StoreError that names the path and says what to do."""
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        absent = error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR)
        if absent and verb != "write":
            raise MissingObject(f"{path}: there is no such object") from error
        advice = _ADVICE.get(error.errno, str(error))
        raise StoreError(f"can't {verb} {path}: {advice}") from error


def _walk(folder: str, prefix: str, above: frozenset[tuple[int, int]]) -> Iterator[ObjectInfo]:
    here = os.stat(folder)  # noqa: PTH116 - ten thousands of files: plain strings are half the time of Path
    if (here.st_dev, here.st_ino) in above:
        raise StoreError(f"{folder}: a link that leads back to a folder above it; remove it")
    above |= {(here.st_dev, here.st_ino)}
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _walk(entry.path, f"{prefix}{entry.name}/", above)
            elif entry.is_file() and not entry.name.startswith(_UNFINISHED):
                yield _info_of(prefix + entry.name, entry.stat())


def _info_of(key: str, stat: os.stat_result) -> ObjectInfo:
    # ctime too: a copy that keeps the old modification time (cp -p, rsync -t) still counts as a change
    return ObjectInfo(key, stat.st_size, f"{stat.st_mtime_ns:x}-{stat.st_ctime_ns:x}")
