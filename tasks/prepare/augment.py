"""Balancing: how often a rare class is drawn, and, where copies are stored all the same, what they are.

Training draws originals (`tasks.train.input_pipeline`) and turns, moves and zooms each of them once. A copy
that were turned here would be resampled twice, and softer than its class's originals and all other classes:
a network learns that instead of the face. So stored copies are mirrored or not, and brighter or darker by up
to a tenth, which leaves sharpness, noise and borders as they are; `shortcuts` measures that on the files.
"""

from dataclasses import dataclass

import numpy as np

from tasks.config.prepare import Drawing

MAX_BRIGHTNESS = 0.10


@dataclass(frozen=True)
class Alterations:
    """What becomes of M images: `bases` int (M,) are the numbers of the real ones."""

    bases: np.ndarray
    mirrored: np.ndarray
    """bool (M,)"""
    brightness: np.ndarray
    """float (M,), share of the image's own mean by which all of it gets brighter"""

    def __getitem__(self, chosen: np.ndarray) -> "Alterations":
        return Alterations(self.bases[chosen], self.mirrored[chosen], self.brightness[chosen])


def drawn_of(counts: np.ndarray, drawing: Drawing) -> np.ndarray:
    """How many images an epoch draws of classes that have `counts`, int64 of the same shape."""
    wanted = drawing.target if drawing.equal else np.maximum(counts, drawing.target)
    return np.where(counts > 0, wanted, 0).astype(np.int64)


def plan(numbers: np.ndarray, labels: np.ndarray, target: int, rng: np.random.Generator) -> Alterations:
    """Alterations that fill each class among `labels` up to `target`, every real image used alike often."""
    bases = []
    for label in np.unique(labels):
        mine = numbers[labels == label]
        bases.append(np.resize(rng.permutation(mine), max(0, target - len(mine))))
    bases = np.concatenate([np.empty(0, np.int64), *bases]).astype(np.int64)
    brightness = rng.uniform(-MAX_BRIGHTNESS, MAX_BRIGHTNESS, len(bases))
    return Alterations(bases, rng.random(len(bases)) < 0.5, brightness)


def alter(images: np.ndarray, alterations: Alterations) -> np.ndarray:
    """The altered images, uint8 (M, P, P, C) as `images`.

    A whole number is added, and none by which an image would run into black or white: every difference
    between two pixels stays as it is.
    """
    turned = np.where(alterations.mirrored[:, None, None, None], images[:, :, ::-1], images)
    pixels = images.reshape(len(images), -1).astype(np.int16)
    added = np.rint(pixels.mean(axis=1) * alterations.brightness)
    added = np.clip(added, -pixels.min(axis=1), 255 - pixels.max(axis=1)).astype(np.int16)
    return (turned + added[:, None, None, None]).astype(np.uint8)
