"""A split written as NPZ, a chunk at a time.

Members are stored uncompressed, since only such can be mapped into memory, and with a fixed date, so that
equal data make equal files.
"""

import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np


def write_npz(path: Path, columns: dict[str, np.ndarray], images: Iterable[np.ndarray], shape: tuple) -> None:
    """`columns` whole, and `images` uint8 of `shape` from chunks, as `images.npy`."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        _write(archive, "images", np.dtype(np.uint8), shape, images)
        for name, column in columns.items():
            _write(archive, name, column.dtype, column.shape, [column])


def write_columns(path: Path, columns: dict[str, np.ndarray]) -> None:
    """Columns alone, in a file of the same kind."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, column in columns.items():
            _write(archive, name, column.dtype, column.shape, [column])


def _write(
    archive: zipfile.ZipFile, name: str, dtype: np.dtype, shape: tuple, chunks: Iterable[np.ndarray]
) -> None:
    with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(member, header)
        for chunk in chunks:
            member.write(np.ascontiguousarray(chunk).tobytes())
