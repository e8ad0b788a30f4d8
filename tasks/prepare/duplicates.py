"""Images that show the same picture: exact copies by hash, near duplicates by a search of all pairs.

In: distinct images uint8 (N, P, P, C). Out: pairs of them, mirrored ones included.

A near duplicate is the same photo encoded again, brightened, cropped by up to a tenth, moved, or mirrored.
Two steps, both blind to brightness and contrast:
 1. candidates: low frequencies (99 coefficients of the cosine transform, each weighted by its frequency,
    scaled to length 1) of one image, whole or less its border, correlate above `CANDIDATE` with another's.
    All pairs, as blocks of a matrix product; even and odd columns apart, as mirroring turns the odd ones.
    An upper bound by 40 numbers comes first, all 99 are compared where that doesn't rule a pair out;
 2. the verdict: of both, only detail smaller than a tenth of the side; at 24 px, the middle of one, at five
    zooms within 10 %, is moved over the other in half steps by up to an eighth of the side; the best
    correlation must exceed `near_duplicate`.

0.87 was chosen by eye on FER-2013: pairs above it show one photo, 99.8 % of pairs of two people lie below.
Of 1,500 of its images in another guise (JPEG quality 50, brightness by a fifth, crops by 2 px of 48 around,
mirrored) the whole search finds 99.9 % and more; 98.6 % of crops by 2 px at two sides, 41 % of crops by 3 px.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from tasks.prepare.pixels import PixelFile, to_grey
from tasks.prepare.threads import Pool

CANDIDATE = 0.80
_BORDER = 24
"""The border that is left out is this part of the side."""
_FREQUENCIES = 10
_DETAIL = 0.1
"""What is larger than this part of the side is light and shade, not detail."""
_GRID_PX = 24
_SHIFT_PX = 3
_ZOOMS = (0.90, 0.95, 1.0, 1.05, 1.10)
_BLOCK = (256, 512)
"""Rows and columns compared at once, so few that the processor's cache holds them."""
_KEPT = (22, 16)
"""Numbers of a descriptor's even and odd part in its outline: the fastest of those tried."""
_COMPARED = 48
_SMALL = 1e-6


@dataclass(frozen=True)
class Descriptors:
    """float32 (N, even) and (N, odd): together a vector of length 1 for each image."""

    even: np.ndarray
    odd: np.ndarray

    def similarity(self, others: "Descriptors", pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of pairs (k, 2): how its first correlates with the second of `others`, plain and mirrored, (k,)."""
        even = (self.even[pairs[:, 0]] * others.even[pairs[:, 1]]).sum(axis=1)
        odd = (self.odd[pairs[:, 0]] * others.odd[pairs[:, 1]]).sum(axis=1)
        return even + odd, even - odd


def describe_images(chunks: Iterable[np.ndarray], pool: Pool) -> tuple[Descriptors, Descriptors]:
    """Of uint8 (n, P, P, C) chunks: descriptors of the whole images, and of the images less their border."""
    chosen = [(u, v) for u in range(_FREQUENCIES) for v in range(_FREQUENCIES) if u + v]
    rows, columns = np.array(chosen).T
    weights = np.hypot(rows, columns).astype(np.float32)

    def describe(chunk: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        grey, border = to_grey(chunk), max(1, chunk.shape[1] // _BORDER)
        looks = grey, grey[:, border:-border, border:-border]
        return tuple(_spectrum(look)[:, rows, columns] * weights for look in looks)

    nothing = np.empty((0, len(rows)), np.float32)
    whole, inner = zip((nothing, nothing), *pool.in_order(describe, chunks), strict=True)
    return _normal(whole, columns % 2 == 1), _normal(inner, columns % 2 == 1)


def _normal(chunks: Iterable[np.ndarray], odd: np.ndarray) -> Descriptors:
    vectors = np.concatenate(chunks)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), _SMALL)
    return Descriptors(np.ascontiguousarray(vectors[:, ~odd]), np.ascontiguousarray(vectors[:, odd]))


def _spectrum(grey: np.ndarray) -> np.ndarray:
    """The lowest frequencies of the two-dimensional DCT-II of float32 (n, P, P), float32 (n, 10, 10)."""
    px = grey.shape[1]
    waves = np.cos(np.pi / px * np.outer(np.arange(_FREQUENCIES), np.arange(px) + 0.5)).astype(np.float32)
    return waves @ grey @ waves.T


def candidates(whole: Descriptors, inner: Descriptors, pool: Pool) -> np.ndarray:
    """Pairs (k, 2), first < second, that correlate above CANDIDATE, as they are or mirrored."""
    count = len(whole.even)
    axes = _main_axes(whole.even), _main_axes(whole.odd)
    outline = _outline(whole, *axes)

    def search(first: Descriptors, symmetric: bool) -> Iterable[np.ndarray]:
        mine = _outline(first, *axes)

        def look(top: int) -> np.ndarray:
            pairs = _not_ruled_out(mine, outline, top, top if symmetric else 0)
            return pairs[np.maximum(*first.similarity(whole, pairs)) > CANDIDATE]

        return pool.in_order(look, range(0, count, _BLOCK[0]))

    pairs = np.concatenate([np.empty((0, 2), np.int64), *search(whole, True), *search(inner, False)])
    pairs = np.sort(pairs[pairs[:, 0] != pairs[:, 1]], axis=1)
    return np.stack(np.divmod(np.unique(pairs[:, 0] * count + pairs[:, 1]), max(1, count)), axis=1)


def _main_axes(vectors: np.ndarray) -> np.ndarray:
    """Orthonormal columns, first those along which the vectors (N, d) extend most."""
    return np.linalg.eigh(vectors.T @ vectors)[1][:, ::-1]


def _outline(full: Descriptors, even_axes: np.ndarray, odd_axes: np.ndarray) -> Descriptors:
    """Less than half the numbers, by which two images correlate no less than by all of them.

    What lies along the main axes is kept, and of the rest its length: by Cauchy and Schwarz the product of
    two lengths is an upper bound of the product that was left out.
    """
    even, odd = full.even @ even_axes, full.odd @ odd_axes
    rests = [np.linalg.norm(part[:, kept:], axis=1) for part, kept in zip((even, odd), _KEPT, strict=True)]
    return Descriptors(
        np.column_stack([even[:, : _KEPT[0]], *rests]), np.ascontiguousarray(odd[:, : _KEPT[1]])
    )


def _not_ruled_out(first: Descriptors, second: Descriptors, top: int, start: int) -> np.ndarray:
    """Pairs (k, 2) of a block's rows with any from `start` on that, by their outlines, may be candidates."""
    rows = slice(top, top + _BLOCK[0])
    odd, even = first.odd[rows], first.even[rows]
    buffers = np.empty((2, len(odd), _BLOCK[1]), np.float32)
    found = []
    for left in range(start, len(second.odd), _BLOCK[1]):
        columns = slice(left, left + _BLOCK[1])
        width = len(second.odd[columns])
        bounds, more = buffers[:, :, :width]
        np.abs(np.matmul(odd, second.odd[columns].T, out=bounds), out=bounds)
        bounds += np.matmul(even, second.even[columns].T, out=more)
        below, right = np.divmod(np.flatnonzero(bounds > CANDIDATE - _SMALL), width)
        found.append(np.stack([below + top, right + left], axis=1))
    return np.concatenate(found)


def compare(
    pixels: PixelFile, numbers: np.ndarray, descriptors: Descriptors, pairs: np.ndarray, pool: Pool
) -> np.ndarray:
    """The verdict on pairs (k, 2) of places in `numbers`, mirrored where that fits better: float32 (k,)."""
    plain, mirrored = descriptors.similarity(descriptors, pairs)
    turned = mirrored > plain

    def look(chunk: slice) -> np.ndarray:
        first, second = (to_grey(pixels.read(numbers[ends])) for ends in pairs[chunk].T)
        first[turned[chunk]] = first[turned[chunk], :, ::-1]
        return aligned_correlation(first, second)

    chunks = (slice(start, start + _COMPARED) for start in range(0, len(pairs), _COMPARED))
    return np.concatenate([np.empty(0, np.float32), *pool.in_order(look, chunks)])


def aligned_correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """How well the middles of float32 (n, P, P) are found in their partners, -1 to 1, float32 (n,)."""
    px, inner = first.shape[1], _GRID_PX - 2 * _SHIFT_PX
    blur = _blur(px)
    first, second = first - blur @ first @ blur.T, second - blur @ second @ blur.T
    looks = np.stack([_sampling(px, inner, zoom) for zoom in _ZOOMS])
    middles = looks @ first[:, None] @ looks.transpose(0, 2, 1)
    middles = middles.reshape(len(first), len(_ZOOMS), 2, inner, 2, inner).swapaxes(3, 4)
    wanted = middles.reshape(len(first), -1, inner * inner)
    wanted -= wanted.mean(axis=2, keepdims=True)
    wanted /= np.sqrt(np.einsum("nij,nij->ni", wanted, wanted))[:, :, None] + _SMALL
    whole = _sampling(px, _GRID_PX, 1.0)[:_GRID_PX]
    grid = whole @ second @ whole.T
    windows = sliding_window_view(grid, (inner, inner), axis=(1, 2)).reshape(len(second), -1, inner * inner)
    sums = sliding_window_view(np.eye(_GRID_PX, dtype=np.float32), inner, axis=1).sum(axis=2)
    power = sums.T @ grid**2 @ sums - (sums.T @ grid @ sums) ** 2 / inner**2
    products = wanted @ windows.transpose(0, 2, 1)
    products /= np.sqrt(np.maximum(power, _SMALL)).reshape(len(second), 1, -1)
    return products.max(axis=(1, 2), initial=-1)


def _blur(px: int) -> np.ndarray:
    """Gaussian weights of each pixel's surroundings, float32 (px, px)."""
    places = np.arange(px)
    weights = np.exp(-0.5 * ((places[:, None] - places) / (_DETAIL * px)) ** 2)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def _sampling(px: int, outputs: int, zoom: float) -> np.ndarray:
    """Area averages of the middle of `px` pixels, as it lies and half a step on: float32 (2·outputs, px).

    A step is a pixel of the grid: `_GRID_PX` of them span the image at zoom 1.
    """
    steps = np.concatenate([np.arange(outputs), np.arange(outputs) + 0.5]) - outputs / 2
    start, width, pixels = px / 2 + steps[:, None] * px / _GRID_PX / zoom, px / _GRID_PX / zoom, np.arange(px)
    overlap = (np.minimum(start + width, pixels + 1) - np.maximum(start, pixels)).clip(0)
    return (overlap / overlap.sum(axis=1, keepdims=True)).astype(np.float32)


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
