"""Looking for twins across the finished splits in another way than the search that made the groups.

In: the three NPZ files. Out: how many of a random sample of test images have a twin in train or val, and the
share of all test images that may have one, with 95 % confidence.

Every image of train and val is looked at, none is ruled out: the middle two thirds of a test image, at 8 by
8, plain and mirrored, are laid over windows of five ninths to five sixths of their sides. What correlates
there is compared at full resolution: the middle, enlarged and reduced, moved over the place, must correlate
as it is, and in its detail, because two people lit from one side do so as they are. The search has other
windows, bands, cells and verdict. It sees moves by an eighth of the side, zooms from 0.8 to 1.2.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from tasks.bounds import share_at_most
from tasks.config.prepare import SPLITS
from tasks.prepare.pixels import to_grey
from tasks.prepare.splits import SplitName, load_split
from tasks.prepare.threads import Pool
from tasks.prepare.verdict import averages

SAMPLE = 1000
"""Test images looked at: none found bounds the share of twins at 0.3 %, one at 0.5 %."""
_ALIKE, _ALIKE_IN_DETAIL = 0.93, 0.7
_MIDDLE = 2 / 3
_SIDES = (5 / 9, 2 / 3, 5 / 6)
_STEP = 1 / 16
_REACH = 1 / 8
_GRID = 8
_FINE = 32
_MARGIN = 4
_ZOOMS = (0.9, 0.95, 1.0, 1.05, 1.1)
_DETAIL = 1.5
_CHUNK = 64
_SMALL = 1e-6


@dataclass(frozen=True)
class _Found:
    """Where a test image's middle may lie in another: the window's middle and side, in parts of the side."""

    test: int
    split: SplitName
    other: int
    mirrored: bool
    y: float
    x: float
    side: float


def look_again(directory: Path, seed: int, pool: Pool) -> dict[str, object]:
    """What a second look finds in the written files, for metadata.json."""
    grey, ids, count = _sample(directory, seed)
    twins = {one.test for one in _alike(directory, grey, pool) if _is_twin(directory, grey[one.test], one)}
    return {
        "method": "middle of the image at 8x8 over windows of all of train and val, then at full resolution",
        "test_images": len(ids),
        "of": count,
        "distinct_images_compared_with": sum(len(_distinct(directory, name)) for name in SPLITS[:2]),
        "with_a_twin": len(twins),
        "share": len(twins) / max(len(ids), 1),
        "ids": [ids[number].decode() for number in sorted(twins)],
        "share_at_most": share_at_most(len(twins), len(ids)),
        "confidence": 0.95,
    }


def _sample(directory: Path, seed: int) -> tuple[np.ndarray, list[bytes], int]:
    """Grey test images float32 (n, P, P), their ids, and of how many.

    The file is mapped anew for each few images, to bound memory.
    """
    test = load_split(directory, "test")
    count = len(test.labels)
    chosen = np.sort(np.random.default_rng(seed).permutation(count)[:SAMPLE])
    parts = [chosen[start : start + _CHUNK] for start in range(0, len(chosen), _CHUNK)]
    grey = [to_grey(load_split(directory, "test").images[part]) for part in parts]
    none = np.empty((0, *test.images.shape[1:3]), np.float32)
    return np.concatenate([none, *grey]), test.ids[chosen].tolist(), count


def _windows() -> list[tuple[float, float, float]]:
    """(y, x, side) of all windows, in parts of the image's side."""
    found = []
    for side in _SIDES:
        reach = min(_REACH, (1 - side) / 2)
        way = 0.5 + _STEP * np.arange(-int(reach / _STEP), int(reach / _STEP) + 1)
        found += [(float(y), float(x), side) for y in way for x in way]
    return found


def _sampling(middle: float, side: float, grid: int, px: int) -> np.ndarray:
    return averages(np.array([[middle - side / 2, middle + side / 2]]), grid, px)[0]


def _normal(vectors: np.ndarray) -> np.ndarray:
    vectors = vectors - vectors.mean(axis=-1, keepdims=True)
    return vectors / (np.linalg.norm(vectors, axis=-1, keepdims=True) + np.float32(_SMALL))


def _described(grey: np.ndarray, windows: list[tuple[float, float, float]]) -> np.ndarray:
    """Windows at 8 by 8, mean 0 and length 1, float32 (W, n, 64)."""
    px = grey.shape[1]
    looks = [_sampling(y, side, _GRID, px) @ grey @ _sampling(x, side, _GRID, px).T for y, x, side in windows]
    return _normal(np.stack(looks).reshape(len(windows), len(grey), _GRID**2))


def _alike(directory: Path, grey: np.ndarray, pool: Pool) -> Iterator[_Found]:
    """The best place of each pair of a test image and another that are alike at low resolution."""
    middles = [_described(look, [(0.5, 0.5, _MIDDLE)])[0] for look in (grey, grey[:, :, ::-1])]
    wanted, windows = np.concatenate(middles), _windows()

    def look(part: tuple[SplitName, np.ndarray]) -> list[_Found]:
        split, numbers = part
        described = _described(to_grey(load_split(directory, split).images[numbers]), windows)
        best = np.full((len(wanted), len(numbers)), _ALIKE, np.float32)
        place = np.full(best.shape, -1, np.int16)
        for number, window in enumerate(described):
            alike = wanted @ window.T
            better = alike > best
            if better.any():
                best[better], place[better] = alike[better], number
        return [
            _Found(
                row % len(grey), split, int(numbers[column]), row >= len(grey), *windows[place[row, column]]
            )
            for row, column in np.argwhere(place >= 0).tolist()
        ]

    for found in pool.in_order(look, _parts(directory)):
        yield from found


def _distinct(directory: Path, name: SplitName) -> np.ndarray:
    """Places of a split's images, of copies one."""
    split = load_split(directory, name)
    real = np.flatnonzero(~split.augmented)
    return np.sort(real[np.unique(split.digests[real], return_index=True)[1]])


def _parts(directory: Path) -> Iterator[tuple[SplitName, np.ndarray]]:
    for name in SPLITS[:2]:
        real = _distinct(directory, name)
        for start in range(0, len(real), _CHUNK):
            yield name, real[start : start + _CHUNK]


def _is_twin(directory: Path, image: np.ndarray, found: _Found) -> bool:
    """Whether the middle of a test image float32 (P, P), at full resolution, lies where it seems to."""
    other = to_grey(load_split(directory, found.split).images[found.other : found.other + 1])[0]
    image = image[:, ::-1] if found.mirrored else image
    middle = _sampling(0.5, _MIDDLE, _FINE, len(image))
    wanted = middle @ image @ middle.T
    return any(_fits(wanted, other, found, zoom) for zoom in _ZOOMS)


def _fits(wanted: np.ndarray, other: np.ndarray, found: _Found, zoom: float) -> bool:
    side, grid = found.side * zoom * (_FINE + 2 * _MARGIN) / _FINE, _FINE + 2 * _MARGIN
    rows, columns = (_sampling(middle, side, grid, len(other)) for middle in (found.y, found.x))
    around = rows @ other @ columns.T
    places = sliding_window_view(around, (_FINE, _FINE)).reshape(-1, _FINE, _FINE)
    alike = _correlation(wanted, places)
    best = int(alike.argmax())
    return (
        alike[best] > _ALIKE
        and _correlation(_detail(wanted), _detail(places[best])[None])[0] > _ALIKE_IN_DETAIL
    )


def _correlation(wanted: np.ndarray, places: np.ndarray) -> np.ndarray:
    return _normal(places.reshape(len(places), -1)) @ _normal(wanted.ravel())


def _detail(look: np.ndarray) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    return look - gaussian_filter(look, _DETAIL)
