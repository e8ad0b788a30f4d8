"""Do two images show one photo? The verdict on a pair, once it is known roughly how they lie to each other.

In: float32 (n, P, P) twice, and maps float64 (n, 2, 2): for rows and for columns (scale, start): a place p of
the first, in parts of its side, lies at scale · p + start in the second; mirrored, the columns' scale is
negative. Out: float32 (n,), -1 to 1.

What both show is laid over each other, first on a rough grid, at five zooms and shifts by up to an eighth,
then by steps of Gauss and Newton (Lucas and Kanade, 1981) on the ends of rows and columns. Of both, only
detail counts that is smaller than a fifth, then a tenth of what they share: no light and shade. The likeness
is the median correlation of 16 parts: a watermark or a line of text spoils some, two people differ in all.
A border of one grey is no part of what is seen.
"""

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

_ROUGH, _FINE = (16, 0.2), (28, 0.1)
"""Grid, and the deviation of the blur that is taken off, as a part of it."""
_ROUGH_BOUND, _PARTS_BOUND = 0.78, 0.75
"""What is less alike on the rough grid, as a whole and by parts, is not one photo."""
_SHIFTS = 2
_ZOOMS = np.array([0.9, 0.95, 1.0, 1.05, 1.1])
_STEPS = 2
_LONGEST_STEP = 1.5
_DAMPING = 1e-3
_WIDEST_BORDER, _ONE_GREY = 1 / 6, 12.0
"""A border is at most that part of the side wide, its grey levels at most that far apart."""
_WEAK = 0.3
_PARTS = 4
_FLAT = 1e-3
"""Of the detail of both, a part with no more than this share shows nothing, and can't be alike."""
_SMALL = 1e-3

SAME_PLACE = ((1.0, 0.0), (1.0, 0.0))
"""The map of a frame on the next one."""


@dataclass(frozen=True)
class _Pairs:
    """Two images each, and the parts of them within their borders (`_inside`)."""

    first: np.ndarray
    second: np.ndarray
    first_inside: np.ndarray
    second_inside: np.ndarray

    def __getitem__(self, chosen: np.ndarray) -> "_Pairs":
        return _Pairs(*(column[chosen] for column in vars(self).values()))


@dataclass(frozen=True)
class _Overlay:
    """What both images of n pairs show, on a grid of `grid` by `grid`."""

    second: np.ndarray
    ends: np.ndarray
    """(n, 2, 2): first and last end of rows and of columns, in the first image."""
    look: np.ndarray
    """The first image there, float32 (n, grid, grid): less its blur, mean 0, length 1."""
    grid: int
    blur: float

    def at(self, maps: np.ndarray) -> np.ndarray:
        """The second image where the maps say that it shows the same, treated alike."""
        ends = maps[:, :, :1] * self.ends + maps[:, :, 1:]
        return _detail(_sample(self.second, ends, self.grid), self.blur)


def _overlay(pairs: _Pairs, maps: np.ndarray, grid: int, blur: float) -> _Overlay:
    seen = np.sort((pairs.second_inside - maps[:, :, 1:]) / maps[:, :, :1], axis=2)
    inside = pairs.first_inside
    ends = np.minimum(np.maximum(seen, inside[:, :, :1]), inside[:, :, 1:])
    return _Overlay(pairs.second, ends, _detail(_sample(pairs.first, ends, grid), blur), grid, blur)


def _inside(images: np.ndarray) -> np.ndarray:
    """Both ends of the rows and columns within a border of one grey, in parts of the side, (n, 2, 2)."""
    px, box = images.shape[1], []
    widest = int(_WIDEST_BORDER * px)
    for axis in (2, 1):
        shown = images.max(axis=axis) - images.min(axis=axis) > _ONE_GREY
        first, last = shown.argmax(axis=1), shown[:, ::-1].argmax(axis=1)
        box.append(np.stack([np.minimum(first, widest), px - np.minimum(last, widest)], axis=1) / px)
    return np.stack(box, axis=1)


def _sample(images: np.ndarray, ends: np.ndarray, grid: int) -> np.ndarray:
    """Area averages between the ends (n, 2, 2) of rows and columns, float32 (n, grid, grid)."""
    rows, columns = (averages(ends[:, axis], grid, images.shape[1]) for axis in (0, 1))
    return rows @ images @ columns.transpose(0, 2, 1)


def averages(ends: np.ndarray, grid: int, px: int) -> np.ndarray:
    """Weights of `px` pixels in each of `grid` equal steps between ends (n, 2), float32 (n, grid, px)."""
    edges = ends[:, :1] + (ends[:, 1:] - ends[:, :1]) * np.linspace(0, 1, grid + 1)
    edges = (edges * px).astype(np.float32)
    low, high = np.minimum(edges[:, :-1], edges[:, 1:]), np.maximum(edges[:, :-1], edges[:, 1:])
    pixels = np.arange(px, dtype=np.float32)
    weights = np.minimum(high[:, :, None], pixels + 1)
    weights -= np.maximum(low[:, :, None], pixels)
    np.maximum(weights, 0, out=weights)
    weights /= (high - low)[:, :, None] + np.float32(1e-6)
    return weights


def _detail(looks: np.ndarray, blur: float) -> np.ndarray:
    places = np.arange(looks.shape[1])
    weights = np.exp(-0.5 * ((places[:, None] - places) / (blur * len(places))) ** 2)
    weights = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    looks = looks - weights @ looks @ weights.T
    return _normal(looks.reshape(len(looks), len(places) ** 2)).reshape(looks.shape)


def _normal(vectors: np.ndarray) -> np.ndarray:
    """Mean 0 and length 1 along the last axis; next to nothing stays next to nothing."""
    vectors = vectors - vectors.mean(axis=-1, keepdims=True)
    return vectors / (np.sqrt(np.square(vectors).sum(axis=-1, keepdims=True)) + np.float32(_SMALL))


def likeness(first: np.ndarray, second: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """How alike pairs are where they show the same, float32 (n,)."""
    pairs = _Pairs(first, second, _inside(first), _inside(second))
    overlay = _overlay(pairs, maps, *_ROUGH)
    found, maps = _search(overlay, maps)
    found = np.minimum(found, _ROUGH_BOUND)
    left = found >= _ROUGH_BOUND
    for way, bound in ((_ROUGH, _PARTS_BOUND), (_FINE, 1.0)):
        if not left.any():
            break
        some, nearer = pairs[left], maps[left]
        for _ in range(_STEPS):
            nearer = _approach(_overlay(some, nearer, *way), nearer)
        overlay = _overlay(some, nearer, *way)
        found[left] = np.minimum(_by_parts(overlay.look, overlay.at(nearer)), bound)
        maps[left] = nearer
        left = left & (found >= bound)
    return found


def _search(overlay: _Overlay, maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The best of some zooms and shifts: how alike the pairs are there, float32 (n,), and the maps of it."""
    grid, inner = overlay.grid, overlay.grid - 2 * _SHIFTS
    middles = np.stack([_middle(grid, inner, zoom) for zoom in _ZOOMS])
    wanted = _normal(
        (middles @ overlay.look[:, None] @ middles.transpose(0, 2, 1)).reshape(len(maps), len(_ZOOMS), -1)
    )
    windows = sliding_window_view(overlay.at(maps), (inner, inner), axis=(1, 2))
    windows = _normal(windows.reshape(len(maps), -1, inner * inner))
    alike = (wanted @ windows.transpose(0, 2, 1)).reshape(len(maps), -1)
    best = alike.argmax(axis=1)
    zoom, *shift = np.unravel_index(best, (len(_ZOOMS), 2 * _SHIFTS + 1, 2 * _SHIFTS + 1))
    half = grid / 2 * (_ZOOMS[zoom] - 1)
    moves = [np.stack([move - _SHIFTS - half, move - _SHIFTS + half], axis=1) for move in shift]
    return alike[np.arange(len(maps)), best], _moved(overlay, maps, np.stack(moves, axis=1))


def _middle(grid: int, inner: int, zoom: float) -> np.ndarray:
    """Averages that enlarge the middle of a grid, float32 (inner, grid)."""
    half = inner / 2 / zoom / grid
    return averages(np.array([[0.5 - half, 0.5 + half]]), inner, grid)[0]


def _moved(overlay: _Overlay, maps: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """The maps once the ends in the second image have moved by so many steps of the grid, (n, 2, 2)."""
    ends = maps[:, :, :1] * overlay.ends + maps[:, :, 1:]
    ends = ends + moves * (ends[:, :, 1:] - ends[:, :, :1]) / overlay.grid
    lengths = overlay.ends[:, :, 1] - overlay.ends[:, :, 0]
    scale = (ends[:, :, 1] - ends[:, :, 0]) / lengths
    return np.stack([scale, ends[:, :, 0] - scale * overlay.ends[:, :, 0]], axis=2)


def _approach(overlay: _Overlay, maps: np.ndarray) -> np.ndarray:
    """Maps by which the pairs are more alike, by a step of least squares on where the four ends lie."""
    count, way = len(maps), (np.arange(overlay.grid, dtype=np.float32) + 0.5) / overlay.grid
    look = overlay.at(maps)
    down, right = np.zeros_like(look), np.zeros_like(look)
    down[:, 1:-1] = (look[:, 2:] - look[:, :-2]) / 2
    right[:, :, 1:-1] = (look[:, :, 2:] - look[:, :, :-2]) / 2
    slopes = np.stack(
        [down * (1 - way)[:, None], down * way[:, None], right * (1 - way), right * way], axis=1
    )
    slopes, look = slopes.reshape(count, 4, overlay.grid**2), look.reshape(count, 1, overlay.grid**2)
    slopes -= (slopes @ look.transpose(0, 2, 1)) * look  # what the scaling to length 1 takes back
    wanted = overlay.look.reshape(count, overlay.grid**2, 1)
    alike = look @ wanted
    missing = (wanted - alike * look.transpose(0, 2, 1)) / np.maximum(alike, _WEAK)
    normal = slopes @ slopes.transpose(0, 2, 1)
    trace = np.trace(normal, axis1=1, axis2=2)[:, None, None]
    normal += (_DAMPING * trace + np.float32(_SMALL**2)) * np.eye(4, dtype=np.float32)
    moves = np.linalg.solve(normal, slopes @ missing).clip(-_LONGEST_STEP, _LONGEST_STEP)
    return _moved(overlay, maps, moves.reshape(count, 2, 2))


def _by_parts(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The median of the correlations of 16 parts, float32 (n,)."""
    shape = (len(first), _PARTS, first.shape[1] // _PARTS, _PARTS, first.shape[1] // _PARTS)
    parts = [
        look.reshape(shape).swapaxes(2, 3).reshape(len(look), _PARTS**2, shape[2] ** 2)
        for look in (first, second)
    ]
    a, b = (part - part.mean(axis=2, keepdims=True) for part in parts)
    power = np.square(a).sum(axis=2) * np.square(b).sum(axis=2)
    return np.median((a * b).sum(axis=2) / (np.sqrt(power) + np.float32(_FLAT)), axis=1)
