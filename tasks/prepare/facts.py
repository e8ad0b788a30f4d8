"""What a published data set tells of each image without showing it.

Out: `images.npz` beside metadata.json, 22 bytes an image, so that the next nights can say what is new, and
how it differs, without reading a picture.
"""

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from storage.errors import InputError
from tasks.prepare.archive import write_columns
from tasks.prepare.collection import Collection
from tasks.prepare.writing import Arrangement

IMAGE_FACTS = "images.npz"


@dataclass(frozen=True)
class ImageFacts:
    """The real images of all three splits, N of them."""

    digests: np.ndarray
    """uint64 (N,), as in `Split`"""
    sources: np.ndarray
    """uint8 (N,), index into metadata["sources"]"""
    labels: np.ndarray
    """uint8 (N,), index into metadata["classes"]"""
    statistics: np.ndarray
    """float32 (N, 3), `blocks.STATISTICS`, in grey levels"""

    def where(self, chosen: np.ndarray) -> "ImageFacts":
        """The chosen images alone, by a mask or by their places."""
        return ImageFacts(**{name: column[chosen] for name, column in vars(self).items()})


def write_facts(directory: Path, images: Collection, arrangement: Arrangement) -> None:
    """Write the file of the images that are in some split."""
    kept = arrangement.splits >= 0
    columns = {
        "digests": images.hashes[kept],
        "sources": images.sources[kept],
        "labels": arrangement.labels.labels[kept],
        "statistics": images.statistics[kept].astype(np.float32),
    }
    write_columns(directory / IMAGE_FACTS, columns)


def read_facts(file: Path | BinaryIO, where: str) -> ImageFacts:
    """What `write_facts` wrote; InputError that names `where` if it isn't that."""
    try:
        with np.load(file) as columns:
            return ImageFacts(**{name: columns[name] for name in ImageFacts.__dataclass_fields__})
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{where}: expected the facts that prepare wrote, got {error}; prepare again"
        ) from None
