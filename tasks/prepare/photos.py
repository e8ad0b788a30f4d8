"""Photos in class folders: `<class>/x.jpg`, or `train/<class>/x.jpg`, `val/…` and `test/<class>/x.jpg`.

In: JPEG and PNG files. Out: the common canvas, uint8 (P, P, C). The whole photo is shrunk to the square,
area-averaged: a centre crop could cut off the open mouth that tells fatigue, and bars beside a narrow
photo would tell the source.
"""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from tasks.ingest.sources import SPLIT_FOLDERS, class_folder, is_image


class Photo(NamedTuple):
    """A photo on the canvas."""

    pixels: np.ndarray
    """uint8 (P, P, C)"""
    side_px: int
    """The shorter side that it had before."""


def label_of(key: str, vocabulary: Mapping[str, str]) -> str | None:
    """What a photo shows by its folder, a name of TO_CLASS; None or empty where it is none to take."""
    folder = class_folder(key) if is_image(key) else None
    return vocabulary.get(folder) if folder else None


def usage_of(key: str) -> int:
    """0 train, 1 val, 2 test by the topmost folder, -1 where it doesn't say."""
    parts = PurePosixPath(key).parts
    return SPLIT_FOLDERS.get(parts[0].lower(), -1) if len(parts) > 2 else -1


def decode(path: Path, px: int, channels: int, max_mpx: float) -> Photo:
    """A photo on a canvas of `px`, upright as its EXIF says. ValueError where it can't be read."""
    try:
        with Image.open(path, formats=("JPEG", "PNG")) as photo:
            if photo.width * photo.height > max_mpx * 1e6:
                raise ValueError(f"expected at most {max_mpx:g} megapixels, got {photo.width}x{photo.height}")
            side_px = min(photo.size)
            return Photo(_canvas(photo, px, "L" if channels == 1 else "RGB"), side_px)
    except Image.UnidentifiedImageError:
        raise ValueError(f"expected a JPEG or PNG, got {_first_bytes(path)}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"expected at most {max_mpx:g} megapixels: {error}") from None
    except (OSError, SyntaxError) as error:
        raise ValueError(f"expected a whole JPEG or PNG: {error}") from None


def to_canvas(images: np.ndarray, px: int, channels: int) -> np.ndarray:
    """Grey images uint8 (n, h, w) on the common canvas, uint8 (n, px, px, channels)."""
    if images.shape[1:] != (px, px):
        images = np.array([np.asarray(_square(Image.fromarray(image), px)) for image in images], np.uint8)
    return np.repeat(images.reshape(-1, px, px, 1), channels, axis=-1)


def _canvas(photo: Image.Image, px: int, mode: str) -> np.ndarray:
    photo.draft(mode, (2 * px, 2 * px))
    upright = ImageOps.exif_transpose(photo)
    if upright.mode.startswith("I"):
        upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
    if "transparency" in upright.info:
        upright = upright.convert("RGBA")
    return np.asarray(_square(upright.convert(mode), px), np.uint8).reshape(px, px, -1)


def _square(image: Image.Image, px: int) -> Image.Image:
    shrinks = min(image.size) >= px
    return image.resize((px, px), Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR)


def _first_bytes(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(16)
    return f"a file that starts with {start!r}" if start else "an empty file, a link to nothing or a pipe"
