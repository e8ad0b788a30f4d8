"""Sources: which objects under a prefix are data, and in which of the known layouts they lie."""

import re
from collections.abc import Iterable
from typing import Literal, NamedTuple

from pydantic import BaseModel, Field, field_validator

from storage.errors import InputError
from storage.objects import check_key
from tasks.classes import TO_CLASS

Format = Literal["fer2013_csv", "class_folders"]
Use = Literal["train", "evaluate"]

LAYOUTS = (
    "expected fer2013.csv (also .gz, .xz, .zip), or images as <class>/*.jpg|png, also below train|test, "
    f"also in *.tar; class is one of {', '.join(TO_CLASS)}"
)

_PACKING = r"(\.(gz|xz|zip))?"
_DATA_CSV = re.compile(rf"(fer2013|icml_face_data)\.csv{_PACKING}", re.IGNORECASE)
_VOTES_CSV = re.compile(r"fer2013new\.csv")
_IMAGE = (".jpg", ".jpeg", ".png")
_SPLITS = ("train", "test")


class Source(BaseModel, frozen=True, extra="forbid", title="Source"):
    """One named data set in the store."""

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9_-]*$",
        description="Name in reports and image ids; lower case, digits, - and _",
    )
    prefix: str = Field(description="Folder in the store, e.g. datasets/custom")
    format: Literal["auto", "fer2013_csv", "class_folders"] = Field(
        default="auto",
        description="Layout; auto takes fer2013.csv where there is one, else folders named by class",
    )
    use: Use = Field(
        default="train",
        description="train: images for training, validation and test. evaluate: never learnt from, every "
        "model is measured on it beside the test split",
    )
    required: bool = Field(default=True, description="Whether a run without any file of it is an error")

    @field_validator("prefix")
    @classmethod
    def _is_a_folder(cls, prefix: str) -> str:
        return check_key(prefix.strip("/"))


class Layout(NamedTuple):
    """What of a listing is data."""

    format: Format
    keys: frozenset[str]
    ignored: tuple[str, ...]


def find_layout(source: Source, where: str, keys: Iterable[str]) -> Layout | None:
    """Sort the keys below a source's prefix into data and the rest; None where none of them is data.

    Ignored, and counted: hidden files and what lies in hidden folders or `__MACOSX`, every file that is
    neither .jpg, .jpeg, .png, .tar nor `groups.csv` (Thumbs.db, README …), and keys that would lead out of
    the prefix. Raises InputError naming `where` for images outside a known class and for two layouts at once.
    """
    kinds = {key: _kind(key) for key in keys}
    chosen = _choose_format(source, where, set(kinds.values()))
    wanted = {"data", "votes"} if chosen == "fer2013_csv" else {"image", "tar", "groups"}
    data = frozenset(key for key, kind in kinds.items() if kind in wanted)
    if not any(kinds[key] in ("data", "image", "tar") for key in data):
        return None
    _check_csv(where, [key for key in data if kinds[key] == "data"])
    _check_csv(where, [key for key in data if kinds[key] == "votes"])
    check_classes(where, (key for key in data if kinds[key] == "image"))
    return Layout(chosen, data, tuple(sorted(set(kinds) - data)))


def class_folder(key: str) -> str | None:
    """The class folder that an image's key names, in lower case, a key of `TO_CLASS`; None for any other."""
    folders = [part.lower() for part in key.split("/")[:-1]]
    if folders and folders[0] in _SPLITS:
        folders = folders[1:]
    return folders[0] if folders and folders[0] in TO_CLASS else None


def check_classes(where: str, images: Iterable[str]) -> None:
    """Raise InputError naming one image outside the known class folders, and how many such there are."""
    strange = [key for key in images if class_folder(key) is None]
    if strange:
        raise InputError(
            f"{where}: {len(strange)} images lie outside a known class folder, e.g. {min(strange)!r}; "
            f"rename or remove their folder; {LAYOUTS}"
        )


def is_tar(key: str) -> bool:
    """Whether the key is a tar's by its suffix."""
    return key.lower().endswith(".tar")


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


def _choose_format(source: Source, where: str, kinds: set[str]) -> Format:
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
