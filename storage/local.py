"""A directory as an object store: the embedded default, and any mounted network share."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from storage.errors import StoreError
from storage.files import UNFINISHED, chunks_of, explained, gather, replacing, write_chunks, write_whole
from storage.objects import READ_BYTES, Downloaded, Loaded, ObjectInfo, check_key

_Read = TypeVar("_Read")


class LocalStore:
    """Objects are the files below `root`, which must be there; linked folders and files are followed."""

    def __init__(self, root: Path):
        self.root = root
        self.uri = str(root)

    def list(self, folder: str = "", broken: bool = False) -> list[ObjectInfo]:
        folder = folder.strip("/")
        top = self.root / check_key(folder) if folder else self.root
        with explained("list", top):
            found = _walk(str(top), f"{folder}/" if folder else "", frozenset()) if top.is_dir() else ()
            return sorted(info for info in found if info.version or broken)

    def read(self, key: str, most_bytes: int = READ_BYTES) -> bytes:
        return self._unchanged(key, lambda chunks: gather(chunks, f"{self.uri}/{key}", most_bytes))[1]

    def load(self, key: str) -> Loaded:
        return Loaded(*self._unchanged(key, b"".join))

    def write(self, key: str, data: bytes) -> None:
        write_whole(self._place(key), data, durable=True)

    def download(self, key: str, path: Path) -> Downloaded:
        return Downloaded(*self._unchanged(key, lambda chunks: write_chunks(path, chunks)))

    def upload(self, path: Path, key: str) -> None:
        with path.open("rb") as file, replacing(self._place(key), durable=True) as target:
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

    def _place(self, key: str) -> Path:
        """Where to write. Folders are made as needed, but never the store: one that isn't there was moved."""
        path = self._path(key)
        if not self.root.is_dir():
            raise StoreError(
                f"can't write {path}: there is no directory {self.root}; mount or move it back, or make it "
                "where the store is to be a new one"
            )
        return path

    def _unchanged(self, key: str, read: Callable[[Iterator[bytes]], _Read]) -> tuple[ObjectInfo, _Read]:
        source = self._path(key)
        for _ in range(2):
            with explained("read", source), source.open("rb") as file:
                before = os.fstat(file.fileno())
                result = read(chunks_of(file))
                after = os.fstat(file.fileno())
            # the open file stays what it was when another takes its name: only a rewrite in place matters
            if (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns):
                return _info_of(key, before), result
        raise StoreError(f"{source}: changes while it is read; run again when its writer has finished")


def _walk(folder: str, prefix: str, above: frozenset[tuple[int, int]]) -> Iterator[ObjectInfo]:
    here = os.stat(folder)  # noqa: PTH116 - ten thousands of files: plain strings are half the time of Path
    if (here.st_dev, here.st_ino) in above:
        raise StoreError(f"{folder}: a link that leads back to a folder above it; remove it")
    above |= {(here.st_dev, here.st_ino)}
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _walk(entry.path, f"{prefix}{entry.name}/", above)
            elif not entry.name.startswith(UNFINISHED):
                key = prefix + entry.name
                yield _info_of(key, entry.stat()) if entry.is_file() else ObjectInfo(key, 0, "")


def _info_of(key: str, stat: os.stat_result) -> ObjectInfo:
    # ctime too: a copy that keeps the old modification time (cp -p, rsync -t) still counts as a change
    return ObjectInfo(key, stat.st_size, f"{stat.st_mtime_ns:x}-{stat.st_ctime_ns:x}")
