"""Pictures that a person looks at: the course of training, and what augmentation makes of the images."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from storage.files import replacing

_PANELS = (("loss", "loss"), ("accuracy", "accuracy"), ("auc", "AUC"), ("learning_rate", "learning rate"))


def draw_history(history: dict[str, list[float]], best_epoch: int, path: Path) -> Path:
    """Loss, accuracy and AUC of training and validation, and the learning rate, over the epochs."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6), layout="constrained")
    for axes, (name, title) in zip(figure.subplots(2, 2).flat, _PANELS, strict=True):
        epochs = range(1, len(history[name]) + 1)
        axes.plot(epochs, history[name], marker=".", label="training")
        if f"val_{name}" in history:
            axes.plot(epochs, history[f"val_{name}"], marker=".", label="validation")
        axes.axvline(best_epoch, color="grey", linestyle=":", label="kept epoch")
        axes.set(title=title, xlabel="epoch")
        axes.legend()
    return _save(figure, path)


def draw_batch(before: np.ndarray, after: np.ndarray, path: Path) -> Path:
    """Some training images uint8 (N, P, P, C) above their augmented selves."""
    from matplotlib.figure import Figure

    columns = min(8, len(before))
    figure = Figure(figsize=(1.4 * columns, 3.2), layout="constrained")
    for row, (images, title) in enumerate(((before, "as prepared"), (after, "as the network saw it"))):
        for column in range(columns):
            axes = figure.add_subplot(2, columns, row * columns + column + 1)
            axes.imshow(images[column].squeeze(), cmap="gray", vmin=0, vmax=255)
            axes.axis("off")
            if column == 0:
                axes.set_title(title, loc="left", fontsize=9)
    return _save(figure, path)


def _save(figure, path: Path) -> Path:
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=80)
    return path
