"""Files and folders that appear under their final name only when whole.

    with replacing(path) as file: ...             bytes, as they come
    write_whole(path, text_or_bytes)              content that is there already
    with arriving(path) as part: ...              for a library that wants a path, not a file
    with arriving_directory(path) as part: ...    a folder with all that is in it
    read_bounded(path)                            what a person names, which may have no end

What is not whole yet lies beside the final name under one that begins with `.unfinished-`: a killed writer
leaves it, and no listing shows it.
"""

import errno
import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO

from storage.errors import InputError, MissingObject, StoreError

UNFINISHED = ".unfinished-"
SETTINGS_BYTES = 16 << 20
"""More than any file of settings has: an inventory of ten thousand devices takes 3 MB."""
KEY_BYTES = 1 << 16
"""More than any private key has: one of RSA with 16,384 bits takes 13 kB."""
_STALE_S = 24 * 3600

_ADVICE = {
    errno.ENOSPC: "the disk is full: free space or use another disk",
    errno.EDQUOT: "the quota is used up: free space or raise it",
    errno.EFBIG: "a file would be larger than this process may write: raise `ulimit -f` or use another disk",
    errno.EROFS: "it is mounted read-only: mount it writable or use another directory",
    errno.EACCES: "permission denied: give this user access",
    errno.EPERM: "permission denied: give this user access",
}


@contextmanager
def replacing(path: Path, durable: bool = False) -> Generator[BinaryIO]:
    """A file to write that takes the name `path` only when the block ends well; folders are made as needed.

    `durable` also waits until the disk has it and its name, so that not even a power cut takes it back.
    Raises StoreError where the disk is full, read-only or refuses.
    """
    with arriving(path, durable) as unfinished, _create(unfinished) as file:
        yield file


@contextmanager
def arriving(path: Path, durable: bool = False) -> Generator[Path]:
    """As `replacing`, for a writer that wants a path: a free one beside `path`, with the same suffix."""
    unfinished = _beside(path)
    with explained("write", path):
        try:
            yield unfinished
            if durable:
                _sync(unfinished)
            os.replace(unfinished, path)  # noqa: PTH105 - half the time of Path's, and called per image
            if durable:
                _sync(path.parent)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise


@contextmanager
def arriving_directory(path: Path) -> Generator[Path]:
    """A fresh folder that takes the name `path` when the block ends well.

    A folder that has the name by then stands: another run was faster, and names say what the content is.
    What killed runs left a day ago beside it goes.
    """
    unfinished = _beside(path)
    with explained("write", path):
        unfinished.mkdir(parents=True)
        _remove_stale(path.parent)
        try:
            yield unfinished
            _settle(unfinished, path)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)


def write_whole(path: Path, content: str | bytes, durable: bool = False) -> None:
    """Give `path` its content, text as UTF-8, in one step: a reader sees all of it, or what was there."""
    with replacing(path, durable) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def write_chunks(path: Path, chunks: Iterable[bytes]) -> str:
    """Write the file whole or not at all, and return its SHA-256."""
    digest = hashlib.sha256()
    with replacing(path) as file:
        for chunk in chunks:
            digest.update(chunk)
            file.write(chunk)
    return digest.hexdigest()


def read_bounded(path: Path, most_bytes: int = SETTINGS_BYTES) -> bytes:
    """A file that a person names: InputError as by `gather`, and any OSError as it is."""
    with path.open("rb") as file:
        return gather(chunks_of(file), str(path), most_bytes)


def chunks_of(file: IO[bytes]) -> Iterator[bytes]:
    """The rest of the file, a megabyte at a time."""
    while chunk := file.read(1 << 20):
        yield chunk


def gather(chunks: Iterable[bytes], name: str, most_bytes: int) -> bytes:
    """The chunks together. InputError, which calls them `name`, where they have more bytes than that: what a
    person names may be /dev/zero, and what is packed may be longer than any disk."""
    gathered = bytearray()
    for chunk in chunks:
        gathered += chunk
        if len(gathered) > most_bytes:
            raise InputError(
                f"{name}: expected at most {most_bytes:,} bytes, got more; is it the right file?"
            )
    return bytes(gathered)


@contextmanager
def explained(verb: str, path: Path) -> Generator[None]:
    """Any OSError of the block as a StoreError that names the path and says what to do."""
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        absent = error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR)
        if absent and verb != "write":
            raise MissingObject(f"{path}: there is no such object") from error
        advice = _ADVICE.get(error.errno or 0, str(error))
        raise StoreError(f"can't {verb} {path}: {advice}") from error


def _beside(path: Path) -> Path:
    return path.with_name(f"{UNFINISHED}{uuid.uuid4().hex}{path.suffix}")


def _create(path: Path) -> BinaryIO:
    try:
        return open(path, "xb")  # noqa: PTH123 - half the time of Path's; `replacing` closes it
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        return open(path, "xb")  # noqa: PTH123


def _sync(path: Path) -> None:
    """Wait until the disk has it; of a folder, the names in it: a rename survives a power cut only then."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _settle(made: Path, path: Path) -> None:
    try:
        made.rename(path)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise


def _remove_stale(directory: Path) -> None:
    for left in directory.glob(f"{UNFINISHED}*/"):
        if time.time() - left.stat().st_mtime > _STALE_S:
            shutil.rmtree(left, ignore_errors=True)
