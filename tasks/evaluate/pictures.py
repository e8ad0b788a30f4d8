"""The evaluation's pictures, each with its finding as the title.

In: figures and arrays that are computed already. Out: PNG files. Figures are drawn on their own canvas,
without pyplot's global state, so that stages may draw at the same time.
"""

from pathlib import Path
from typing import Any

import numpy as np

from storage.files import replacing
from tasks.classes import CLASSES
from tasks.evaluate.calibration import Reliability
from tasks.evaluate.figures import ClassFigures

INK, MUTED, BLUE, ORANGE = "#1f2933", "#6b7785", "#2f6db3", "#d9822b"


def draw_confusion(confusion: np.ndarray, title: str, path: Path) -> Path:
    """Counts int (5, 5), truth in rows; colour and the second line are the share of the row."""
    totals = confusion.sum(1, keepdims=True)
    shares = np.divide(confusion, totals, out=np.zeros(confusion.shape), where=totals > 0)
    figure, axes = canvas(7.2, 6.2)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(confusion):
        share = shares[row, column]
        colour = "white" if share > 0.55 else INK if count else "#b5bec8"
        text = f"{count:,}\n{share:.0%}" if totals[row, 0] else "-"
        weight = "bold" if row == column else "normal"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=11.5, fontweight=weight)
    axes.set_xticks(range(len(CLASSES)), CLASSES)
    axes.set_yticks(
        range(len(CLASSES)), [f"{name}\n{total:,}" for name, total in zip(CLASSES, totals[:, 0], strict=True)]
    )
    axes.set_xlabel("predicted", color=MUTED)
    axes.set_ylabel("truth (images)", color=MUTED)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize=11)
    return save(figure, title, path)


def draw_reliability(table: Reliability, path: Path) -> Path:
    """Accuracy over confidence, and below it how many images lie at each confidence."""
    mean_confidence = np.average(table.confidence, weights=table.images)
    gap = mean_confidence - np.average(table.accuracy, weights=table.images)
    leaning = "too sure" if gap > 0.01 else "too modest" if gap < -0.01 else "about as sure as it is right"
    figure, (upper, lower) = canvas(6.2, 6.2, rows=2, height_ratios=(3, 1), sharex=True)
    width = table.edges[1] - table.edges[0]
    upper.plot([0, 1], [0, 1], color=MUTED, linestyle="--", linewidth=1, label="perfectly calibrated")
    upper.vlines(table.confidence, table.confidence, table.accuracy, color=ORANGE, linewidth=2.5, label="gap")
    upper.plot(table.confidence, table.accuracy, "o-", color=BLUE, markersize=6, label="this model")
    upper.set(ylabel="accuracy", ylim=(0, 1.02), xlim=(0, 1.01))
    upper.legend(frameon=False, loc="upper left")
    centres = (np.minimum((table.confidence / width).astype(int), len(table.edges) - 2) + 0.5) * width
    lower.bar(centres, table.images, width=width * 0.92, color=BLUE)
    lower.set(xlabel="confidence of the predicted class", ylabel="images")
    for axes in (upper, lower):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e4e8ec", linewidth=0.8)
        axes.set_axisbelow(True)
    return save(figure, f"The model is {leaning}: ECE {table.ece:.3f}", path)


def draw_precision(positive: np.ndarray, scores: np.ndarray, chosen: ClassFigures, path: Path) -> Path:
    """Precision over recall of one class, scores (N,) of the images `positive` bool (N,), at every threshold.

    `chosen` is where the network's own answers stand, which take the likeliest class.
    """
    from sklearn.metrics import precision_recall_curve

    precision, recall, _ = precision_recall_curve(positive, scores)
    figure, axes = canvas(6.2, 4.4)
    axes.step(recall, precision, where="post", color=BLUE, linewidth=2)
    axes.axhline(positive.mean(), color=MUTED, linestyle="--", linewidth=1)
    axes.text(0.01, positive.mean() + 0.015, "by chance", color=MUTED, fontsize=9)
    axes.plot([chosen.recall], [chosen.precision], "o", color=ORANGE, markersize=9, label="as it answers")
    axes.set(xlabel="share of stress found (recall)", ylabel="share of alarms that are stress (precision)")
    axes.set(xlim=(0, 1.01), ylim=(0, 1.02))
    axes.legend(frameon=False, loc="lower left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e4e8ec", linewidth=0.8)
    axes.set_axisbelow(True)
    title = f"Of stress {chosen.recall:.0%} is found; {chosen.precision:.0%} of the alarms are stress"
    return save(figure, title, path)


def draw_confident_errors(
    images: np.ndarray, labels: np.ndarray, probabilities: np.ndarray, path: Path, at_most: int = 24
) -> Path | None:
    """Contact sheet of wrong images (N, P, P, C), the most confident first. None where nothing is wrong."""
    predicted, confidence = probabilities.argmax(1), probabilities.max(1)
    wrong = np.flatnonzero(predicted != labels)
    chosen = wrong[np.argsort(-confidence[wrong], kind="stable")][:at_most]
    if not len(chosen):
        return None
    columns = min(8, len(chosen))
    rows = -(-len(chosen) // columns)
    figure, grid = canvas(1.25 * max(columns, 4), 1.62 * rows + 0.5, rows=rows, columns=columns)
    for axes in np.ravel(grid):
        axes.axis("off")
    for axes, index in zip(np.ravel(grid), chosen, strict=False):
        axes.imshow(images[index].squeeze(), cmap="gray", vmin=0, vmax=255)
        truth, guess = CLASSES[labels[index]], CLASSES[predicted[index]]
        axes.set_title(f"is {truth}\nsaid {guess} {confidence[index]:.2f}", fontsize=8, color=INK, pad=3)
    title = f"The {len(chosen)} most confident of {len(wrong):,} errors"
    return save(figure, title, path)


def canvas(width: float, height: float, rows: int = 1, columns: int = 1, **grid: Any) -> tuple[Any, Any]:
    """A figure of `width` by `height` inches and its axes; `grid` as in `Figure.subplots`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=110, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, **grid)


def save(figure: Any, title: str, path: Path) -> Path:
    """Write the figure under its finding as a PNG, whole or not at all."""
    figure.suptitle(title, fontsize=12.5, fontweight="bold", color=INK, x=0.02, ha="left", wrap=True)
    with replacing(path) as file:
        figure.savefig(file, format="png", metadata={"Software": None})
    return path
