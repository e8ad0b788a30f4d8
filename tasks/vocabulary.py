"""Labels: what a source's folders or lists call its images, and what that is to us.

In: the words or numbers of a source, in any case. Out: a vocabulary, from each of them as `as_label` writes
it to a name of `tasks.classes.TO_CLASS`, or to "" for images that are to be left out.
"""

import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Literal

from storage.errors import InputError
from tasks.classes import FER2013_EMOTIONS, TO_CLASS

Numbers = Literal["", "fer2013", "affectnet", "raf_db"]
"""Whose numbers stand for emotions."""

LEFT_OUT = ""
_CONTEMPT = LEFT_OUT

_NUMBERS: Mapping[Numbers, Mapping[str, str]] = {
    "": {},
    "fer2013": {str(number): name for number, name in enumerate(FER2013_EMOTIONS)},
    # none, uncertain and no face follow contempt; Mollahosseini et al., 2017, table 3
    "affectnet": {
        "0": "neutral", "1": "happy", "2": "sad", "3": "surprise", "4": "fear", "5": "disgust", "6": "anger",
        "7": _CONTEMPT, "8": LEFT_OUT, "9": LEFT_OUT, "10": LEFT_OUT,
    },
    # Li and Deng, 2017, basic emotions
    "raf_db": {
        "1": "surprise", "2": "fear", "3": "disgust", "4": "happy", "5": "sad", "6": "anger", "7": "neutral",
    },
}  # fmt: skip


def as_label(text: str) -> str:
    """As labels are compared: lower case, no blanks around, accents in one piece (a Mac has two)."""
    return unicodedata.normalize("NFC", text).strip().lower()


def vocabulary(numbers: Numbers, mapping: Mapping[str, str]) -> dict[str, str]:
    """Our names as they are, the numbers of a set, and over both what a configuration maps.

    ValueError for a mapping to a name that isn't there, and for one of a name to two.
    """
    ours = {name: name for name in TO_CLASS} | dict(_NUMBERS[numbers])
    asked: dict[str, str] = {}
    for label, name in ((as_label(label), as_label(name)) for label, name in mapping.items()):
        if asked.setdefault(label, name) != name:
            raise ValueError(
                f"mapping: {label!r} is mapped to {asked[label]!r} and to {name!r}; case and blanks around a "
                "name count for nothing: keep one of the two"
            )
    if "" in asked:
        raise ValueError(
            "mapping: an empty name stands for no folder or label; expected what the images have"
        )
    if unknown := sorted({name for name in asked.values() if name and name not in TO_CLASS}):
        raise ValueError(
            f"mapping: there is no class {', '.join(map(repr, unknown))}; expected one of "
            f"{', '.join(TO_CLASS)}, or '' to leave images out"
        )
    return ours | asked


def check_labels(where: str, labels: Iterable[str], known: Mapping[str, str], *, instead: str = "") -> None:
    """InputError for unknown labels, all listed with how to map them, and for names mixed with numbers.

    `instead` is what else there is to do about unknown ones.
    """
    counts = Counter(labels)
    if unknown := {label: count for label, count in counts.items() if label not in known}:
        shown = ", ".join(f"{label!r} (images: {count})" for label, count in sorted(unknown.items())[:20])
        first = min(unknown)
        line = f'{json.dumps(first, ensure_ascii=False)} = "stress"'
        meant = (
            'say whose numbers they are with numbers = "affectnet" (or "raf_db", "fer2013"), or '
            * first.isdigit()
        )
        raise InputError(
            f"{where}: no class is known for {shown}; {instead}{meant}map each to a class in the source's "
            f'mapping, as {line}, or to "" to leave its images out. Known are '
            f"{', '.join(TO_CLASS)}"
        )
    numbers = sorted(label for label in counts if label.isdigit())
    if numbers and len(numbers) < len(counts):
        names = sorted(set(counts) - set(numbers))
        raise InputError(
            f"{where}: images are named by number ({', '.join(numbers)}) and by word ({', '.join(names)}); "
            "expected one way: rename the folders or labels, or make two sources of them"
        )
