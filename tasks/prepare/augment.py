"""Balancing by augmentation: small classes of the training split are filled up with altered images.

In: real images uint8 (n, P, P, C). Out: as many altered ones: turned by up to 15 degrees, shifted by up to
10 % of the side, zoomed by up to 5 %, mirrored, brightness times 0.9 to 1.1. What moves in from outside
repeats the edge. Which image is altered how is drawn beforehand, so that chunks may be made in any order.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from tasks.prepare.threads import Pool

MAX_DEGREES, MAX_SHIFT, MAX_ZOOM, MAX_BRIGHTNESS = 15.0, 0.10, 0.05, 0.10


@dataclass(frozen=True)
class Alterations:
    """What becomes of M images: `bases` int (M,) are the numbers of the real ones."""

    bases: np.ndarray
    matrices: np.ndarray
    """float (M, 2, 3): output place → input place, in sides of the image, around its centre."""
    brightness: np.ndarray

    def __getitem__(self, chosen: np.ndarray) -> "Alterations":
        return Alterations(self.bases[chosen], self.matrices[chosen], self.brightness[chosen])


def plan(numbers: np.ndarray, labels: np.ndarray, target: int, rng: np.random.Generator) -> Alterations:
    """Alterations that fill each class among `labels` up to `target`, every real image used alike often."""
    bases = []
    for label in np.unique(labels):
        mine = numbers[labels == label]
        bases.append(np.resize(rng.permutation(mine), max(0, target - len(mine))))
    bases = np.concatenate([np.empty(0, np.int64), *bases]).astype(np.int64)
    return Alterations(bases, _matrices(len(bases), rng), 1 + rng.uniform(-1, 1, len(bases)) * MAX_BRIGHTNESS)


def _matrices(count: int, rng: np.random.Generator) -> np.ndarray:
    angle = np.radians(rng.uniform(-MAX_DEGREES, MAX_DEGREES, count))
    zoom = 1 + rng.uniform(-MAX_ZOOM, MAX_ZOOM, count)
    mirror = rng.choice([-1.0, 1.0], count)
    shift = rng.uniform(-MAX_SHIFT, MAX_SHIFT, (count, 2))
    cos, sin = np.cos(angle) / zoom, np.sin(angle) / zoom
    rows = [[mirror * cos, mirror * sin, shift[:, 0]], [-sin, cos, shift[:, 1]]]
    return np.moveaxis(np.array(rows), -1, 0)


def alter(images: np.ndarray, alterations: Alterations, pool: Pool) -> np.ndarray:
    """The altered images, uint8 of the same shape."""
    px = images.shape[1]
    margin = px // 2
    edges = ((0, 0), (margin, margin), (margin, margin), (0, 0))
    padded = np.pad(images, edges, mode="edge")
    turned = pool.map(lambda pair: _turn(*pair, px, margin), zip(padded, alterations.matrices, strict=True))
    stacked = np.array(list(turned), np.float32).reshape(images.shape)
    bright = stacked * alterations.brightness.astype(np.float32)[:, None, None, None]
    return np.clip(np.rint(bright), 0, 255).astype(np.uint8)


def _turn(image: np.ndarray, matrix: np.ndarray, px: int, margin: int) -> np.ndarray:
    """PIL maps output pixels to input pixels: move the origin to the centre, there and back."""
    (a, b, c), (d, e, f) = matrix
    half = px / 2
    x = margin + half + c * px - (a + b) * half
    y = margin + half + f * px - (d + e) * half
    source = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    return np.asarray(
        source.transform((px, px), Image.Transform.AFFINE, (a, b, x, d, e, y), Image.Resampling.BILINEAR)
    )
