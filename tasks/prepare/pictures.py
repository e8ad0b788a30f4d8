"""Pictures of a data set, so that a person can look rather than read.

In: a `Collection` and its arrangement. Out: PNG files: class balance, a sample sheet for each source (a row a
class), and contact sheets of what the audit found.
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from tasks.classes import CLASSES
from tasks.prepare.collection import Collection
from tasks.prepare.config import SPLITS
from tasks.prepare.writing import Arrangement

_SIDE_PX = 64
_COLUMNS = 16
_PAIRS = 48
_MARGIN_PX = 70
_LINE_PX = 16


def draw(directory: Path, images: Collection, arrangement: Arrangement, metadata: dict) -> dict[str, str]:
    """Write all pictures. Their names and file names."""
    sheets = {"class_balance": _balance(metadata)}
    for number, source in enumerate(images.names):
        sheets[f"samples_{source}"] = _samples(images, arrangement, number)
    sheets |= _findings(images, arrangement)
    files = {name: f"{name}.png" for name, sheet in sheets.items() if sheet is not None}
    for name, file in files.items():
        sheets[name].save(directory / file)
    return files


def _balance(metadata: dict) -> Image.Image:
    """Bars of each class in each split, what augmentation added on top in a lighter shade."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.add_subplot()
    counts, added = metadata["counts"], metadata["counts"]["train_augmented"]
    places = np.arange(len(CLASSES))
    for shift, (split, colour) in enumerate(zip(SPLITS, ("#1f77b4", "#ff7f0e", "#2ca02c"), strict=True)):
        real = [counts[split][name] - (added[name] if split == "train" else 0) for name in CLASSES]
        bars = axes.bar(places + (shift - 1) * 0.28, real, 0.26, color=colour, label=split)
        axes.bar_label(bars, fontsize=7)
    extra = list(added.values())
    bottom = [counts["train"][name] - added[name] for name in CLASSES]
    axes.bar(places - 0.28, extra, 0.26, bottom, color="#aec7e8", label="train, augmented")
    axes.set_xticks(places, CLASSES)
    axes.set_ylabel("images")
    axes.set_title(f"Images of each class, labels {metadata['label_set']}")
    axes.legend(frameon=False, fontsize=8)
    return _rendered(figure)


def _rendered(figure) -> Image.Image:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())


def _samples(images: Collection, arrangement: Arrangement, source: int) -> Image.Image:
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
            "Copies with conflicting labels (own label below)",
            _lines(_two_of_each(images, found.copies, torn)),
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
