"""One night's experiment: its name, its directory, and what became of it.

An experiment that was cut off (power, kill -9) is taken up again under its own name by the next run
with the same data and configuration; one that ended is remembered in the store, so that a night with
nothing new can end in seconds.
"""

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path

from prefect import get_run_logger
from pydantic import BaseModel

from flows.config import RetrainConfig
from storage.errors import MissingObject
from storage.files import replacing
from storage.objects import ObjectStore
from storage.registry import Registry
from tasks.train import name_start

_LATEST = "experiments/latest.json"
_RUNNING = ".running.json"


class Experiment(BaseModel, frozen=True):
    """An experiment that is under way; `key` says which data and configuration it is made of.

    `champion` is the one at its beginning: an experiment that is taken up again goes on with that one.
    """

    id: str
    key: str
    champion: str | None
    directory: Path


def experiment_key(config: RetrainConfig, data_fingerprint: str) -> str:
    """SHA-256 over the data and all configuration that can change the outcome of a run."""
    decisive = config.model_dump_json(include={"prepare", "drift", "train", "convert", "targets"})
    return hashlib.sha256(f"{data_fingerprint}\n{decisive}".encode()).hexdigest()


def open_experiment(work_path: Path, key: str, champion: str | None = None) -> Experiment:
    """Take up the unfinished experiment of this key, or start a new one named YYYYMMDD_HHMMSS (UTC)."""
    for marker in sorted((work_path / "experiments").glob(f"*/{_RUNNING}"), reverse=True):
        begun = json.loads(marker.read_text())
        if begun["key"] == key:
            directory, champion = marker.parent, begun.get("champion")
            return Experiment(id=directory.name, key=key, champion=champion, directory=directory)
    directory = new_directory(work_path / "experiments")
    with replacing(directory / _RUNNING) as file:
        file.write(json.dumps({"key": key, "champion": champion}).encode())
    return Experiment(id=directory.name, key=key, champion=champion, directory=directory)


def champion_of(store: ObjectStore) -> str | None:
    """The champion's version, or None before the first."""
    champion = Registry(store).champion()
    return champion.version if champion else None


def from_champion(config: RetrainConfig, champion: str | None) -> RetrainConfig:
    """The configuration with the champion's version where training is to start from it, which is logged."""
    train = name_start(config.train, champion)
    if train != config.train:
        start = train.init_from or "there is no champion yet, so training starts as if it were empty"
        get_run_logger().info("init_from = champion: %s", start)
    return config.model_copy(update={"train": train})


def close_experiment(store: ObjectStore, experiment: Experiment, outcome: str) -> None:
    """Remember the outcome in the store, so that the next night can tell whether anything is new."""
    record = {"experiment": experiment.id, "key": experiment.key, "outcome": outcome}
    store.write(_LATEST, json.dumps(record, indent=2).encode())
    (experiment.directory / _RUNNING).unlink(missing_ok=True)


def ended_experiment(store: ObjectStore, key: str) -> dict | None:
    """The last experiment's record if it was made of exactly this, else None."""
    try:
        latest = json.loads(store.read(_LATEST))
    except MissingObject:
        return None
    return latest if latest["key"] == key else None


def new_directory(parent: Path) -> Path:
    """A fresh directory named by the time; the second that is taken already is waited out by counting up."""
    second = int(datetime.now(UTC).timestamp())
    while True:
        directory = parent / datetime.fromtimestamp(second, UTC).strftime("%Y%m%d_%H%M%S")
        try:
            directory.mkdir(parents=True)
        except FileExistsError:
            second += 1
        else:
            return directory
