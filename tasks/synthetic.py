"""Drawn faces with the five expressions: the data of the demo and of the tests, no person in it.

In: a count per class and a seed. Out: uint8 grey images (N, px, px, 1) and labels (N,), or a data set
in the store's layout: four classes as `fer2013.csv`, fatigue as a custom folder of PNG files.

Every face differs in place, size, shape, tilt, skin, hair, light, noise and occlusion, and expressions
are drawn from overlapping ranges, so that a network has to look at brows, eyes and mouth: an
untrained one is at chance, a trained one is not perfect.
"""

import csv
import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from tasks.classes import CLASSES

_SCALE = 4
"""Faces are drawn this many times larger and shrunk, which is how PIL gets smooth edges."""

_EXPRESSIONS = {
    # mouth curve (+ smile), mouth opening, eye opening, inner brow height, brow lift; each (mean, spread)
    "neutral": ((0.00, 0.16), (0.06, 0.05), (0.60, 0.10), (0.00, 0.14), (0.00, 0.12)),
    "stress": ((-0.18, 0.20), (0.16, 0.14), (0.74, 0.14), (-0.72, 0.22), (-0.15, 0.15)),
    "sad": ((-0.62, 0.18), (0.05, 0.04), (0.46, 0.10), (0.66, 0.22), (0.05, 0.15)),
    "happy": ((0.78, 0.18), (0.22, 0.16), (0.50, 0.12), (0.05, 0.15), (0.15, 0.15)),
    "fatigue": ((-0.05, 0.14), (0.72, 0.20), (0.10, 0.08), (0.15, 0.16), (0.20, 0.18)),
}


def draw_faces(per_class: int, seed: int, px: int = 48) -> tuple[np.ndarray, np.ndarray]:
    """Draw `per_class` faces of each class, shuffled: images uint8 (5·per_class, px, px, 1), labels uint8."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(CLASSES), dtype=np.uint8), per_class))
    images = np.stack([_draw_face(CLASSES[label], rng, px) for label in labels])
    return images[..., None], labels


def write_dataset(directory: Path, per_class: int, seed: int) -> None:
    """Write drawn faces under `directory`, in the layout of a store with FER-2013 and a custom data set."""
    images, labels = draw_faces(per_class, seed)
    fatigue = CLASSES.index("fatigue")
    _write_fer2013(
        directory / "datasets/fer2013/fer2013.csv", images[labels != fatigue], labels[labels != fatigue], seed
    )
    folder = directory / "datasets/custom/fatigue"
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images[labels == fatigue]):
        Image.fromarray(image[..., 0]).save(folder / f"{number:05d}.png")


def _write_fer2013(path: Path, images: np.ndarray, labels: np.ndarray, seed: int) -> None:
    """FER-2013's own layout: emotion number, pixels separated by spaces, Usage in shares of 80/10/10."""
    emotions = {"neutral": (6, 6, 5), "stress": (0, 2, 1), "sad": (4,), "happy": (3,)}
    rng = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["emotion", "pixels", "Usage"])
        usages = rng.choice(["Training", "PublicTest", "PrivateTest"], size=len(images), p=[0.8, 0.1, 0.1])
        for image, label, usage in zip(images, labels, usages, strict=True):
            rows.writerow([rng.choice(emotions[CLASSES[label]]), " ".join(map(str, image.ravel())), usage])


def _draw_face(expression: str, rng: np.random.Generator, px: int) -> np.ndarray:
    """One face, uint8 (px, px)."""
    smile, mouth_open, eye_open, inner_brow, brow_lift = (
        rng.normal(mean, spread) for mean, spread in _EXPRESSIONS[expression]
    )
    side = px * _SCALE
    skin, ground = rng.uniform(110, 215), rng.uniform(20, 235)
    dark = skin * rng.uniform(0.25, 0.5)
    canvas = Image.new("L", (side, side), int(ground))
    pen = ImageDraw.Draw(canvas)
    unit = side * rng.uniform(0.36, 0.50)
    cx, cy = side / 2 + rng.normal(0, side * 0.05), side / 2 + rng.normal(0, side * 0.04)
    _ellipse(pen, cx, cy - unit * 0.15, unit * 0.92, unit * 1.1, dark * rng.uniform(0.4, 1.2))
    _ellipse(pen, cx, cy, unit * rng.uniform(0.66, 0.88), unit, skin)
    line = max(2, int(unit * 0.07))
    for mirror in (-1, 1):
        ex, ey = cx + mirror * unit * 0.34, cy - unit * 0.18
        height = unit * 0.22 * float(np.clip(eye_open, 0.06, 1))
        _ellipse(pen, ex, ey, unit * 0.17, height, min(skin + 45, 250))
        _ellipse(
            pen, ex + rng.normal(0, unit * 0.02), ey, min(unit * 0.08, height), min(unit * 0.09, height), dark
        )
        top = ey - unit * (0.30 + 0.10 * brow_lift)
        inner = (ex - mirror * unit * 0.18, top - unit * 0.13 * inner_brow)
        outer = (ex + mirror * unit * 0.20, top + unit * 0.09 * inner_brow)
        pen.line([inner, outer], fill=int(dark), width=line)
    pen.line(
        [(cx, cy - unit * 0.05), (cx - unit * 0.07, cy + unit * 0.2)], fill=int(skin * 0.75), width=line // 2
    )
    _mouth(pen, cx, cy + unit * 0.52, unit, smile, float(np.clip(mouth_open, 0, 1)), dark, line)
    return _photograph(canvas, rng, px)


def _ellipse(pen: ImageDraw.ImageDraw, x: float, y: float, rx: float, ry: float, grey: float) -> None:
    pen.ellipse([x - rx, y - ry, x + rx, y + ry], fill=int(grey))


def _mouth(
    pen, x: float, y: float, unit: float, smile: float, opening: float, dark: float, line: int
) -> None:
    """A lens between two arcs that share their corners: curved by `smile`, opened by `opening`."""
    t = np.linspace(-1, 1, 21)
    half = unit * (0.34 - 0.10 * opening)
    bow = unit * 0.20 * smile * (1 - t**2)
    gap = unit * 0.30 * opening * np.sqrt(1 - t**2)
    upper = list(zip(x + half * t, y + bow - gap, strict=True))
    lower = list(zip(x + half * t, y + bow + gap, strict=True))
    if opening > 0.08:
        pen.polygon(upper + lower[::-1], fill=int(dark * 0.6))
    pen.line(upper, fill=int(dark), width=line)
    pen.line(lower, fill=int(dark), width=line)


def _photograph(canvas: Image.Image, rng: np.random.Generator, px: int) -> np.ndarray:
    """Tilt, shrink, light from one side, sometimes something in front, blur and sensor noise."""
    fill = canvas.getpixel((0, 0))
    image = canvas.rotate(rng.normal(0, 8), resample=Image.Resampling.BILINEAR, fillcolor=fill)
    if rng.random() < 0.15:
        x, y, width = [*rng.uniform(0, image.width, 2).tolist(), image.width * rng.uniform(0.1, 0.2)]
        ImageDraw.Draw(image).rectangle([x, y, x + width, y + width], fill=int(rng.uniform(0, 255)))
    image = image.resize((px, px), Image.Resampling.BOX).filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.6)))
    grey = np.asarray(image, np.float32) * _light(rng, px) + rng.normal(0, rng.uniform(2, 9), (px, px))
    return np.clip(grey, 0, 255).astype(np.uint8)


def _light(rng: np.random.Generator, px: int) -> np.ndarray:
    """Brightness (px, px) around 1: from one side, and in patches: no two faces are near duplicates."""
    angle = rng.uniform(0, 2 * math.pi)
    ramp = np.linspace(-1, 1, px)
    side = rng.uniform(0, 0.3) * (np.cos(angle) * ramp[None, :] + np.sin(angle) * ramp[:, None])
    coarse = Image.fromarray(rng.normal(0, 0.28, (5, 5)).astype(np.float32))
    patches = np.asarray(coarse.resize((px, px), Image.Resampling.BICUBIC))
    return (1 + side + patches) * rng.uniform(0.75, 1.15)
