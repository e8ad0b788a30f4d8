"""Which photos show one person: as the user's `groups.csv` says, else by runs of file numbers.

`groups.csv` lies at the top of a source: header `file,group`, a key relative to the source a row
(`fatigue/10.jpg,driver-3`). Photos that it doesn't name fall under the rule of `frame_links`.
"""

import csv
import re
from pathlib import Path

import numpy as np

from storage.errors import InputError
from tasks.ingest import SourceFile, blob_path

GROUPS_FILE = "groups.csv"

_NUMBERED = re.compile(rb"^(.*?)(\d+)\.[A-Za-z]+$", re.DOTALL)


def read_persons(name: str, files: dict[str, SourceFile], blobs: Path) -> dict[str, str]:
    """id → group of a source's `groups.csv`; empty where it has none. InputError on a faulty row."""
    if GROUPS_FILE not in files:
        return {}
    text = blob_path(blobs, files[GROUPS_FILE].sha256).read_text("utf-8-sig", "replace")
    reader = csv.DictReader(text.splitlines())
    if not {"file", "group"} <= set(reader.fieldnames or ()):
        raise InputError(f"{name}: {GROUPS_FILE}: expected the header file,group, got {text[:80]!r}")
    persons = {}
    for line, row in enumerate(reader, start=2):
        if row["file"] not in files or not row["group"]:
            raise InputError(
                f"{name}: {GROUPS_FILE}: line {line}: expected a file of this source and a group, got {row}"
            )
        persons[f"{name}:{row['file']}"] = f"{name}:{row['group']}"
    return persons


def frame_candidates(ids: np.ndarray, max_gap: int) -> np.ndarray:
    """Pairs (k, 2) of photos that may be neighbouring video frames.

    Those are photos of one folder and one name pattern whose numbers follow each other, at most `max_gap`
    apart. Rows of a CSV are no photos and have none.
    """
    numbered = {}
    for place, name in enumerate(ids.tolist()):
        if match := _NUMBERED.match(name):
            numbered.setdefault(match[1], []).append((int(match[2]), place))
    pairs = []
    for run in numbered.values():
        run.sort()
        pairs += [(a, b) for (m, a), (n, b) in zip(run, run[1:], strict=False) if n - m <= max_gap]
    return np.array(pairs, np.int64).reshape(-1, 2)
