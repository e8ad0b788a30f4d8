"""Which photos show one person: as the user's `groups.csv` says, else by runs of file numbers.

`groups.csv` lies at the top of a source: header `file,group`, a key relative to the source a row
(`fatigue/10.jpg,driver-3`). Photos that it doesn't name fall under the rule of `neighbouring_frames`.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np

from storage.errors import InputError
from tasks.ingest import SourceFile, blob_path
from tasks.prepare.table import read_table

GROUPS_FILE = "groups.csv"
FRAME_GAP = 5
"""Photos may miss from a run: in-car sets lose the frames in which no face was found."""

_NUMBERED = re.compile(rb"^(.*?)(\d+)\.[A-Za-z]+$", re.DOTALL)


def read_persons(name: str, files: dict[str, SourceFile], blobs: Path) -> dict[str, str]:
    """id → group of a source's `groups.csv`; empty where it has none. InputError on a faulty row."""
    if GROUPS_FILE not in files:
        return {}
    where = f"{name}: {GROUPS_FILE}"
    with blob_path(blobs, files[GROUPS_FILE].sha256).open("rb") as file:
        rows = read_table(file, where, ("file", "group"))
    rows["file"] = rows["file"].str.replace("\\", "/")
    wrong = ~rows["file"].isin(list(files)) | (rows["group"] == "")
    if wrong.any():
        line = int(wrong.idxmax())
        raise InputError(
            f"{where}: line {line + 1}: expected a file of this source and a group, got "
            f"{','.join(rows.loc[line])!r}"
        )
    torn = rows.drop_duplicates()["file"].duplicated()
    if torn.any():
        line = int(torn[torn].index[0])
        raise InputError(
            f"{where}: line {line + 1}: {rows.loc[line, 'file']!r} is in another group already; a photo is "
            "of one group: keep one of the lines"
        )
    return {f"{name}:{file}": f"{name}:{group}" for file, group in rows.itertuples(index=False)}


def same_person(persons: dict[str, str], ids: np.ndarray) -> np.ndarray:
    """Pairs (k, 2) that chain the images of each group of a `groups.csv`."""
    members = {}
    for place, name in enumerate(ids.tolist() if persons else ()):
        if group := persons.get(name.decode()):
            members.setdefault(group, []).append(place)
    return _pairs(pair for places in members.values() for pair in pairwise(places))


def neighbouring_frames(persons: dict[str, str], ids: np.ndarray) -> np.ndarray:
    """Pairs (k, 2) of photos that may be frames of one video.

    They lie in one folder under one name pattern, their numbers at most `FRAME_GAP` apart, and no
    `groups.csv` speaks of them. Whether they look alike is for `duplicates` to say.
    """
    numbered = {}
    for place, name in enumerate(ids.tolist()):
        if name.decode() not in persons and (match := _NUMBERED.match(name)):
            numbered.setdefault(match[1], []).append((int(match[2]), place))
    return _pairs(pair for run in numbered.values() for pair in _within_gap(sorted(run)))


def _within_gap(run: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    for place, (number, image) in enumerate(run):
        for later, other in run[place + 1 : place + 1 + FRAME_GAP]:
            if later - number <= FRAME_GAP:
                yield image, other


def _pairs(found: Iterable[tuple[int, int]]) -> np.ndarray:
    return np.array(list(found), np.int64).reshape(-1, 2)
