"""A store of drawn faces, ingested for real, to prepare data sets from."""

import csv
from pathlib import Path

import numpy as np

from storage.opening import open_store
from tasks.ingest import IngestConfig, Ingested, ingest
from tasks.prepare import PrepareConfig
from tasks.synthetic import write_dataset

FERPLUS_COLUMNS: tuple[str, ...] = (
    "Usage", "Image name", "neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear",
    "contempt", "unknown", "NF",
)  # fmt: skip
PLAIN = PrepareConfig(target_per_class=0)


def drawn_store(folder: Path, per_class: int = 30) -> Path:
    """FER-2013 as CSV, fatigue as photos."""
    store = folder / "store"
    write_dataset(store, per_class, seed=5)
    return store


def csv_path(store: Path) -> Path:
    return store / "datasets/fer2013/fer2013.csv"


def csv_lines(store: Path) -> list[str]:
    """The rows of fer2013.csv without its header."""
    return csv_path(store).read_text().splitlines()[1:]


def write_lines(store: Path, lines: list[str]) -> None:
    csv_path(store).write_text("\n".join(["emotion,pixels,Usage", *lines]) + "\n")


def write_votes(store: Path, votes: list[dict[str, int]]) -> None:
    """fer2013new.csv; image names carry misleading numbers, as the real ones do."""
    with (store / "datasets/fer2013/fer2013new.csv").open("w", newline="") as file:
        rows = csv.DictWriter(file, FERPLUS_COLUMNS, restval=0)
        rows.writeheader()
        for number, row in enumerate(votes):
            rows.writerow({"Usage": "Training", "Image name": f"fer{number * 7:07d}.png"} | row)


def ingested(store: Path, work: Path) -> Ingested:
    return ingest(open_store(store), IngestConfig(), work)


def pixels_of(line: str) -> np.ndarray:
    """The image of a row, uint8 (48, 48)."""
    return np.array(line.split(",")[1].split(), np.uint8).reshape(48, 48)


def row(image: np.ndarray, emotion: int = 3, usage: str = "Training") -> str:
    return f"{emotion},{' '.join(map(str, image.ravel()))},{usage}"
