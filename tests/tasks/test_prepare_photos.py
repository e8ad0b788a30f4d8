"""Photos of all kinds on the common canvas, and files that are none."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasks.prepare.photos import decode, label_of, to_canvas, usage_of
from tasks.vocabulary import vocabulary

HALVES = np.repeat(np.array([[40, 200]], np.uint8), 100, axis=1).repeat(160, axis=0)
"""Dark left, bright right, uint8 (160, 200)."""


def save(path: Path, image: Image.Image, **options) -> Path:
    image.save(path, **options)
    return path


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "CMYK", "I;16"])
def test_every_colour_mode_becomes_grey(tmp_path: Path, mode: str):
    if mode == "I;16":
        image = Image.fromarray(HALVES.astype(np.uint16) << 8)
    else:
        image = Image.fromarray(HALVES).convert(mode)
    path = save(tmp_path / "photo", image, format="JPEG" if mode == "CMYK" else "PNG")
    grey = decode(path, 48, 1, 50).pixels[..., 0]
    assert grey.shape == (48, 48)
    assert abs(int(grey[10, 10]) - 40) < 6
    assert abs(int(grey[10, 40]) - 200) < 6


def test_a_photo_lies_as_its_exif_says(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(tmp_path / "photo.jpg", Image.fromarray(HALVES), exif=exif)
    upright = decode(path, 48, 1, 50).pixels[..., 0]
    assert upright[:20].mean() < 60
    assert upright[28:].mean() > 180


def test_shrinking_averages_areas(tmp_path: Path):
    chequered = (np.indices((96, 96)).sum(axis=0) % 2 * 200).astype(np.uint8)
    grey = decode(save(tmp_path / "photo.png", Image.fromarray(chequered)), 48, 1, 50).pixels
    assert (grey == 100).all()


def test_colour_is_kept_where_it_is_asked_for(tmp_path: Path):
    path = save(tmp_path / "photo.png", Image.new("RGB", (64, 64), (200, 30, 10)))
    assert decode(path, 32, 3, 50).pixels[5, 5].tolist() == [200, 30, 10]
    assert to_canvas(np.full((2, 48, 48), 7, np.uint8), 32, 3).shape == (2, 32, 32, 3)


def truncated(path: Path) -> Path:
    save(
        path, Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 200), np.uint8)), format="JPEG"
    )
    path.write_bytes(path.read_bytes()[:5000])
    return path


def text_named_png(path: Path) -> Path:
    path.write_text("This is no picture")
    return path


def bomb(path: Path) -> Path:
    return save(path, Image.new("1", (9000, 9000)), format="PNG")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (truncated, "expected a whole JPEG or PNG: .*truncated"),
        (text_named_png, "expected a JPEG or PNG, got a file that starts with b'This is no"),
        (bomb, "expected at most 50 megapixels, got 9000x9000"),
        (lambda path: save(path, Image.new("L", (9, 9)), format="GIF"), "expected a JPEG or PNG"),
    ],
    ids=["a truncated JPEG", "a text file named png", "a decompression bomb", "a GIF named png"],
)
def test_a_file_that_is_no_photo_is_told(tmp_path: Path, make, message: str):
    with pytest.raises(ValueError, match=message):
        decode(make(tmp_path / "photo.png"), 48, 1, 50)


@pytest.mark.parametrize(
    ("key", "label", "usage"),
    [
        ("angry/im0.png", "angry", -1),
        ("train/Surprise/a b.JPG", "surprise", 0),
        ("valid/3/a.jpg", "fear", 1),
        ("test/fatigue/ü.jpeg", "fatigue", 2),
    ],
)
def test_a_key_tells_label_and_usage(key: str, label: str, usage: int):
    known = vocabulary("raf_db", {"3": "fear"})
    assert (label_of(key, known), usage_of(key)) == (label, usage)
