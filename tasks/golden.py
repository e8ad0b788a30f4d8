"""The golden set: inputs that no person is in, chosen so that they exercise all of a model's outputs.

In: the size of the model's input, and what it answers to each candidate. Out: candidates uint8 (N, P, P, C),
and the numbers of those to keep. A release goes to every device, so its golden set shows drawn faces, altered
ones, noise, gradients and extremes, never an image of the data set.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tasks.synthetic import draw_faces

_SEED = 48_271
"""Not one of the small numbers that data sets of drawn faces are made with."""
_FACES_PER_CLASS = 40
_OTHERS = 60
_DRAWN_PX = 64
"""Larger faces are drawn at this size and enlarged: drawing takes the longest."""

Pictures = NDArray[np.uint8]


def draw_candidates(px: int, channels: int, batch: int = 0) -> tuple[Pictures, int]:
    """Candidates uint8 (N, P, P, C), and how many of them, the first ones, are faces.

    Another `batch` gives others, the same one always the same.
    """
    rng = np.random.default_rng([_SEED, batch])
    drawn = draw_faces(_FACES_PER_CLASS, _SEED + batch, min(px, _DRAWN_PX))[0]
    faces = np.stack([_enlarged(face, px) for face in drawn[..., 0]])
    grey = np.stack([*faces, *_altered(faces, rng), *_patterns(px, rng)])[..., None]
    # what colour there is must differ between the channels, or a mixed-up order would not show
    tint = rng.uniform(0.7, 1.3, (len(grey), 1, 1, channels)) if channels > 1 else 1.0
    return np.clip(grey * tint, 0, 255).astype(np.uint8), len(faces)


def _altered(faces: NDArray[np.float32], rng: np.random.Generator) -> Iterator[NDArray[np.float32]]:
    """Faces (P, P) upside down, inverted, of other contrast and brightness, blurred, cut in half."""
    for face in faces[:: max(1, len(faces) // _OTHERS)]:
        yield face[::-1]
        yield 255 - face
        yield (face - face.mean()) * rng.uniform(0.2, 3) + rng.uniform(30, 225)
        yield _enlarged(face[:: rng.integers(3, 9), :: rng.integers(3, 9)], len(face))
        yield np.roll(face, rng.integers(len(face)), axis=rng.integers(2))


def _patterns(px: int, rng: np.random.Generator) -> Iterator[NDArray[np.float32]]:
    """Black, white, greys; stripes, checks and gradients; noise of many grains and strengths, all (P, P)."""
    rows, columns = np.mgrid[:px, :px].astype(np.float32) / px
    for grey in np.linspace(0, 255, 9):
        yield np.full((px, px), grey, np.float32)
    for _ in range(_OTHERS):
        across, down = rng.normal(0, 1, 2)
        ramp = across * columns + down * rows
        yield 255 * (ramp - ramp.min()) / np.ptp(ramp)
        yield 127.5 + 127.5 * np.sign(np.sin(2 * np.pi * rng.uniform(0.5, 6) * ramp))
        coarse = rng.normal(0, 1, (int(rng.integers(2, px + 1)),) * 2)
        yield rng.uniform(0, 255) + rng.uniform(5, 120) * _enlarged(coarse.astype(np.float32), px)


def _enlarged(small: NDArray[np.generic], px: int) -> NDArray[np.float32]:
    image = Image.fromarray(small.astype(np.float32))
    return np.asarray(image if image.size == (px, px) else image.resize((px, px), Image.Resampling.BICUBIC))


def classes_on_top(outputs: Pictures) -> int:
    """How many classes are the largest of the outputs uint8 (N, classes) at least once."""
    return len(np.unique(outputs.argmax(1)))


def spread(outputs: Pictures, faces: int, count: int) -> NDArray[np.int64]:
    """At most `count` of N candidates whose outputs uint8 (N, classes) differ most from each other, in order.

    First for each class the candidate that is surest of it; then, until half are faces (the first `faces`
    candidates), the face that is farthest from all chosen, then whatever is farthest.
    """
    answers = outputs.astype(np.int64)
    margins = _margins(answers)
    tops = answers.argmax(1)
    chosen = [int(np.where(tops == top, margins, -1).argmax()) for top in np.unique(tops)][:count]
    nearest = np.min([_distances(answers, one) for one in chosen], axis=0)
    while len(chosen) < min(count, len(answers)):
        drawn = sum(one < faces for one in chosen)
        pool = nearest[:faces] if 2 * drawn < count and nearest[:faces].max() >= 0 else nearest
        chosen.append(int(pool.argmax()))
        nearest = np.minimum(nearest, _distances(answers, chosen[-1]))
    return np.sort(np.array(chosen))


def _margins(answers: NDArray[np.int64]) -> NDArray[np.int64]:
    """By how much the largest answer of each row exceeds the second, (N,)."""
    ordered = np.sort(answers, axis=1)
    return ordered[:, -1] - ordered[:, -2]


def _distances(answers: NDArray[np.int64], one: int) -> NDArray[np.int64]:
    """From each row to one of them, (N,); -1 for itself, so that it is not chosen twice."""
    distances = np.abs(answers - answers[one]).sum(1)
    distances[one] = -1
    return distances
