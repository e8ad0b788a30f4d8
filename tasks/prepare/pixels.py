"""All images of a data set in one scratch file, so that memory holds a chunk of them at a time.

uint8 (N, P, P, C), in the order in which they were read.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

CHUNK = 256
"""Images handled at once: 0.6 MB at 48 px grey, which the processor's cache holds."""


class PixelFile:
    """Append images, then read any of them back by number. Close it (`with`); `path` is free at once."""

    def __init__(self, path: Path, px: int, channels: int) -> None:
        self.shape = (px, px, channels)
        self.bytes_each = px * px * channels
        self._file = path.open("w+b")
        path.unlink()  # the disk has its place again as soon as nobody reads it, however we end

    def __enter__(self) -> "PixelFile":
        return self

    def __exit__(self, *_) -> None:
        self._file.close()

    def append(self, images: np.ndarray) -> None:
        """Write uint8 (n, P, P, C) behind those already there."""
        self._file.write(np.ascontiguousarray(images).data)

    def read(self, numbers: np.ndarray) -> np.ndarray:
        """The images of those numbers, uint8 (n, P, P, C), in that order."""
        self._file.flush()
        images = np.empty((len(numbers), *self.shape), np.uint8)
        view, size, handle = images.data.cast("B"), self.bytes_each, self._file.fileno()
        for place, number in enumerate(numbers.tolist()):
            os.preadv(handle, [view[place * size : (place + 1) * size]], number * size)
        return images

    def chunks(self, numbers: np.ndarray) -> Iterator[np.ndarray]:
        """The images of those numbers, a chunk at a time."""
        for start in range(0, len(numbers), CHUNK):
            yield self.read(numbers[start : start + CHUNK])


def to_grey(images: np.ndarray) -> np.ndarray:
    """uint8 (n, P, P, C) as float32 (n, P, P), the mean of the channels."""
    return (
        images.mean(axis=-1, dtype=np.float32) if images.shape[-1] > 1 else images[..., 0].astype(np.float32)
    )
