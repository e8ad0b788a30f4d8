"""The same faces as another camera would show them: what a model then finds, and what it answers most.

In: a model file and one split's images uint8 (N, P, P, C). Out: `Cameras`, with `<name>_cameras.json` and a
picture. Every change is made with scipy and Pillow, not with what training uses, and is the same every time.
Lengths are in pixels of an image of 48 and grow with P. What moves in from outside repeats the edge.
"""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from prefect import task
from prefect.logging import get_run_logger

from storage.errors import InputError
from storage.files import write_whole
from tasks.classes import CLASSES
from tasks.evaluate.camera_figures import CLEAN, CameraFigures, Cameras
from tasks.evaluate.camera_picture import draw_cameras
from tasks.evaluate.figures import confusion_matrix, macro_figures
from tasks.evaluate.predict import predict
from tasks.prepare import PreparedData
from tasks.prepare.splits import Split, SplitName, load_split
from tasks.train.seen import unseen

Camera = Callable[[np.ndarray, np.random.Generator], np.ndarray]
"""Images float32 (N, P, P, C), 0 to 255, to the same, before they are rounded and cut to bytes."""


def _blur(sigma: float) -> Camera:
    from scipy import ndimage

    def blur(x: np.ndarray, _: np.random.Generator) -> np.ndarray:
        deviation = sigma * x.shape[1] / 48
        return ndimage.gaussian_filter(x, (0, deviation, deviation, 0), mode="nearest")

    return blur


def _noise(levels: float) -> Camera:
    return lambda x, rng: x + levels * rng.standard_normal(x.shape, np.float32)


def _jpeg(quality: int) -> Camera:
    def compress(image: Image.Image) -> Image.Image:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        return Image.open(file)

    return lambda x, _: _each(x, compress)


def _resolution(share: float) -> Camera:
    def shrink(image: Image.Image) -> Image.Image:
        few = max(1, round(share * image.width))
        small = image.resize((few, few), Image.Resampling.BOX)
        return small.resize(image.size, Image.Resampling.BILINEAR)

    return lambda x, _: _each(x, shrink)


def _each(x: np.ndarray, change: Callable[[Image.Image], Image.Image]) -> np.ndarray:
    """Pillow's change of every image, float32 (N, P, P, C)."""
    one = x.shape[-1] == 1
    images = (Image.fromarray(image[..., 0] if one else image) for image in x.astype(np.uint8))
    return np.stack([np.asarray(change(image), np.float32) for image in images]).reshape(x.shape)


def _light(share: float) -> Camera:
    return lambda x, _: x * share


def _gamma(exponent: float) -> Camera:
    return lambda x, _: 255 * (x / 255) ** exponent


def _half_a_pixel(x: np.ndarray, _: np.random.Generator) -> np.ndarray:
    from scipy import ndimage

    return ndimage.shift(x, (0, 0.5, 0.5, 0), order=1, mode="nearest")


def _moved(x: np.ndarray, _: np.random.Generator) -> np.ndarray:
    """By a tenth of the side, in whole pixels, so that nothing but the place changes."""
    steps = round(x.shape[1] / 10)
    return np.pad(x, ((0, 0), (steps, 0), (steps, 0), (0, 0)), "edge")[:, :-steps, :-steps]


def _covered(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A grey box of half the side, a quarter of the image, anywhere in it."""
    px, half, x = x.shape[1], x.shape[1] // 2, x.copy()
    for image, (top, left) in zip(x, rng.integers(0, px - half + 1, (len(x), 2)), strict=True):
        image[top : top + half, left : left + half] = 128
    return x


CAMERAS: dict[str, Camera] = {
    CLEAN: lambda x, _: x,
    **{f"blur {sigma:g} px": _blur(sigma) for sigma in (0.5, 0.8, 1, 1.5, 2)},
    "half resolution": _resolution(0.5),
    "moved 0.5 px": _half_a_pixel,
    "moved 10 %": _moved,
    **{f"noise {levels} levels": _noise(levels) for levels in (2, 5, 10, 20)},
    **{f"JPEG {quality}": _jpeg(quality) for quality in (90, 60, 30)},
    **{f"gamma {exponent:g}": _gamma(exponent) for exponent in (0.5, 2)},
    "light 25 %": _light(0.25),
    "covered 25 %": _covered,
}


def photograph(images: np.ndarray, camera: str, seed: int = 0) -> np.ndarray:
    """Images uint8 (N, P, P, C) through one of `CAMERAS`, uint8 of the same shape."""
    x = CAMERAS[camera](images.astype(np.float32), np.random.default_rng(seed))
    return np.clip(np.rint(x), 0, 255).astype(np.uint8)


def sample(labels: np.ndarray, at_most: int, seed: int = 0) -> np.ndarray:
    """Rows of labels (N,), in order: all, or about `at_most`, of every class the same share."""
    if len(labels) <= at_most:
        return np.arange(len(labels))
    rng, share = np.random.default_rng(seed), at_most / len(labels)
    rows = [rng.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)]
    return np.sort(np.concatenate([mine[: max(1, round(share * len(mine)))] for mine in rows]))


def camera_figures(camera: str, probabilities: np.ndarray, labels: np.ndarray) -> CameraFigures:
    """The figures of one camera from probabilities (N, 5) and labels (N,)."""
    confusion = confusion_matrix(labels, probabilities.argmax(1))
    right, support, answers = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    return CameraFigures(
        camera=camera,
        accuracy=right.sum() / len(labels),
        macro_recall=macro_figures(confusion)[1],
        recall={
            name: float(right[place] / support[place]) if support[place] else None
            for place, name in enumerate(CLASSES)
        },
        answers=dict(zip(CLASSES, (answers / len(labels)).tolist(), strict=True)),
    )


def measure_cameras(model_path: Path, images: np.ndarray, labels: np.ndarray) -> tuple[CameraFigures, ...]:
    """The model at `model_path` on images uint8 (N, P, P, C), labels (N,), through every camera."""
    return tuple(
        camera_figures(camera, predict(model_path, photograph(images, camera)), labels) for camera in CAMERAS
    )


def evaluate_through(
    model_path: Path,
    split: Split,
    out_dir: Path,
    name: str,
    split_name: str = "test",
    at_most: int = 10_000,
) -> Cameras:
    """The model on (a sample of) a split through every camera, written under `out_dir` as well.

    Raises InputError for a split without images, ModelError for a model that can't be run on it.
    """
    if not len(split.labels):
        raise InputError(f"the {split_name} split has no image to show through a camera")
    rows = sample(split.labels, at_most)
    images, labels = split.images[rows], split.labels[rows]
    figures = measure_cameras(model_path, images, labels)
    shares = np.bincount(labels, minlength=len(CLASSES)) / len(labels)
    out_dir.mkdir(parents=True, exist_ok=True)
    cameras = Cameras(
        model=name,
        split=split_name,
        images=len(labels),
        truth=dict(zip(CLASSES, shares.tolist(), strict=True)),
        cameras=figures,
        json_path=out_dir / f"{name}_cameras.json",
        picture=out_dir / f"{name}_cameras.png",
    )
    draw_cameras(cameras, cameras.picture)
    write_whole(cameras.json_path, cameras.model_dump_json(indent=2))
    return cameras


@task(name="evaluate-cameras", task_run_name="evaluate-cameras-{name}")
def evaluate_cameras(
    model_path: Path,
    data: PreparedData,
    out_dir: Path,
    name: str,
    split: SplitName = "test",
    seen: Path | None = None,
) -> Cameras:
    """Show the model a split through every camera and log where it does worst.

    Images whose digests lie in the file `seen` are left out.
    """
    images = unseen(load_split(data.directory, split), seen)
    cameras = evaluate_through(model_path, images, out_dir, name, split)
    grown, points = max(cameras.largest_growth.items(), key=lambda item: item[1])
    get_run_logger().info(
        "%s through %d cameras: accuracy %.3f as they are, %.3f at worst (%s); answers lean to %s by up to "
        "%.1f points", name, len(cameras.losses), cameras.cameras[0].accuracy, cameras.worst.accuracy,
        cameras.worst.camera, grown, points,
    )  # fmt: skip
    return cameras
