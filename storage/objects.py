"""The narrow object store: what a run needs to know about storage is one URI.

    for info in store.list("datasets/custom"): ...
    store.write("models/champion.json", b"{}")

Keys are posix paths relative to the URI: any Unicode, spaces too, but no empty, `.` or `..` part, so that
a key never leads outside the store. Every verb raises `StoreError` when the store doesn't answer or refuses,
and `MissingObject`, which is a `FileNotFoundError`, when there is no object of that key.
"""

from pathlib import Path
from typing import NamedTuple, Protocol

from storage.errors import InputError

READ_BYTES = 1 << 30


class ObjectInfo(NamedTuple):
    """One object as the store lists it."""

    key: str
    size: int
    """Bytes."""
    version: str
    """Opaque: differs whenever the content differs (an ETag, a file's times); equal content may have two."""


class Loaded(NamedTuple):
    """An object in memory."""

    info: ObjectInfo
    """The version that those bytes are: a newer one than was listed, where it changed since."""
    data: bytes


class Downloaded(NamedTuple):
    """What a download wrote to a file."""

    info: ObjectInfo
    """As in `Loaded`."""
    sha256: str


class ObjectStore(Protocol):
    """What every backend does; `tests/storage/test_contract.py` holds each of them to it."""

    uri: str

    def list(self, folder: str = "", broken: bool = False) -> list[ObjectInfo]:
        """All objects below `folder`, at any depth, sorted by key; none where there is no such folder.

        Keys are as the store has them, even ones that the other verbs would refuse. `broken` also lists what
        has a name and is no file, such as a link to nothing or a pipe, as 0 bytes of the version "".
        """
        ...

    def read(self, key: str, most_bytes: int = READ_BYTES) -> bytes:
        """The whole object in memory: for small ones. InputError where it has more bytes than that."""
        ...

    def load(self, key: str) -> Loaded:
        """As `read`, and which version that is.

        All bytes are of one version; an object that changes while it is read is read once more, then refused.
        """
        ...

    def write(self, key: str, data: bytes) -> None:
        """Create or replace the object, atomically: a reader sees the old content or the new one."""
        ...

    def download(self, key: str, path: Path) -> Downloaded:
        """As `load`, for objects of any size: to the file `path`, which appears only when it is whole."""
        ...

    def upload(self, path: Path, key: str) -> None:
        """Create or replace the object with the content of a file of any size, atomically."""
        ...

    def exists(self, key: str) -> bool:
        """Whether there is an object of exactly this key (a folder is not an object)."""
        ...

    def delete(self, key: str) -> None:
        """Remove the object; nothing happens where there is none."""
        ...


def check_key(key: str) -> str:
    """The key itself, or InputError where it is empty, absolute, climbs with `..`, or isn't plain Unicode."""
    if any(part in ("", ".", "..") for part in key.split("/")):
        raise InputError(
            f"object key {key!r}: has an empty, '.' or '..' part; expected a relative path like a/b.jpg"
        )
    if "\0" in key or not _is_utf8(key):
        raise InputError(f"object key {key!r}: holds a NUL or bytes that aren't UTF-8; rename the object")
    return key


def _is_utf8(key: str) -> bool:
    try:
        key.encode()
    except UnicodeEncodeError:
        return False
    return True
