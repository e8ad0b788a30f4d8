"""FER-2013 as its one CSV against the same images as Kaggle's folders of JPEGs: are the data sets alike?

    STRESS_VISION_DATA=../shared/data python -m tests.benchmarks.bench_layouts

Writes the folders from the CSV (re-encoded, numbered anew), lays FER+'s votes beside both, prepares both with
labels as `auto` finds them, and prints how many images of each class the two have.
"""

import argparse
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from storage.opening import open_store
from tasks.classes import CLASSES, FER2013_EMOTIONS
from tasks.config.prepare import SPLITS
from tasks.ingest import IngestConfig, ingest
from tasks.prepare import PrepareConfig, PreparedData, prepare
from tasks.prepare.fer2013 import Rows, read_fer2013
from tasks.prepare.threads import Pool

_USAGES = ("Training", "PublicTest", "PrivateTest")


def main() -> None:
    options = argparse.ArgumentParser(description="One CSV against Kaggle's folders.")
    options.add_argument("--quality", type=int, default=90, help="of the JPEGs")
    given = options.parse_args()
    source = Path(os.environ.get("STRESS_VISION_DATA", "../shared/data")).absolute() / "fer2013"
    with TemporaryDirectory() as folder:
        home = Path(folder)
        shutil.copytree(source, home / "csv/datasets/fer2013")
        write_folders(source / "fer2013.csv.xz", home / "folders/datasets/fer2013", given.quality)
        shutil.copy(source / "fer2013new.csv", home / "folders/datasets/fer2013")
        counts = {name: per_class(prepared(home, name)) for name in ("csv", "folders")}
    print(f"{'':8}  {'csv':>8}  {'folders':>8}  difference")
    for label in CLASSES:
        one, other = (counts[name][label] for name in ("csv", "folders"))
        print(f"{label:8}  {one:8,}  {other:8,}  {(other - one) / max(1, one):+.2%}")


def write_folders(csv: Path, folder: Path, quality: int) -> None:
    """`train/<emotion>/Training_<number>.jpg` and so on; the numbers say nothing."""
    numbers = np.random.default_rng(0).permutation(100_000)
    with Pool(0) as pool:
        for rows in read_fer2013(csv, csv.name, pool):
            for path, image in _files(rows, numbers):
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(folder / path, quality=quality)


def _files(rows: Rows, numbers: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    for image, emotion, usage, row in zip(rows.images, rows.emotions, rows.usages, rows.rows, strict=True):
        split = "test" if usage else "train"
        yield f"{split}/{FER2013_EMOTIONS[emotion]}/{_USAGES[usage]}_{numbers[row]}.jpg", image


def prepared(home: Path, name: str) -> PreparedData:
    """The data set of a layout; prints its label set and what was said of its images."""
    ingested = ingest(open_store(home / name), IngestConfig(), home / f"{name}_work")
    data = prepare(ingested, PrepareConfig(), home / f"{name}_work")
    notes = json.loads(data.metadata_path.read_text())["notes"]
    print(f"{name}: labels {data.label_set}", *notes, sep="\n  ")
    return data


def per_class(data: PreparedData) -> dict[str, int]:
    """Images of each class over all splits."""
    return {label: sum(data.counts[split][label] for split in SPLITS) for label in CLASSES}


if __name__ == "__main__":
    main()
