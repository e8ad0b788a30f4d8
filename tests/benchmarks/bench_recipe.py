"""What balance, optimiser, schedule and augmentation are worth, one change at a time.

    STRESS_VISION_DATA=../shared/data python -m tests.benchmarks.bench_recipe

Trains `smallest` on a part of FER-2013 (FER+ votes, copies dropped) and of the in-car photos, every variant
from the same start on the same images, and measures it, float, on the same validation images. Of the photos
runs of 70 frames are learnt from and the next 30 validated on, so that few people are in both. Shorter
than a night: what it shows is which way a change goes.
"""

import argparse
import os
import re
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from storage.opening import open_store
from tasks.classes import CLASSES
from tasks.config import RetrainConfig
from tasks.evaluate.figures import confusion_matrix, macro_figures
from tasks.evaluate.intervals import share_interval
from tasks.evaluate.predict import predict
from tasks.ingest import IngestConfig, ingest
from tasks.prepare import PreparedData
from tasks.prepare.archive import write_npz
from tasks.prepare.collection import Collection, collect
from tasks.prepare.dataset import settled
from tasks.prepare.duplicates import number_copies
from tasks.prepare.labels import SCORED, TRAIN_ONLY, by_emotion, resolve
from tasks.prepare.pixels import PixelFile
from tasks.prepare.threads import Pool
from tasks.train import TrainConfig, train

_DOCUMENT = {"shift_share": 0.1, "zoom_share": 0.05, "brightness_share": 0.1, "horizontal_flip": True}
VARIANTS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "every image once": {"prepare": {"target_per_class": 0}, "class_weights": 0.0},
    "filled up": {"prepare": {"target_per_class": 2500}, "class_weights": 0.0},
    "equal": {"prepare": {"target_per_class": 2500, "balance": "equal"}, "class_weights": 0.0},
    "weighed": {"prepare": {"target_per_class": 0}, "class_weights": 1.0},
    "Adam, rate lowered on a plateau": {"optimizer": {"name": "adam", "learning_rate": 0.001}},
    "the document's augmentation": {"augmentation": _DOCUMENT},
}


def main() -> None:
    options = argparse.ArgumentParser(description="One change to training at a time.")
    options.add_argument("--images", type=int, default=12_000, help="of FER-2013 to train on")
    options.add_argument("--epochs", type=int, default=6)
    options.add_argument("variants", nargs="*", default=list(VARIANTS), help="all by default")
    given = options.parse_args()
    with TemporaryDirectory() as folder:
        home = Path(folder)
        data = write_splits(home, given.images)
        print(f"{'':34} accuracy               macro recall  " + "  ".join(CLASSES))
        for place, name in enumerate(given.variants):
            told = trained(data, VARIANTS[name], given.epochs, home / f"experiment_{place}")
            print(f"{name:34} {told}", flush=True)


def write_splits(home: Path, images: int) -> PreparedData:
    """train_data.npz and val_data.npz of a part of the data."""
    source = Path(os.environ.get("STRESS_VISION_DATA", "../shared/data")).absolute()
    shutil.copytree(source / "fer2013", home / "store/datasets/fer2013")
    shutil.copytree(source / "custom_dataset", home / "store/datasets/custom")
    ingested = ingest(open_store(home / "store"), IngestConfig(), home)
    config = settled(RetrainConfig().prepare, ingested)
    with Pool(0) as pool, PixelFile(home / "pixels", 48, 1) as pixels:
        everything = collect(ingested, config, pixels, pool)
        first, copies = number_copies(everything.hashes)
        labels = resolve(everything.votes, copies, config)
        train_rows, val_rows = _parts(everything, labels.use, first, images)
        targets = by_emotion(labels.votes, everything.emotions, copies)
        for name, rows in (("train", train_rows), ("val", val_rows)):
            columns = {
                "labels": labels.labels[rows],
                "emotions": targets[rows],
                "sources": everything.sources[rows],
                "ids": everything.ids[rows],
                "augmented": np.zeros(len(rows), bool),
                "digests": everything.hashes[rows],
                "groups": np.arange(len(rows), dtype=np.int32),
            }
            write_npz(home / f"{name}_data.npz", columns, pixels.chunks(rows), (len(rows), 48, 48, 1))
            print(name, np.bincount(labels.labels[rows], minlength=len(CLASSES)).tolist())
    return PreparedData(
        directory=home, fingerprint="", label_set="ferplus_votes", image_px=48, channels=1,
        sources=everything.names, counts={}, metadata_path=home / "none", reused=False, pictures={},
    )  # fmt: skip


def _parts(
    everything: Collection, use: np.ndarray, first: np.ndarray, images: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on and to validate on; those without a majority are only trained on."""
    rows = first[np.isin(use[first], (SCORED, TRAIN_ONLY))]
    faces = np.random.default_rng(0).permutation(rows[everything.sources[rows] == 0])
    photos = rows[everything.sources[rows] == 1]
    # by file number within a folder, since frames follow each other
    numbers = [int(re.sub(rb"\D", b"", name)) for name in everything.ids[photos].tolist()]
    photos = photos[np.lexsort((numbers, everything.votes[photos].argmax(axis=1)))]
    early = np.arange(len(photos)) % 100 < 70
    val = np.concatenate([faces[images : images + 6000], photos[~early]])
    return np.sort(np.concatenate([faces[:images], photos[early]])), np.sort(val[use[val] == SCORED])


def trained(data: PreparedData, change: dict[str, Any], epochs: int, directory: Path) -> str:
    """A line of figures on the validation images."""
    config = RetrainConfig.model_validate({"preset": "smallest"})
    asked = {key: value for key, value in change.items() if key != "prepare"}
    network = config.train.model_dump() | {"epochs": epochs} | asked
    prepared = RetrainConfig.model_validate(
        {"preset": "smallest", "prepare": change.get("prepare", {})}
    ).prepare
    data = data.model_copy(update={"drawing": prepared.drawing})
    made = train(data, TrainConfig.model_validate(network), directory, report=lambda _: None)
    with np.load(data.directory / "val_data.npz") as split:
        images, labels = split["images"], split["labels"]
    answers = predict(made.model_path, images).argmax(axis=1)
    right, confusion = answers == labels, confusion_matrix(labels, answers)
    low, high = share_interval(float(right.mean()), len(right))
    recalls = np.diag(confusion) / np.maximum(1, confusion.sum(axis=1))
    told = "  ".join(f"{recall:{len(name)}.0%}" for name, recall in zip(CLASSES, recalls, strict=True))
    return f"{right.mean():.1%} ({low:.1%} to {high:.1%})  {macro_figures(confusion)[1]:.1%}         {told}"


if __name__ == "__main__":
    main()
