"""Sources: which objects under a prefix are data, and in which of the known layouts they lie."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Literal, NamedTuple

from storage.errors import InputError
from storage.objects import check_key
from tasks.classes import TO_CLASS
from tasks.config.ingest import Source
from tasks.vocabulary import LEFT_OUT, as_label, check_labels

Format = Literal["fer2013_csv", "class_folders", "image_lists"]

LAYOUTS = (
    "expected fer2013.csv (also .gz, .xz, .zip), or images as <class>/*.jpg|png, also below train|val|test, "
    f"also in *.tar; class is one of {', '.join(TO_CLASS)}, or what the source's mapping says"
)

_PACKING = r"(\.(gz|xz|zip))?"
_DATA_CSV = re.compile(rf"(fer2013|icml_face_data)\.csv{_PACKING}", re.IGNORECASE)
_VOTES_CSV = re.compile(r"fer2013new\.csv", re.IGNORECASE)
_IMAGE = (".jpg", ".jpeg", ".png")
_UNREAD_PHOTO = (".heic", ".heif", ".webp", ".avif", ".jfif", ".bmp", ".gif", ".tif", ".tiff")
SPLIT_FOLDERS = {
    "train": 0, "training": 0, "val": 1, "valid": 1, "validation": 1, "test": 2, "testing": 2,
}  # fmt: skip
"""Folders above the classes', and which official split they are."""


class Layout(NamedTuple):
    """What of a listing is data."""

    format: Format
    keys: frozenset[str]
    ignored: tuple[str, ...]
    left_out: int = 0
    """Images of classes that the source's mapping leaves out."""
    folders: frozenset[str] = frozenset()
    """The classes' folders, as labels are compared, without those in tars."""


def find_layout(source: Source, where: str, keys: Iterable[str]) -> Layout | None:
    """Sort the keys below a source's prefix into data and the rest; None where none of them is data.

    Ignored, and counted: hidden files and what lies in hidden folders or `__MACOSX`, every file that is
    neither .jpg, .jpeg, .png, .tar nor `groups.csv` (Thumbs.db, README …), and keys that would lead out of
    the prefix. Raises InputError naming `where` for images outside a known class, for two layouts at once and
    for a list that isn't there.
    """
    kinds = {key: "list" if key in source.lists else _kind(key) for key in keys}
    if not any(kind in ("data", "image", "tar") for kind in kinds.values()):
        return None
    chosen = _choose_format(source, where, set(kinds.values()))
    data = frozenset(key for key, kind in kinds.items() if kind in _WANTED[chosen])
    if not any(kinds[key] in ("data", "image", "tar") for key in data):
        return None
    _check_lists(source, where, kinds)
    if chosen == "fer2013_csv":
        _check_numbers(source, where)
    _check_csv(where, [key for key in data if kinds[key] == "data"])
    _check_csv(where, [key for key in data if kinds[key] == "votes"])
    ignored = tuple(sorted(set(kinds) - data))
    if chosen != "class_folders":
        return Layout(chosen, data, ignored)
    known = source.vocabulary
    images = {key: class_folder(key) for key in data if kinds[key] == "image"}
    check_classes(where, images, known)
    out = {key for key, folder in images.items() if folder is not None and known[folder] == LEFT_OUT}
    if images and out >= data - {key for key in data if kinds[key] in ("groups", "votes")}:
        raise InputError(
            f"{where}: all {len(out)} images are of classes that source {source.name!r} leaves out; "
            'expected some to keep: map a folder to a class instead of ""'
        )
    return Layout(chosen, data - out, ignored, len(out), frozenset(filter(None, images.values())))


def class_folder(key: str) -> str | None:
    """The folder that names an image's class, as labels are compared; None where it lies in none."""
    folders = [as_label(part) for part in key.split("/")[:-1]]
    if folders and folders[0] in SPLIT_FOLDERS:
        folders = folders[1:]
    return folders[0] if folders else None


def check_classes(where: str, folders: Mapping[str, str | None], known: Mapping[str, str]) -> None:
    """InputError for images, key to class folder, that lie in none, or in one that isn't known."""
    if outside := [key for key, folder in folders.items() if folder is None]:
        raise InputError(
            f"{where}: {len(outside)} images lie in no class folder, e.g. {min(outside)!r}; move or remove "
            f"them, or name the files that list their classes (lists); {LAYOUTS}"
        )
    unknown = (key for key, folder in folders.items() if folder not in known)
    labels = (folder for folder in folders.values() if folder is not None)
    check_labels(where, labels, known, instead=_instead(unknown, known))


def _instead(keys: Iterable[str], known: Mapping[str, str]) -> str:
    """What else there is to do about images in unknown folders: go down to known ones, or name a list."""
    listed = "name the files that list their classes (lists), or "
    for key in keys:
        parts = key.split("/")
        for depth in range(1, len(parts) - 1):
            if class_folder("/".join(parts[depth:])) in known:
                above = "/".join(parts[:depth])
                return f"end the source's prefix with {above!r}, below which there are known ones, {listed}"
    return listed


def unread_photos(keys: Iterable[str]) -> dict[str, int]:
    """How many photos are in formats that aren't read, by suffix."""
    suffixes = (PurePosixPath(key).suffix.lower() for key in keys)
    return dict(Counter(suffix for suffix in suffixes if suffix in _UNREAD_PHOTO))


def is_tar(key: str) -> bool:
    """Whether the key is a tar's by its suffix."""
    return key.lower().endswith(".tar")


def is_votes(key: str) -> bool:
    """Whether the key is that of FER+'s votes, at the top of a source."""
    return _kind(key) == "votes"


def is_image(key: str) -> bool:
    """Whether the key is an image's by its suffix, and not hidden."""
    return _kind(key) == "image"


def _kind(key: str) -> str:
    try:
        parts = check_key(key).split("/")
    except InputError:
        return "other"
    if any(part.startswith(".") or part == "__MACOSX" for part in parts):
        return "other"
    if len(parts) == 1:
        for kind, pattern in (("data", _DATA_CSV), ("votes", _VOTES_CSV)):
            if pattern.fullmatch(key):
                return kind
        if key.lower() == "groups.csv":
            return "groups"
    return "image" if key.lower().endswith(_IMAGE) else "tar" if is_tar(key) else "other"


_WANTED: Mapping[Format, frozenset[str]] = {
    "fer2013_csv": frozenset({"data", "votes"}),
    "class_folders": frozenset({"image", "tar", "groups", "votes"}),
    "image_lists": frozenset({"image", "tar", "groups", "list"}),
}


def _check_lists(source: Source, where: str, kinds: Mapping[str, str]) -> None:
    if missing := sorted(set(source.lists) - set(kinds)):
        found = sorted(key for key in kinds if key.lower().endswith((".csv", ".tsv", ".txt")))
        raise InputError(
            f"{where}: no {', '.join(missing)}, which source {source.name!r} names in lists; expected it "
            f"among {found[:10]}"
        )


def _check_numbers(source: Source, where: str) -> None:
    """fer2013.csv has numbers of its own, and FER+'s votes are by row: other names have no place there."""
    if source.mapping or source.numbers not in ("", "fer2013"):
        given = "a mapping" if source.mapping else f"numbers = {source.numbers!r}"
        raise InputError(
            f"{where}: source {source.name!r} has {given}, got fer2013.csv, whose emotions 0 to 6 are always "
            "FER-2013's; take it out of the source, or give the images as folders or a list, for which it is"
        )


def _choose_format(source: Source, where: str, kinds: set[str]) -> Format:
    if source.lists:
        return "image_lists"
    if source.format != "auto":
        return source.format
    if "data" in kinds and kinds & {"image", "tar"}:
        raise InputError(
            f"{where}: holds both fer2013.csv and images; name two sources, or set the format of "
            f"source {source.name!r} to fer2013_csv or class_folders"
        )
    return "fer2013_csv" if "data" in kinds else "class_folders"


def _check_csv(where: str, found: list[str]) -> None:
    if len(found) > 1:
        raise InputError(f"{where}: {' and '.join(sorted(found))} hold the same data; keep one of them")
