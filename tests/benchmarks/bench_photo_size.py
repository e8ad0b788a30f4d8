"""What 160 px in colour gains or costs where the photos have it: 48 px grey against it, on the custom photos.

    STRESS_VISION_DATA=../shared/data python -m tests.benchmarks.bench_photo_size

Trains a network on the in-car photos alone, neutral against fatigue, with each kind of canvas on the same
photos, and measures it, float, on the same test photos. Groups (one person, one photo) lie in one split as a
whole, another split for each seed. Everything but the canvas is alike: layers, epochs, augmentation. The
document's light network enlarges 48 px to its own 160, so it does the same work on either canvas; `smallest`
works at the canvas' size, so eleven times the work at 160.
"""

import argparse
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from storage.opening import open_store
from tasks.classes import CLASSES
from tasks.config import RetrainConfig
from tasks.config.prepare import SPLITS
from tasks.evaluate.predict import predict
from tasks.ingest import IngestConfig, Source, ingest
from tasks.prepare import PrepareConfig, PreparedData, Split, load_split, prepare
from tasks.prepare.archive import write_npz
from tasks.prepare.photos import decode
from tasks.train import TrainConfig, train

_CANVASES = ((48, 1), (160, 3))
_SHARES = (0.65, 0.75)
"""Of the groups, up to which there is train and then val; the rest is test."""


def main() -> None:
    options = argparse.ArgumentParser(description="48 px grey against 160 px in colour.")
    options.add_argument("--epochs", type=int, default=14)
    options.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options.add_argument("--network", default="custom_light", choices=["custom_light", "smallest"])
    given = options.parse_args()
    photos = Path(os.environ.get("STRESS_VISION_DATA", "../shared/data")).absolute() / "custom_dataset"
    with TemporaryDirectory() as folder:
        home = Path(folder)
        everything = collected(photos, home)
        print(f"{len(everything.ids)} photos in {len(np.unique(everything.groups))} groups")
        for px, channels in _CANVASES:
            images = drawn(everything, photos, px, channels)
            for seed in given.seeds:
                started = time.monotonic()
                data = written(everything, images, home / f"{px}_{channels}_{seed}", seed)
                told = figures(data, given.network, given.epochs, seed)
                print(
                    f"{px} px, {channels} channels, split {seed}: {told}, {time.monotonic() - started:.0f} s",
                    flush=True,
                )


def collected(photos: Path, home: Path) -> Split:
    """All photos that prepare keeps, with their groups."""
    shutil.copytree(photos, home / "store/datasets/custom")
    source = Source(name="custom", prefix="datasets/custom")
    ingested = ingest(open_store(home / "store"), IngestConfig(sources=(source,)), home)
    directory = prepare(ingested, PrepareConfig(target_per_class=0), home).directory
    splits = [load_split(directory, name) for name in SPLITS]
    return Split(
        **{name: np.concatenate([getattr(split, name) for split in splits]) for name in vars(splits[0])}
    )


def drawn(everything: Split, photos: Path, px: int, channels: int) -> np.ndarray:
    """The same photos on another canvas, uint8 (N, px, px, channels)."""
    keys = (name.decode().removeprefix("custom:") for name in everything.ids.tolist())
    return np.array([decode(photos / key, px, channels, 50).pixels for key in keys])


def written(everything: Split, images: np.ndarray, directory: Path, seed: int) -> PreparedData:
    """The splits of one seed as files; a group is in one of them, alike for every canvas."""
    directory.mkdir()
    for name, rows in zip(SPLITS, parts(everything, seed), strict=True):
        columns = {key: column[rows] for key, column in vars(everything).items() if key != "images"}
        write_npz(directory / f"{name}_data.npz", columns, [images[rows]], (len(rows), *images.shape[1:]))
    return PreparedData(
        directory=directory, fingerprint="", label_set="fer2013", image_px=images.shape[1],
        channels=images.shape[3], sources=("custom",), counts={}, metadata_path=directory / "none",
        reused=False, pictures={},
    )  # fmt: skip


def parts(everything: Split, seed: int) -> Iterator[np.ndarray]:
    """Rows of train, val and test."""
    groups, member = np.unique(everything.groups, return_inverse=True)
    place = np.random.default_rng(seed).permutation(len(groups)) / len(groups)
    part = np.digitize(place, _SHARES)[member]
    return (np.flatnonzero(part == number) for number in range(len(SPLITS)))


def figures(data: PreparedData, network: str, epochs: int, seed: int) -> str:
    """Accuracy and area under the curve of fatigue on the test photos."""
    preset = RetrainConfig.model_validate({"preset": "smallest"}).train.model_dump()
    # few photos: smaller batches for more steps, and weights averaged over fewer of them
    preset["optimizer"]["ema_momentum"] = 0.98
    changes: dict[str, Any] = {"epochs": epochs, "seed": seed, "batch_size": 16}
    if network == "custom_light":
        changes["model"] = {"architecture": "custom_light", "input_px": 160}
    config = TrainConfig.model_validate(preset | changes)
    made = train(data, config, data.directory / "experiment", report=lambda _: None)
    test = load_split(data.directory, "test")
    chances = predict(made.model_path, test.images)
    fatigue = test.labels == CLASSES.index("fatigue")
    right = (chances.argmax(axis=1) == test.labels).mean()
    area = roc_auc_score(fatigue, chances[:, CLASSES.index("fatigue")])
    return f"{right:.1%} of {len(test.labels)} right, area {area:.3f}"


if __name__ == "__main__":
    main()
