"""Images that show one photo: exact copies by hash, and whatever is a crop of the same picture.

In: distinct images uint8 (N, P, P, C). Out: pairs of them and how they lie to each other.

FER-2013 holds many photos several times: moved by up to a quarter of the side, enlarged or reduced by a
third, mirrored, brightened, encoded again, with another watermark or border. Two steps:
 1. candidates: an anchor, three quarters of one image, is like a window of the other (`windows`). Anchors
    wait in the cells in which their likes are likeliest, and are compared with the windows that fall there;
 2. the verdict on each (`verdict`): laid over each other, detail must correlate part by part.

Whether two images are one photo depends on these two alone, on no other image: so what is known of
yesterday's images holds today (`known`), and no group falls apart because others join.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from tasks.prepare.pixels import CHUNK, PixelFile, to_grey
from tasks.prepare.threads import Pool
from tasks.prepare.verdict import averages, likeness
from tasks.prepare.windows import (
    ANCHORS,
    CELLS,
    NUMBERS,
    SCALE,
    SIGNS,
    WIDTH,
    WINDOWS,
    cells_of,
    describe_anchors,
    describe_windows,
    nearest_cells,
)

ALIKE = 0.83
"""An anchor and a window this alike are a hit: 1 in 1,000 pairs of two people have one."""
_CLEARLY_ALIKE = 0.87
"""What has one hit alone must be this alike."""
_LOOKED_AT_PX = 48
_CELLS_EACH = 32
_ANCHORED = 12_000
"""Images whose anchors wait in memory at once, at most."""
_WINDOWED = 4096
"""Images whose windows are sorted into cells at once."""
_CELLS_AT_ONCE = 64
_ROWS, _COLUMNS = 512, 2048
"""Windows and anchors compared at once, so few that the processor's cache holds them."""
_COMPARED = 96
_PER_ANCHOR, _PER_IMAGE = len(WINDOWS.side), len(ANCHORS.side)


@dataclass(frozen=True)
class Hits:
    """Pairs of images, k of them: the best hit of each and how many there were."""

    keys: np.ndarray
    """int64 (k,), increasing: the smaller number times N, plus the larger."""
    scores: np.ndarray
    """int32 (k,): similarity times SCALE²."""
    counts: np.ndarray
    ways: np.ndarray
    """int32 (k,): window, anchor, mirrored and whether the anchor is the larger number's, as one number."""


def _best(parts: list[Hits]) -> Hits:
    """All parts as one, a pair once."""
    columns = [[np.empty(0, kind)] for kind in (np.int64, np.int32, np.int32, np.int32)]
    for column, name in zip(columns, ("keys", "scores", "counts", "ways"), strict=True):
        column += [getattr(part, name) for part in parts]
    keys, scores, counts, ways = map(np.concatenate, columns)
    order = np.lexsort((ways, -scores, keys))
    keys, counts = keys[order], counts[order]
    first = np.flatnonzero(np.diff(keys, prepend=-1))
    counts = np.add.reduceat(counts, first, dtype=np.int32) if len(first) else counts
    return Hits(keys[first], scores[order[first]], counts, ways[order[first]])


@dataclass(frozen=True)
class _Table:
    """Anchors of some images, as they are and mirrored, by the cells they wait in."""

    images: np.ndarray
    vectors: np.ndarray
    """int8 (2 · anchors, 48)"""
    entries: np.ndarray
    """int32, sorted by cell: rows of `vectors`."""
    starts: np.ndarray

    def cell(self, number: int) -> np.ndarray:
        return self.entries[self.starts[number] : self.starts[number + 1]]


def candidates(
    pixels: PixelFile, numbers: np.ndarray, new: np.ndarray, pool: Pool
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (k, 2) of places in `numbers` that may be one photo, at least one `new` (bool), and their maps.

    Maps (k, 2, 2): see `verdict`; the pair's first image is the one with the anchor.
    """
    everyone, fresh = np.arange(len(numbers)), np.flatnonzero(new)
    found: list[Hits] = []
    for anchored, windowed in ((everyone, fresh), (fresh, np.flatnonzero(~new))):
        parts = np.array_split(anchored, 1 + len(anchored) // _ANCHORED)
        for part in parts if len(anchored) and len(windowed) else ():
            found.append(_best(list(_hits(pixels, numbers, part, windowed, pool))))
    hits = _best(found)
    likely = (hits.counts > 1) | (hits.scores > _CLEARLY_ALIKE * SCALE**2)
    return _placed(hits.keys[likely], hits.ways[likely], len(numbers))


def _hits(
    pixels: PixelFile, numbers: np.ndarray, anchored: np.ndarray, windowed: np.ndarray, pool: Pool
) -> Iterator[Hits]:
    table = _table(pixels, numbers, anchored, pool)
    for start in range(0, len(windowed), _WINDOWED):
        yield _meet(table, pixels, numbers, windowed[start : start + _WINDOWED], pool)


def _meet(table: _Table, pixels: PixelFile, numbers: np.ndarray, images: np.ndarray, pool: Pool) -> Hits:
    vectors, cells, mirrored = _described(pixels, numbers[images], describe_windows, cells_of, pool)
    order = np.argsort(cells, kind="stable")
    starts = np.searchsorted(cells[order], np.arange(CELLS + 1))

    def look(first: int) -> Hits:
        met = [
            _meet_in_cell(table, cell, vectors, order[starts[cell] : starts[cell + 1]], mirrored)
            for cell in range(first, first + _CELLS_AT_ONCE)
        ]
        return _as_hits(np.concatenate(met, axis=1), table.images, images, len(numbers))

    return _best(list(pool.in_order(look, range(0, CELLS, _CELLS_AT_ONCE))))


def _described(
    pixels: PixelFile,
    numbers: np.ndarray,
    describe: Callable[[np.ndarray], np.ndarray],
    into_cells: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
    pool: Pool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vectors of all images, one after the other, their cells, and whether they are mirrored there."""

    def work(start: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        vectors = describe(looks(pixels, numbers[start : start + CHUNK])).reshape(-1, NUMBERS)
        return vectors, *into_cells(vectors)

    vectors, cells, mirrored = zip(*pool.in_order(work, range(0, len(numbers), CHUNK)), strict=True)
    return np.concatenate(vectors), np.concatenate(cells), np.concatenate(mirrored)


def _table(pixels: PixelFile, numbers: np.ndarray, anchored: np.ndarray, pool: Pool) -> _Table:
    def into_cells(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return nearest_cells(vectors, _CELLS_EACH)

    vectors, cells, mirrored = _described(pixels, numbers[anchored], describe_anchors, into_cells, pool)
    order = np.argsort(cells.ravel(), kind="stable").astype(np.int32)
    starts = np.searchsorted(cells.ravel()[order], np.arange(CELLS + 1))
    entries = order // _CELLS_EACH * 2 + mirrored.ravel()[order]
    both = np.stack([vectors, vectors * SIGNS], axis=1).reshape(-1, NUMBERS)
    return _Table(anchored, both, entries, starts)


def _meet_in_cell(
    table: _Table, cell: int, vectors: np.ndarray, mine: np.ndarray, mirrored: np.ndarray
) -> np.ndarray:
    """Hits in a cell, int32 (4, h): window, anchor, mirrored, score. `mine` are the windows in it."""
    waiting, hits = table.cell(cell), [np.empty((4, 0), np.int32)]
    for start in range(0, len(mine), _ROWS):
        rows = mine[start : start + _ROWS]
        seen = vectors[rows].astype(np.float32)
        seen[mirrored[rows]] *= SIGNS
        for left in range(0, len(waiting), _COLUMNS):
            columns = waiting[left : left + _COLUMNS]
            products = seen @ table.vectors[columns].astype(np.float32).T
            below, right = np.divmod(np.flatnonzero(products > ALIKE * SCALE**2), len(columns))
            anchors, turned = np.divmod(columns[right], 2)
            scores, found = products[below, right], rows[below]
            hits.append(np.stack([found, anchors, mirrored[found] ^ (turned > 0), scores]).astype(np.int32))
    return np.concatenate(hits, axis=1)


def _as_hits(found: np.ndarray, anchored: np.ndarray, windowed: np.ndarray, count: int) -> Hits:
    window, anchor, mirrored, scores = found
    first, second = anchored[anchor // _PER_IMAGE], windowed[window // _PER_ANCHOR]
    keys = np.minimum(first, second) * count + np.maximum(first, second)
    ways = ((window % _PER_ANCHOR * _PER_IMAGE + anchor % _PER_IMAGE) * 2 + mirrored) * 2 + (first > second)
    others = first != second
    return _best(
        [Hits(keys[others], scores[others], np.ones(others.sum(), np.int32), ways[others].astype(np.int32))]
    )


def _placed(keys: np.ndarray, ways: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs and maps of hits."""
    pairs = np.stack(np.divmod(keys, max(1, count)), axis=1)
    ways, swapped = np.divmod(ways, 2)
    pairs[swapped > 0] = pairs[swapped > 0, ::-1]
    ways, mirrored = np.divmod(ways, 2)
    window, anchor = np.divmod(ways, _PER_IMAGE)
    scale = WINDOWS.side[window] / WIDTH
    scales = np.stack([scale, np.where(mirrored > 0, -scale, scale)], axis=1)
    ends = np.stack([WINDOWS.y[window], WINDOWS.x[window]], axis=1)
    starts = ends - scales * np.stack([ANCHORS.y[anchor], ANCHORS.x[anchor]], axis=1)
    return pairs, np.stack([scales, starts], axis=2)


def looks(pixels: PixelFile, numbers: np.ndarray) -> np.ndarray:
    """What is compared of images: grey, at most 48 px, float32 (n, P, P)."""
    grey = to_grey(pixels.read(numbers))
    if grey.shape[1] <= _LOOKED_AT_PX:
        return grey
    smaller = averages(np.array([[0.0, 1.0]]), _LOOKED_AT_PX, grey.shape[1])[0]
    return smaller @ grey @ smaller.T


def compare(
    pixels: PixelFile, numbers: np.ndarray, pairs: np.ndarray, maps: np.ndarray, pool: Pool
) -> np.ndarray:
    """The verdict on pairs (k, 2) of places in `numbers` that lie to each other as `maps`: float32 (k,)."""

    def look(chunk: slice) -> np.ndarray:
        first, second = (looks(pixels, numbers[ends]) for ends in pairs[chunk].T)
        return likeness(first, second, maps[chunk])

    chunks: Iterable[slice] = (slice(start, start + _COMPARED) for start in range(0, len(pairs), _COMPARED))
    return np.concatenate([np.empty(0, np.float32), *pool.in_order(look, chunks)])


def number_copies(hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of uint64 (N,): the first image of each distinct one (D,), and which distinct image each is (N,)."""
    _, first, copies = np.unique(hashes, return_index=True, return_inverse=True)
    return first, copies


def join(count: int, pairs: np.ndarray) -> np.ndarray:
    """Connected components of `count` things under pairs int (k, 2): int (count,) from 0.

    Each thing points to one of its component with a smaller number, until all point to the smallest.
    """
    points = np.arange(count)
    while (points[pairs[:, 0]] != points[pairs[:, 1]]).any():
        ends = points[pairs]
        np.minimum.at(points, ends, ends.min(axis=1, keepdims=True))
        while (points[points] != points).any():
            points = points[points]
    return np.unique(points, return_inverse=True)[1]
