"""Pictures of a data set, so that a person can look rather than read.

In: a `Collection` and its arrangement. Out: PNG files: class balance, a sample sheet for each source (a row a
class), and contact sheets of what the audit found.
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from tasks.classes import CLASSES
from tasks.config.prepare import SPLITS
from tasks.prepare.collection import Collection
from tasks.prepare.labels import DISPUTED, REASONS
from tasks.prepare.writing import Arrangement

_SIDE_PX = 64
_COLUMNS = 16
_PAIRS = 48
_MARGIN_PX = 70
_LINE_PX = 16
_BARS_PX = 240
_COLOURS = dict(zip(SPLITS, ("#1f77b4", "#ff7f0e", "#2ca02c"), strict=True))
_ADDED = "#aec7e8"


def draw(directory: Path, images: Collection, arrangement: Arrangement, metadata: dict) -> dict[str, str]:
    """Write all pictures. Their names and file names."""
    sheets: dict[str, Image.Image | None] = {"class_balance": _balance(metadata)}
    for number, source in enumerate(images.names):
        sheets[f"samples_{source}"] = _samples(images, arrangement, number)
    sheets |= _findings(images, arrangement)
    drawn = {name: sheet for name, sheet in sheets.items() if sheet is not None}
    for name, sheet in drawn.items():
        sheet.save(directory / f"{name}.png", compress_level=1)
    return {name: f"{name}.png" for name in drawn}


def _balance(metadata: dict) -> Image.Image:
    """Bars of each class in each split, on top in a lighter shade what an epoch of training draws again.

    Drawn without matplotlib, whose import alone takes as long as all other pictures.
    """
    counts = metadata["counts"]
    drawn = {split: counts["train_drawn" if split == "train" else split] for split in SPLITS}
    scale = _BARS_PX / max(1, *(count for column in drawn.values() for count in column.values()))
    chart = Image.new("RGB", (40 + len(CLASSES) * 190, _BARS_PX + 6 * _LINE_PX), "white")
    pen = ImageDraw.Draw(chart)
    floor = chart.height - 2 * _LINE_PX
    pen.text((20, 6), f"Images of each class, labels {metadata['label_set']}", fill="black", font_size=14)
    for place, (text, colour) in enumerate((*_COLOURS.items(), ("train, drawn again", _ADDED))):
        pen.rectangle((20 + place * 90, 32, 30 + place * 90, 42), fill=colour)
        pen.text((36 + place * 90, 31), text, fill="black")
    for place, name in enumerate(CLASSES):
        left = 20 + place * 190
        pen.text((left + 84, floor + 4), name, fill="black", anchor="ma", font_size=13)
        for column, (split, colour) in enumerate(_COLOURS.items()):
            x, count, real = left + column * 56, drawn[split][name], counts[split][name]
            pen.rectangle((x, floor - count * scale, x + 50, floor), fill=_ADDED)
            pen.rectangle((x, floor - real * scale, x + 50, floor), fill=colour)
            pen.text((x + 25, floor - count * scale - 2), _told(real, count), fill="black", anchor="ms")
    return chart


def _told(real: int, count: int) -> str:
    return f"{real}" if real == count else f"{real}+{count - real}"


def _samples(images: Collection, arrangement: Arrangement, source: int) -> Image.Image | None:
    rng = np.random.default_rng(source)
    rows = []
    for label, name in enumerate(CLASSES):
        mine = np.flatnonzero(
            (images.sources == source) & (arrangement.labels.labels == label) & (arrangement.splits >= 0)
        )
        if len(mine):
            rows.append((name, rng.choice(mine, min(_COLUMNS, len(mine)), replace=False)))
    return _sheet(images, f"{images.names[source]}: samples of each class", rows)


def _findings(images: Collection, arrangement: Arrangement) -> dict[str, Image.Image | None]:
    """Contact sheets: blank ones, copies, conflicting labels, near duplicates, frames of one person."""
    found, labels = arrangement.findings, arrangement.labels
    rng = np.random.default_rng(0)
    blank = np.flatnonzero(found.blank)[: 4 * _COLUMNS]
    torn = np.unique(found.copies[labels.conflicting & ~found.blank])[: _PAIRS // 2]
    disputed = labels.reasons == REASONS.index(DISPUTED)
    near = found.first[found.near]
    near = near[disputed[near].all(axis=1) & (np.ptp(labels.labels[near], axis=1) > 0)][: _PAIRS // 2]
    order = np.argsort(found.scores)
    spread = order[np.unique(np.linspace(0, len(order) - 1, min(_PAIRS, len(order))).astype(int))]
    frames = rng.choice(len(found.frames), min(_PAIRS, len(found.frames)), replace=False)
    copies = np.flatnonzero(np.bincount(found.copies) > 1)[:_PAIRS]
    return {
        "audit_blank": _sheet(images, "Blank or nearly so: dropped", _lines(blank)),
        "audit_exact": _sheet(
            images, "Exact copies: in one split", _lines(_two_of_each(images, found.copies, copies))
        ),
        "audit_conflicts": _sheet(
            images,
            "Copies and near duplicates with conflicting labels (own label below)",
            _lines(np.append(_two_of_each(images, found.copies, torn), near.ravel())),
            labelled=True,
        ),
        "audit_near": _sheet(
            images,
            "Near duplicates, least alike first: in one split",
            _lines(found.first[found.near[spread]].ravel()),
        ),
        "audit_same_person": _sheet(
            images, "Frames of one person: in one split", _lines(found.first[found.frames[frames]].ravel())
        ),
    }


def _two_of_each(images: Collection, copies: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Two images of each wanted distinct one, side by side, whose labels differ if any do."""
    order = np.lexsort((images.votes.argmax(axis=1), copies))
    ends = [np.searchsorted(copies[order], wanted, side) for side in ("left", "right")]
    return order[np.stack([ends[0], ends[1] - 1], axis=1)].ravel()


def _lines(numbers: np.ndarray) -> list[tuple[str, np.ndarray]]:
    return [("", numbers[start : start + _COLUMNS]) for start in range(0, len(numbers), _COLUMNS)]


def _sheet(
    images: Collection, title: str, rows: list[tuple[str, np.ndarray]], labelled: bool = False
) -> Image.Image | None:
    """Rows of (caption, image numbers) under a title; None where there is nothing to show."""
    if not rows:
        return None
    left = _MARGIN_PX if any(caption for caption, _ in rows) else 4
    height = _SIDE_PX + (_LINE_PX if labelled else 4)
    sheet = Image.new("RGB", (left + _COLUMNS * (_SIDE_PX + 4), 2 * _LINE_PX + len(rows) * height), "white")
    pen = ImageDraw.Draw(sheet)
    pen.text((4, 6), title, fill="black")
    for row, (caption, numbers) in enumerate(rows):
        top = 2 * _LINE_PX + row * height
        pen.text((4, top + _SIDE_PX // 2), caption, fill="black")
        for column, (number, pixels) in enumerate(zip(numbers, images.pixels.read(numbers), strict=True)):
            place = (left + column * (_SIDE_PX + 4), top)
            sheet.paste(Image.fromarray(pixels.squeeze()).resize((_SIDE_PX, _SIDE_PX)), place)
            if labelled:
                pen.text((place[0], top + _SIDE_PX), _own_label(images.votes[number]), fill="black")
    return sheet


def _own_label(votes: np.ndarray) -> str:
    return (*CLASSES, "other", "other", "other")[int(votes.argmax())]
