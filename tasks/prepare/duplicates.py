"""Images that show the same picture: exact copies by hash, near duplicates by a search of all pairs.

In: distinct images uint8 (N, P, P, C). Out: pairs of them, mirrored ones included.

A near duplicate is the same photo encoded again, brightened, cropped by up to a tenth, moved, or mirrored.
Two steps, both blind to brightness and contrast:
 1. candidates: low frequencies (99 coefficients of the cosine transform, each weighted by its frequency,
    scaled to length 1) of one image, whole or less its border, correlate above `CANDIDATE` with another's.
    All pairs, as blocks of a matrix product; even and odd columns apart, as mirroring turns the odd ones;
 2. the verdict: of both, only detail smaller than a tenth of the side; at 24 px, the middle of one, at five
    zooms within 10 %, is moved over the other in half steps by up to an eighth of the side; the best
    correlation must exceed `near_duplicate`.

0.87 was chosen by eye on FER-2013: pairs above it show one photo, 99.8 % of pairs of two people lie below.
Of pairs made from its images (JPEG quality 50, brightness by a fifth, crops by 2 px of 48 around or at two
sides, mirrored) each step alone found 98 % and more; of crops by 3 px at two sides 89 %.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from tasks.prepare.pixels import PixelFile
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
_BLOCK = (512, 1024)
_COMPARED = 128
_SMALL = 1e-6


@dataclass(frozen=True)
class Descriptors:
    """float32 (N, even) and (N, odd): together a vector of length 1 for each image."""

    even: np.ndarray
    odd: np.ndarray

    def similarity(self, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Correlation of images `first` with `second`, and with `second` mirrored; each float32 (k,)."""
        even = (self.even[first] * self.even[second]).sum(axis=1)
        odd = (self.odd[first] * self.odd[second]).sum(axis=1)
        return even + odd, even - odd


def describe_images(chunks: Iterable[np.ndarray]) -> tuple[Descriptors, Descriptors]:
    """Of uint8 (n, P, P, C) chunks: descriptors of the whole images, and of the images less their border."""
    chosen = [(u, v) for u in range(_FREQUENCIES) for v in range(_FREQUENCIES) if u + v]
    rows, columns = np.array(chosen).T
    weights = np.hypot(rows, columns).astype(np.float32)
    whole, inner = [], []
    for chunk in chunks:
        border = chunk.shape[1] // _BORDER
        whole.append(_spectrum(chunk)[:, rows, columns] * weights)
        inner.append(_spectrum(chunk[:, border:-border, border:-border])[:, rows, columns] * weights)
    return _normal(whole, columns % 2 == 1), _normal(inner, columns % 2 == 1)


def _normal(chunks: list[np.ndarray], odd: np.ndarray) -> Descriptors:
    vectors = np.concatenate(chunks)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), _SMALL)
    return Descriptors(np.ascontiguousarray(vectors[:, ~odd]), np.ascontiguousarray(vectors[:, odd]))


def _spectrum(images: np.ndarray) -> np.ndarray:
    """The lowest frequencies of the two-dimensional DCT-II, float32 (n, 10, 10)."""
    px = images.shape[1]
    waves = np.cos(np.pi / px * np.outer(np.arange(_FREQUENCIES), np.arange(px) + 0.5)).astype(np.float32)
    return waves @ images.mean(axis=-1, dtype=np.float32) @ waves.T


def candidates(whole: Descriptors, inner: Descriptors, pool: Pool) -> np.ndarray:
    """Pairs (k, 2), first < second, that correlate above CANDIDATE, as they are or mirrored."""
    count = len(whole.even)
    blocks = list(product(range(0, count, _BLOCK[0]), range(0, count, _BLOCK[1])))
    upper = [(top, left) for top, left in blocks if left + _BLOCK[1] > top]
    found = [
        *pool.in_order(lambda corner: _alike(whole, whole, *corner), upper),
        *pool.in_order(lambda corner: _alike(inner, whole, *corner), blocks),
    ]
    pairs = np.concatenate([np.empty((0, 2), np.int64), *found])
    return np.unique(np.sort(pairs[pairs[:, 0] != pairs[:, 1]], axis=1), axis=0)


def _alike(first: Descriptors, second: Descriptors, top: int, left: int) -> np.ndarray:
    """Pairs (k, 2) above CANDIDATE in one block of the product."""
    a, b = slice(top, top + _BLOCK[0]), slice(left, left + _BLOCK[1])
    scores = first.odd[a] @ second.odd[b].T
    np.abs(scores, out=scores)
    scores += first.even[a] @ second.even[b].T
    rows, columns = np.divmod(np.flatnonzero(scores > CANDIDATE), scores.shape[1])
    return np.stack([rows + top, columns + left], axis=1)


def compare(
    pixels: PixelFile, numbers: np.ndarray, descriptors: Descriptors, pairs: np.ndarray, pool: Pool
) -> np.ndarray:
    """The verdict on pairs (k, 2) of places in `numbers`, mirrored where that fits better: float32 (k,)."""
    plain, mirrored = descriptors.similarity(pairs[:, 0], pairs[:, 1])
    turned = mirrored > plain

    def look(chunk: slice) -> np.ndarray:
        first = pixels.read(numbers[pairs[chunk, 0]]).mean(axis=-1, dtype=np.float32)
        second = pixels.read(numbers[pairs[chunk, 1]]).mean(axis=-1, dtype=np.float32)
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
    whole = _sampling(px, _GRID_PX, 1.0)[:_GRID_PX]
    middles = looks @ first[:, None] @ looks.transpose(0, 2, 1)
    middles = middles.reshape(len(first), len(_ZOOMS), 2, inner, 2, inner).swapaxes(3, 4)
    wanted = middles.reshape(len(first), -1, inner * inner)
    wanted -= wanted.mean(axis=2, keepdims=True)
    wanted /= np.linalg.norm(wanted, axis=2, keepdims=True) + _SMALL
    windows = sliding_window_view(whole @ second @ whole.T, (inner, inner), axis=(1, 2))
    windows = windows.reshape(len(second), -1, inner * inner)
    power = np.einsum("nij,nij->ni", windows, windows) - windows.mean(axis=2) ** 2 * inner**2
    products = wanted @ windows.transpose(0, 2, 1)
    return (products / np.sqrt(np.maximum(power, _SMALL))[:, None]).max(axis=(1, 2), initial=-1)


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
    """Connected components of `count` things under pairs int (k, 2): int32 (count,) from 0."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    return connected_components(graph, directed=False)[1]
