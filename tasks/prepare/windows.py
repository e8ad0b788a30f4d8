"""Square windows of images as short whole numbers, and the cells in which like ones meet.

In: float32 (n, P, P). Out: int8 (n, W, 48): of each window the lowest frequencies of the cosine transform,
weighted and scaled to length 1, blind to brightness and contrast; times 127 and rounded, so that products of
two of them are exact whatever order a processor adds in, and a pair has one similarity tonight and for ever.

Columns that are even about the middle come first: mirroring a window turns the sign of the others.
"""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import hadamard

WIDTH = 0.75
"""An anchor's side, as a part of the image's."""
REACH = 0.125
"""Anchors lie in the middle and this part of the side from it, along both diagonals."""
ZOOMS = (0.75, 0.866, 1.0)
"""The windows' sides, as parts of the anchors': what an image shows larger, the other shows smaller."""
STEP = 1 / 12
"""Neighbouring windows lie this part of the image's side apart, times their zoom."""
SCALE = 127
_ORDERS = 7
_WEIGHT = 0.75
"""Frequencies are weighted by this power of theirs: it makes up for the little of fine detail in photos."""
_FLAT = 3.0
"""A window that deviates less, in grey levels, shows nothing to compare by."""

_ROWS, _COLUMNS = np.array([(u, v) for u in range(_ORDERS) for v in range(_ORDERS) if u + v]).T
_ORDER = np.argsort(_COLUMNS % 2, kind="stable")
_EVEN = int((_COLUMNS % 2 == 0).sum())
NUMBERS = len(_COLUMNS)
SIGNS = np.where(np.arange(NUMBERS) < _EVEN, 1, -1).astype(np.int8)
_SIDE = 32
CELLS = 2 * _SIDE * _SIDE


@dataclass(frozen=True)
class Places:
    """Where W windows lie, in parts of the image's side: middles float (W,) and sides float (W,)."""

    y: np.ndarray
    x: np.ndarray
    side: np.ndarray


def _grid(ways: list[np.ndarray], sides: list[float]) -> Places:
    middles = [np.stack(np.meshgrid(way, way, indexing="ij")).reshape(2, -1) for way in ways]
    y, x = np.concatenate(middles, axis=1)
    return Places(y, x, np.repeat(sides, [len(way) ** 2 for way in ways]))


def _ways(zoom: float) -> np.ndarray:
    steps = int((1 - WIDTH * zoom) / 2 / (STEP * zoom) + 1e-6)
    return 0.5 + STEP * zoom * np.arange(-steps, steps + 1)


_ANCHOR_WAYS = [np.array([0.5]), np.array([0.5 - REACH, 0.5 + REACH])]
_WINDOW_WAYS = [_ways(zoom) for zoom in ZOOMS]
ANCHORS = _grid(_ANCHOR_WAYS, [WIDTH, WIDTH])
WINDOWS = _grid(_WINDOW_WAYS, [WIDTH * zoom for zoom in ZOOMS])


def describe_anchors(grey: np.ndarray) -> np.ndarray:
    """Of float32 (n, P, P) the windows at ANCHORS, int8 (n, 5, 48)."""
    return _describe(grey, _ANCHOR_WAYS, [WIDTH, WIDTH])


def describe_windows(grey: np.ndarray) -> np.ndarray:
    """Of float32 (n, P, P) the windows at WINDOWS, int8 (n, W, 48)."""
    return _describe(grey, _WINDOW_WAYS, [WIDTH * zoom for zoom in ZOOMS])


def _describe(grey: np.ndarray, ways: list[np.ndarray], sides: list[float]) -> np.ndarray:
    found = []
    for way, side in zip(ways, sides, strict=True):
        waves = np.concatenate([_waves(middle, side, grey.shape[1]) for middle in way])
        spectra = (waves @ grey @ waves.T).reshape(len(grey), len(way), _ORDERS, len(way), _ORDERS)
        spectra = spectra.transpose(0, 1, 3, 2, 4).reshape(len(grey), len(way) ** 2, _ORDERS**2)
        found.append(spectra[:, :, (_ROWS * _ORDERS + _COLUMNS)[_ORDER]])
    vectors = np.concatenate(found, axis=1)
    flat = np.square(vectors).sum(axis=2, keepdims=True) < _FLAT**2
    vectors *= (np.hypot(_ROWS, _COLUMNS) ** _WEIGHT)[_ORDER].astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True) + 1e-6
    return np.rint(np.where(flat, 0, vectors) * SCALE).astype(np.int8)


def _waves(middle: float, side: float, px: int) -> np.ndarray:
    """Means over each pixel's part of a window of cosines of 0 to 6 half waves, float32 (7, px)."""
    edges = (np.arange(px + 1) / px - middle) / side + 0.5
    edges, order = edges.clip(0, 1), np.arange(1, _ORDERS)[:, None] * np.pi
    waves = np.sqrt(2) * np.diff(np.sin(order * edges)) / order
    return np.concatenate([np.diff(edges)[None], waves]).astype(np.float32)


def _turns() -> tuple[np.ndarray, np.ndarray]:
    """Fixed turns of the even and of the odd numbers to 32 axes each, all whole numbers."""
    rng = np.random.default_rng(1)
    whole = hadamard(_SIDE).astype(np.float32)
    even, odd = (whole[rng.permutation(_SIDE)[:count]] for count in (_EVEN, NUMBERS - _EVEN))
    return even * rng.choice([-1, 1], (len(even), 1)), odd * rng.choice([-1, 1], (len(odd), 1))


_TURN_EVEN, _TURN_ODD = (turn.astype(np.float32) for turn in _turns())


def _turned(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    wide = vectors.astype(np.float32)
    return wide[:, :_EVEN] @ _TURN_EVEN, wide[:, _EVEN:] @ _TURN_ODD


def cells_of(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of int8 (n, 48) the cell that each falls into, int16 (n,), and whether it does mirrored, bool (n,).

    A cell is the axis on which a vector reaches furthest, of the even numbers with its sign, of the odd ones
    without: of a window and its mirror image one falls into a cell (Andoni et al., 2015, cross-polytopes).
    """
    even, odd = _turned(vectors)
    first, second = np.abs(even).argmax(axis=1), np.abs(odd).argmax(axis=1)
    rows = np.arange(len(vectors))
    cells = (2 * first + (even[rows, first] < 0)) * _SIDE + second
    return cells.astype(np.int16), odd[rows, second] < 0


def nearest_cells(vectors: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Of int8 (n, 48) the `count` cells that like ones are likeliest in, as `cells_of`, (n, count) each."""
    even, odd = _turned(vectors)
    near = 12
    signed = np.concatenate([even, -even], axis=1)
    first = np.argpartition(-signed, near, axis=1)[:, :near]
    second = np.argpartition(-np.abs(odd), near, axis=1)[:, :near]
    reach = (
        np.take_along_axis(signed, first, 1)[:, :, None] + np.abs(np.take_along_axis(odd, second, 1))[:, None]
    )
    best = np.argpartition(-reach.reshape(len(vectors), -1), count, axis=1)[:, :count]
    rows, columns = np.divmod(best, near)
    rows, columns = np.take_along_axis(first, rows, 1), np.take_along_axis(second, columns, 1)
    cells = (2 * (rows % _SIDE) + rows // _SIDE) * _SIDE + columns
    return cells.astype(np.int16), np.take_along_axis(odd, columns, 1) < 0
