"""Manifests: what the cache holds of each source, written down after every few seconds of fetching."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, Field

from storage.errors import StoreError
from storage.files import write_whole
from tasks.config.ingest import Use
from tasks.ingest.sources import Format
from tasks.vocabulary import vocabulary


class SourceFile(NamedTuple):
    """One file of a source: a CSV, an image (of a folder or of a tar), or groups.csv."""

    key: str
    """Posix path relative to the source's prefix; a tar's member as if it lay unpacked beside the tar."""
    size: int
    sha256: str


class SourceObject(NamedTuple):
    """One object of the store and the files that it holds: itself, or a tar's members."""

    key: str
    size: int
    version: str
    files: tuple[SourceFile, ...]


class SourceManifest(BaseModel, frozen=True, extra="forbid"):
    """One ingested source. Its files stand in a JSON file, because there may be hundreds of thousands."""

    name: str
    format: Format
    use: Use = Field(default="train", description="Whether it may be learnt from")
    vocabulary: dict[str, str] = Field(
        default=vocabulary("", {}),
        description="What its folders and lists say, in lower case, to a name of ours; empty: left out",
    )
    lists: tuple[str, ...] = Field(default=(), description="Files that list images with their labels")
    mapping: tuple[str, ...] = Field(default=(), description="Names that its mapping has, in lower case")
    folders: tuple[str, ...] = Field(
        default=(), description="Class folders of a source with a mapping, in lower case, left out or not"
    )
    left_out: int = Field(default=0, description="Images in folders that the vocabulary leaves out")
    votes: bool = Field(default=False, description="Whether FER+'s fer2013new.csv lies beside the images")
    manifest_path: Path
    fingerprint: str = Field(description="SHA-256 over the source's name and every file's key and SHA-256")
    objects: int = Field(description="Objects in the store that hold this source's data")
    bytes: int = Field(description="Their total size")
    fetched: int = Field(description="Objects fetched by this run")
    reused: int = Field(description="Objects that the cache had already")
    ignored: tuple[str, ...] = Field(
        default=(), description="Keys beside the data that are none, at most the first 20"
    )
    ignored_count: int = Field(default=0, description="How many such keys there are")
    unread_photos: dict[str, int] = Field(
        default={}, description="Photos among them in formats that aren't read, by suffix"
    )

    @property
    def unread_note(self) -> str:
        """What a person should know of the photos in formats that aren't read."""
        told = ", ".join(f"{count} {suffix}" for suffix, count in sorted(self.unread_photos.items()))
        return f"photos that are not read ({told}): save them as JPEG or PNG"

    def files(self) -> list[SourceFile]:
        """All files, sorted by key. StoreError where the manifest is gone or another run replaced it."""
        files = files_of(load_objects(self.manifest_path))
        if fingerprint(self.name, files) != self.fingerprint:
            raise StoreError(
                f"{self.manifest_path}: isn't what this run ingested, another run replaced it; run again"
            )
        return files


def files_of(objects: Iterable[SourceObject]) -> list[SourceFile]:
    """The files of all objects, sorted by key."""
    return sorted(file for held in objects for file in held.files)


def fingerprint(name: str, files: Iterable[SourceFile]) -> str:
    """SHA-256 over the source's name and each file's key and content, whatever their order."""
    lines = sorted(f"{name}\0{file.key}\0{file.sha256}\n" for file in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def save_objects(path: Path, uri: str, objects: Iterable[SourceObject]) -> None:
    """Write down what the cache holds of the source at `uri`."""
    write_whole(path, json.dumps({"uri": uri, "objects": list(objects)}))


def load_objects(path: Path, uri: str | None = None) -> list[SourceObject]:
    """The objects of a manifest; none where it is of another URI. StoreError where it can't be read."""
    try:
        manifest = json.loads(path.read_bytes())
        if uri is not None and manifest["uri"] != uri:
            return []
        return [_object(*fields) for fields in manifest["objects"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise StoreError(f"{path}: not a readable manifest ({error}); run the ingest again") from error


def _object(key: str, size: int, version: str, files: list[list]) -> SourceObject:
    return SourceObject(key, size, version, tuple(SourceFile(*file) for file in files))
