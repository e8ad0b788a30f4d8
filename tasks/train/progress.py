"""How far a run has come, on disk, so that a killed one goes on.

An epoch counts as finished once `checkpoints/progress.json` names its weights file, which holds the
optimiser's state too and is whole by then. Files get their final names by a rename.
"""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

from pydantic import BaseModel

from storage.files import write_whole
from tasks.config.train import TrainConfig

BEST_MODEL = "checkpoints/best_model.keras"
WRITING_BEST = "checkpoints/writing_best.keras"
WRITING_EPOCH = "checkpoints/writing.weights.h5"
_PROGRESS = "checkpoints/progress.json"


class Progress(BaseModel, frozen=True, extra="forbid"):
    """A run up to its last finished epoch; `counters` are the callbacks' own, by class name."""

    epochs: int = 0
    weights: str = ""
    seconds: float = 0.0
    stopped: bool = False
    history: dict[str, list[float]] = {}
    counters: dict[str, dict[str, float | None]] = {}


def read_progress(directory: Path) -> Progress:
    """What an earlier call left in `directory`, or an empty Progress."""
    path = directory / _PROGRESS
    return Progress.model_validate_json(path.read_bytes()) if path.exists() else Progress()


def commit_epoch(directory: Path, done: Progress, keep: int) -> None:
    """Make an epoch's files final, `progress.json` last; drop all but the `keep` newest checkpoints."""
    checkpoints = directory / "checkpoints"
    (directory / WRITING_EPOCH).replace(checkpoints / done.weights)
    if (directory / WRITING_BEST).exists():
        (directory / WRITING_BEST).replace(directory / BEST_MODEL)
    write_whole(directory / "training_history.json", json.dumps(done.history, indent=1))
    write_whole(directory / "training_log.csv", _as_csv(done.history))
    write_whole(directory / _PROGRESS, done.model_dump_json())
    for old in sorted(checkpoints.glob("epoch_*.weights.h5"))[:-keep]:
        old.unlink()


def finished_files(directory: Path) -> list[Path]:
    """What is worth keeping of an experiment: all but hidden files and per-epoch checkpoints."""
    files = (path for path in directory.rglob("*") if path.is_file() and not path.name.startswith("."))
    return sorted(path for path in files if path.parent.name != "checkpoints" or path.match(BEST_MODEL))


def describe(done: Progress, config: TrainConfig, images: int, epochs_here: int, seconds_here: float) -> str:
    """One line for a person: where the run is, how good, how fast (`images` an epoch), how long still."""
    best, at = best_epoch(done.history, config)
    left = 0 if done.stopped else (config.epochs - done.epochs) * seconds_here / epochs_here
    last = {name: values[-1] for name, values in done.history.items()}
    return (
        f"epoch {done.epochs}/{config.epochs} · loss {last['loss']:.3f} · accuracy {last['accuracy']:.3f} · "
        f"validation loss {last['val_loss']:.3f}, accuracy {last['val_accuracy']:.3f} · "
        f"best {config.monitor} {best:.3f} (epoch {at}) · "
        f"{images * epochs_here / seconds_here:.0f} images/s · "
        + ("stopped early" if done.stopped else f"at most {left / 60:.1f} min left")
    )


def best_epoch(history: dict[str, list[float]], config: TrainConfig) -> tuple[float, int]:
    """Best value of the monitored figure and its epoch from 1; the first of equals, as in Keras."""
    values = history[config.monitor]
    best = (min if config.monitor == "val_loss" else max)(values)
    return best, values.index(best) + 1


def _as_csv(history: dict[str, list[float]]) -> str:
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow(["epoch", *history])
    rows.writerows([epoch, *row] for epoch, row in enumerate(zip(*history.values(), strict=True), start=1))
    return text.getvalue()
