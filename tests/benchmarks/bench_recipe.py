"""What balance, optimiser, schedule, stopping and augmentation are worth, one change at a time.

    stress-vision prepare --config retrain.toml --store /data/store      # prints where it wrote to
    python -m tests.benchmarks.bench_recipe work/prepared/81c61d37ecee7977

Trains `smallest` on a part of a prepared data set's training images, every variant from the same start on the
same images, and measures it, float, on all of its validation images, as they are and blurred by a
Gaussian of 1 px. Shorter than a night: what it shows is which way a change goes.
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from tasks.classes import CLASSES
from tasks.config import RetrainConfig
from tasks.evaluate.cameras import photograph
from tasks.evaluate.figures import confusion_matrix, macro_figures
from tasks.evaluate.intervals import share_interval
from tasks.evaluate.predict import predict
from tasks.prepare import PreparedData, load_split
from tasks.prepare.archive import write_npz
from tasks.train import TrainConfig, TrainedModel, train

_AUGMENTATION = TrainConfig().augmentation.model_dump()
_DOCUMENT = {name: value for name, value in TrainConfig().model_dump().items() if name != "model"}
"""The defaults of the fields are the phase document's."""

VARIANTS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "Adam": {"optimizer": {"name": "adam"}},
    "no schedule, halved on a plateau": {"optimizer": {"schedule": "plateau"}},
    "the document's augmentation": {"augmentation": _AUGMENTATION},
    "all as the document has it": {**_DOCUMENT, "batch_norm_images": 0},
    "every image once": {"prepare": {"target_per_class": 0}, "class_weights": 0.0},
    "equal": {"prepare": {"balance": "equal"}, "class_weights": 0.0},
    "filled up": {"class_weights": 0.0},
    "weighed": {"prepare": {"target_per_class": 0}, "class_weights": 1.0},
}


def main() -> None:
    options = argparse.ArgumentParser(description="One change to training at a time.")
    options.add_argument("prepared", type=Path, help="a prepared data set")
    options.add_argument("--images", type=int, default=12_000, help="to train on")
    options.add_argument("--epochs", type=int, default=6)
    options.add_argument("--seed", type=int, default=0, help="of the start, the batches and the part")
    options.add_argument("variants", nargs="*", default=list(VARIANTS), help="all by default")
    given = options.parse_intermixed_args()
    with TemporaryDirectory() as folder:
        home = Path(folder)
        data, share = part_of(PreparedData.read(given.prepared, reused=True), home, given.images, given.seed)
        print(f"{'':34} accuracy               macro recall  " + "  ".join(CLASSES))
        for place, name in enumerate(given.variants):
            fixed = {"epochs": given.epochs, "seed": given.seed}
            made = trained(data, VARIANTS[name], fixed, share, home / f"experiment_{place}")
            print(f"{name:34} {figures(made, given.prepared)}", flush=True)


def part_of(whole: PreparedData, home: Path, images: int, seed: int) -> tuple[PreparedData, float]:
    """The data set with fewer training images, in `home`, and their share of all of them."""
    split = load_split(whole.directory, "train")
    rows = np.sort(np.random.default_rng(seed).permutation(len(split.images))[:images])
    columns = {name: column[rows] for name, column in vars(split).items() if name != "images"}
    shape = (len(rows), *split.images.shape[1:])
    write_npz(home / "train_data.npz", columns, [split.images[rows]], shape)
    (home / "val_data.npz").symlink_to((whole.directory / "val_data.npz").absolute())
    return whole.model_copy(update={"directory": home}), len(rows) / len(split.images)


def trained(
    data: PreparedData, change: dict[str, Any], fixed: dict[str, Any], share: float, directory: Path
) -> TrainedModel:
    """`smallest` with a change; of each class so many images are drawn as of a part of the whole."""
    ours = RetrainConfig.model_validate({"preset": "smallest", "prepare": change.get("prepare", {})})
    drawing = ours.prepare.drawing
    data = data.model_copy(update={"drawing": drawing._replace(target=round(share * drawing.target))})
    config = ours.train.model_dump() | {key: value for key, value in change.items() if key != "prepare"}
    if "optimizer" in change:
        config["optimizer"] = ours.train.optimizer.model_dump() | change["optimizer"]
    return train(data, TrainConfig.model_validate(config | fixed), directory, report=lambda _: None)


def figures(made: TrainedModel, prepared: Path) -> str:
    """Accuracy and macro recall of the validation images, as they are and blurred, and the epoch kept."""
    split = load_split(prepared, "val")
    sharp = _measured(made.model_path, split.images, split.labels)
    soft = _measured(made.model_path, photograph(split.images, "blur 1 px"), split.labels)
    scores = ", ".join(f"{100 * score:.1f}" for score in made.history["val_accuracy"])
    return (
        f"{sharp}\n{'  blurred by 1 px':34} {soft}\n  epoch {made.best_epoch} of {made.epochs} kept: {scores}"
    )


def _measured(model: Path, images: np.ndarray, labels: np.ndarray) -> str:
    answers = predict(model, images).argmax(axis=1)
    right, confusion = answers == labels, confusion_matrix(labels, answers)
    low, high = share_interval(float(right.mean()), len(right))
    recalls = np.diag(confusion) / np.maximum(1, confusion.sum(axis=1))
    told = "  ".join(f"{recall:{len(name)}.0%}" for name, recall in zip(CLASSES, recalls, strict=True))
    return f"{right.mean():.1%} ({low:.1%} to {high:.1%})  {macro_figures(confusion)[1]:.1%}         {told}"


if __name__ == "__main__":
    main()
