"""Tars: images packed into one object, which travels tens of times faster than thousands of small ones.

A member `<class>/x.jpg` counts as if it lay unpacked beside the tar. WebDataset's convention is read too:
where `x.cls` stands beside `x.jpg`, its text is the class's name.
"""

import posixpath
import tarfile
from pathlib import Path

from storage.errors import InputError
from storage.objects import check_key
from tasks.ingest.blobs import put
from tasks.ingest.manifest import SourceFile
from tasks.ingest.sources import check_classes, class_folder, is_image

_MAX_LABEL_BYTES = 100


def unpack(
    path: Path, where: str, key: str, blobs: Path, max_image_bytes: int, known: dict[str, str] | None
) -> tuple[SourceFile, ...]:
    """Put the images of the tar at `path`, object `key` below `where`, into the cache.

    `known` are class folders; None where lists say what an image shows.

    Nothing is written by a member's name. Raises InputError for a damaged tar, for links, devices, sparse
    files, names that lead elsewhere, images over the limit, and images outside the known classes.
    """
    images: dict[str, SourceFile] = {}
    labels: dict[str, str] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if member.isdir():
                    continue
                name = _checked_name(member)
                if name.endswith(".cls"):
                    labels[_sample(name)] = _read(tar, member, _MAX_LABEL_BYTES).decode().strip()
                elif is_image(name):
                    sha256 = put(blobs, _read(tar, member, max_image_bytes))
                    images[name] = SourceFile(name, member.size, sha256)
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise InputError(f"{where}/{key}: {error}; pack it again") from error
    if not images:
        raise InputError(f"{where}/{key}: holds no .jpg or .png; pack it again or remove it")
    folder = posixpath.dirname(key)
    files = tuple(
        file._replace(key=posixpath.join(folder, labels.get(_sample(name), ""), name))
        for name, file in images.items()
    )
    if known is not None:
        check_classes(f"{where}/{key}", {file.key: class_folder(file.key) for file in files}, known)
    return files


def _checked_name(member: tarfile.TarInfo) -> str:
    if not member.isreg() or member.sparse is not None:
        raise InputError(f"member {member.name!r} is a link, device or sparse file, expected plain files")
    return check_key(member.name.removeprefix("./"))


def _read(tar: tarfile.TarFile, member: tarfile.TarInfo, max_bytes: int) -> bytes:
    if member.size > max_bytes:
        raise InputError(f"member {member.name!r} has {member.size} bytes, the limit is {max_bytes}")
    content = tar.extractfile(member)
    data = content.read() if content else b""
    if len(data) != member.size:
        raise InputError(f"it ends inside member {member.name!r}")
    return data


def _sample(name: str) -> str:
    """WebDataset's sample key: the name up to the first dot of its last part."""
    folder, _, base = name.rpartition("/")
    return f"{folder}/{base.partition('.')[0]}"
