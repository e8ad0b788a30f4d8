"""Accuracy against cost, one panel a cost.

In: outcomes with figures. Out: a PNG; dots are variants with their 95 % intervals, the line joins those that
nothing else beats in both.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from tasks.evaluate.pictures import BLUE, INK, MUTED, canvas, save
from tasks.sweep.outcome import Finished, compute_cost, frontier

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_AXES = {
    "bytes": ("size of the INT8 file (kB)", 1e3),
    "host_p95_ms": ("latency on this host, p95 (ms)", 1),
    "instructions_m": ("instructions per inference (million)", 1),
}
"""Field of `Figures` → label and divisor."""


def draw_accuracy_cost(outcomes: list[Finished], title: str, path: Path) -> Path:
    """Draw at least one variant."""
    figure, panels = canvas(10.4, 4.8, columns=2, sharey=True)
    for axes, cost in zip(panels, ("bytes", compute_cost(outcomes)), strict=True):
        label, unit = _AXES[cost]
        best = frontier(outcomes, cost)
        axes.plot(
            [getattr(one.figures, cost) / unit for one in best],
            [100 * one.figures.accuracy for one in best],
            color=BLUE, linewidth=1, alpha=0.5,
        )  # fmt: skip
        for one in outcomes:
            _draw_variant(axes, one, getattr(one.figures, cost) / unit, BLUE if one in best else MUTED)
        axes.set_xlabel(label)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e4e8ec", linewidth=0.8)
        axes.margins(0.15)
        axes.set_xlim(left=0)
    panels[0].set_ylabel("accuracy of the INT8 model on validation (%)")
    return save(figure, title, path)


def _draw_variant(axes: "Axes", outcome: Finished, cost: float, colour: str) -> None:
    accuracy, (low, high) = outcome.figures.accuracy, outcome.figures.accuracy_ci
    reach = [[100 * (accuracy - low)], [100 * (high - accuracy)]]
    axes.errorbar(cost, 100 * accuracy, yerr=reach, fmt="o", color=colour, capsize=3)
    axes.annotate(
        outcome.name, (cost, 100 * high), color=INK, fontsize=9,
        xytext=(0, 4), textcoords="offset points", ha="center",
    )  # fmt: skip
