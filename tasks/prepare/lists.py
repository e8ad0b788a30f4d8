"""Lists that say what images show, where their folders don't: CSV, TSV, or two words a line.

In: a source's list files. Out: `Listed`: of each image that they name, a name of `tasks.classes.TO_CLASS`.

Read as they are published: AffectNet's training.csv (subDirectory_filePath, …, expression, …), RAF-DB's
list_patition_label.txt (`train_00001.jpg 5`, whose images are named train_00001_aligned.jpg), and any with a
column for the file and one for the label. Files are looked for below the source's folder, below the list's,
and then by their names alone.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from storage.errors import InputError
from tasks.ingest import SourceFile, SourceManifest, blob_path
from tasks.ingest.sources import is_image
from tasks.prepare.table import layout_of
from tasks.vocabulary import as_label, check_labels

if TYPE_CHECKING:
    import pandas as pd

FILE_COLUMNS = (
    "subdirectory_filepath", "file", "filename", "file_name", "filepath", "path", "pth", "image",
    "image_name", "img", "name",
)  # fmt: skip
LABEL_COLUMNS = ("expression", "emotion", "label", "labels", "class", "category")
_ALIGNED = "_aligned"


@dataclass(frozen=True)
class Listed:
    """Images by key, each with its label; `faults` are (where, what is wrong)."""

    labels: dict[str, str]
    faults: list[tuple[str, str]]
    left_out: int
    """Listed images of classes that the source's mapping leaves out."""
    unlisted: int
    said: frozenset[str]
    """The labels that the lists have."""


def read_lists(source: SourceManifest, files: dict[str, SourceFile], blobs: Path) -> Listed:
    """What a source's lists say. InputError for one that can't be read, and for labels unknown or torn."""
    images = [key for key in sorted(files) if is_image(key)]
    places, found, said = _Places(images), {}, set[str]()
    faults: list[tuple[str, str]] = []
    for key in source.lists:
        where = f"{source.name}: {key}"
        rows = read_list(blob_path(blobs, files[key].sha256), where)
        unsaid = rows["label"] == ""
        faults += [(where, f"{file!r} is listed without a label") for file in rows["file"][unsaid]]
        rows = rows[~unsaid]
        check_labels(where, rows["label"], source.vocabulary)
        said.update(rows["label"])
        for file, label in zip(rows["file"], rows["label"], strict=True):
            image = places.of(file, str(PurePosixPath(key).parent))
            if image is None:
                faults.append((where, f"{file!r} is listed, but there is no such image, or more than one"))
            elif found.setdefault(image, label) != label:
                raise InputError(
                    f"{where}: {file!r} is listed as {found[image]!r} and as {label!r}; keep one of them"
                )
    named = {image: source.vocabulary[label] for image, label in sorted(found.items())}
    labels = {image: name for image, name in named.items() if name}
    return Listed(labels, faults, len(named) - len(labels), len(images) - len(named), frozenset(said))


def read_list(path: Path, where: str) -> "pd.DataFrame":
    """The columns `file` and `label` of a list, text, as by `as_label`. InputError where it is none."""
    import pandas as pd

    with path.open("rb") as file:
        how = layout_of(file) | {"header": None}
    heading = 0
    try:
        first = pd.read_csv(path, nrows=1, **how).iloc[0].tolist()
        places, heading = _columns(first, where)
        rows = pd.read_csv(path, usecols=places, skiprows=heading, **how)[list(places)]
    except InputError:
        raise
    except pd.errors.EmptyDataError:
        raise InputError(
            f"{where}: expected a line for each image, with its file and its label, got "
            f"{'a heading alone' if heading else 'an empty file'}; write the list again, or take it out of "
            "the source's lists"
        ) from None
    except (UnicodeDecodeError, pd.errors.ParserError, ValueError) as error:
        raise InputError(
            f"{where}: can't be read as a list of images ({error}); expected CSV, TSV or words, in UTF-8"
        ) from None
    rows.columns = ["file", "label"]
    rows["label"] = rows["label"].map(as_label).str.removesuffix(".0")
    return rows


def _columns(first: list[str], where: str) -> tuple[tuple[int, int], int]:
    """The places of file and label, and how many lines the heading has."""
    names = [name.strip().lower() for name in first]
    file, label = (_first_of(known, names) for known in (FILE_COLUMNS, LABEL_COLUMNS))
    if file is not None and label is not None:
        if twice := [names[place] for place in (file, label) if names.count(names[place]) > 1]:
            raise InputError(
                f"{where}: more than one column is called {twice[0]!r}; rename or remove the others"
            )
        return (file, label), 1
    pictures = [place for place, cell in enumerate(names) if is_image(cell)]
    if len(pictures) == 1 and len(names) == 2:
        return (pictures[0], 1 - pictures[0]), 0
    shown = [cell[:40] for cell in first[:8]]
    raise InputError(
        f"{where}: the first line is {shown}; expected a column for the file ({', '.join(FILE_COLUMNS)}) "
        f"and one for the label ({', '.join(LABEL_COLUMNS)}), or lines of a file and its label alone"
    )


def _first_of(known: Iterable[str], names: list[str]) -> int | None:
    return next((names.index(name) for name in known if name in names), None)


class _Places:
    """Where the images are that lists name."""

    def __init__(self, images: list[str]) -> None:
        self._images = set(images)
        self._by_name: dict[str, list[str]] = {}
        for key in images:
            self._by_name.setdefault(PurePosixPath(key).name, []).append(key)

    def of(self, file: str, folder: str) -> str | None:
        """The key of what a list in `folder` calls `file`; None where there is none, or more than one."""
        path = PurePosixPath(file.strip().replace("\\", "/"))
        for asked in (path, path.with_stem(path.stem + _ALIGNED)) if path.name else ():
            for key in (str(asked), str(PurePosixPath(folder) / asked)):
                if key in self._images:
                    return key
            same = self._by_name.get(asked.name, [])
            if len(same) == 1:
                return same[0]
            nearer = [key for key in same if key.endswith(f"/{asked}")]
            if len(nearer) == 1:
                return nearer[0]
        return None
