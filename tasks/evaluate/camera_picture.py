"""One picture of a model through every camera: a row a camera, bars of what it finds, shares of its answers.

In: `Cameras`. Out: a PNG that can be read on a telephone.
"""

from itertools import groupby
from pathlib import Path

import numpy as np

from tasks.classes import CLASSES
from tasks.evaluate.camera_figures import Cameras
from tasks.evaluate.pictures import BLUE, INK, MUTED, ORANGE, canvas, save

_SHADES = dict(zip(CLASSES, ("#c3ccd5", "#d95f43", "#5b7fb5", "#e9c46a", "#6d5a8d"), strict=True))
_RARE = 0.8
"""Bars below this share of the clean one are drawn in another colour."""


def draw_cameras(cameras: Cameras, path: Path) -> Path:
    """Accuracy, recall of stress and of fatigue, and the answers' shares, a row a camera."""
    names = [figures.camera for figures in cameras.cameras]
    places = _places(names)
    figure, columns = canvas(
        5.3, 1.5 + 0.26 * max(places), columns=4, sharey=True, width_ratios=(1, 1, 1, 1.5)
    )
    measured = {
        "right": [figures.accuracy for figures in cameras.cameras],
        "stress\nfound": [figures.recall["stress"] for figures in cameras.cameras],
        "fatigue\nfound": [figures.recall["fatigue"] for figures in cameras.cameras],
    }
    for axes, (title, values) in zip(columns, measured.items(), strict=False):
        _bars(axes, title, places, values)
    _answers(columns[3], places, cameras)
    columns[0].set_yticks(places, names, fontsize=10.5, color=INK)
    columns[0].set_ylim(max(places) + 0.6, min(places) - 0.6)
    figure.legend(
        *columns[3].get_legend_handles_labels(), loc="outside lower center", ncols=len(CLASSES),
        frameon=False, fontsize=10, handlelength=0.9, columnspacing=1.0, handletextpad=0.4,
    )  # fmt: skip
    return save(figure, _finding(cameras), path)


def _places(names: list[str]) -> list[float]:
    """A row each, and a gap where another kind of camera begins."""
    places, place = [], 0.0
    for _, group in groupby(names, key=lambda name: name.split()[0]):
        for _ in group:
            places.append(place)
            place += 1
        place += 0.45
    return places


def _bars(axes, title: str, places: list[float], values: list[float | None]) -> None:
    clean = values[0]
    shown = np.array([np.nan if value is None else value for value in values], float)
    low = shown < _RARE * (np.nan if clean is None else clean)
    axes.barh(places, np.nan_to_num(shown), height=0.8, color=np.where(low, ORANGE, BLUE))
    for place, value in zip(places, shown, strict=True):
        inside = value > 0.32
        axes.text(
            value + (-0.04 if inside else 0.04) if np.isfinite(value) else 0.04, place,
            f"{100 * value:.0f}" if np.isfinite(value) else "-", va="center_baseline", fontsize=9.5,
            ha="right" if inside else "left", color="white" if inside else INK,
        )  # fmt: skip
    if clean is not None:
        axes.axvline(clean, color=INK, linewidth=0.8, linestyle=":")
    _plain(axes, title)


def _answers(axes, places: list[float], cameras: Cameras) -> None:
    """What it answers, stacked; the truth's shares as lines across."""
    left = np.zeros(len(places))
    edges = np.cumsum([cameras.truth[name] for name in CLASSES])
    for name in CLASSES:
        width = np.array([figures.answers[name] for figures in cameras.cameras])
        axes.barh(places, width, left=left, height=0.8, color=_SHADES[name], label=name)
        left += width
    for edge in edges[:-1]:
        axes.axvline(edge, color=INK, linewidth=0.8, linestyle=":")
    _plain(axes, "what it answers,\ndotted: the truth")


def _plain(axes, title: str) -> None:
    axes.set_title(title, fontsize=10.5, color=MUTED, loc="left")
    axes.set_xlim(0, 1)
    axes.set_xticks([])
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def _finding(cameras: Cameras) -> str:
    clean, worst = cameras.cameras[0].accuracy, cameras.worst
    name, points = max(cameras.largest_growth.items(), key=lambda item: item[1])
    return (
        f"{clean:.1%} right; {worst.accuracy:.1%} at worst ({worst.camera}).\n"
        f'Answers lean to "{name}" by up to {points:.1f} points.'
    )
