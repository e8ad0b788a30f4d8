"""An experiment on its own: found by name, brought here, and what its steps need to go on from it.

In: the store, the work directory, a name, `newest` among them. Out: `Experiment`, the folder of its files on
this machine, its data set. Experiments lie under `experiments/` of the work directory and of the store; one
that lies in the store alone is brought here by the step that uses it.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from storage.errors import InputError, MissingObject
from storage.files import arriving_directory
from storage.objects import ObjectStore
from tasks.prepare import PreparedData
from tasks.report.publish import fetch_experiment
from tasks.train.progress import finished_files
from tasks.train.seen import SEEN_IMAGES

NEWEST = "newest"
MODEL, CONFIG = "final_model.keras", "experiment_config.json"
_NAME = re.compile(r"\d{8}_\d{6}")
_FINGERPRINT = re.compile(r"[0-9a-f]{16}")
_SHOWN = 10


class Experiment(BaseModel, frozen=True, extra="forbid"):
    """What is known of one before any of its files is read."""

    id: str
    files: frozenset[str]
    """By their place below the experiment's folder; here and in the store."""

    @property
    def finished(self) -> bool:
        """Whether its training came to an end."""
        return {MODEL, CONFIG} <= self.files

    @property
    def state(self) -> str:
        """unfinished, trained, or converted as well."""
        if not self.finished:
            return "unfinished"
        return "converted" if "model_int8.tflite" in self.files else "trained"

    def row(self, store: ObjectStore, work: Path) -> dict[str, str]:
        """A line of 80 columns for a person to choose by; its facts come from the folder or the store."""
        facts, history = (self._read(name, store, work) for name in (CONFIG, "training_history.json"))
        accuracy = _at(history, "val_accuracy")
        return {
            "experiment": self.id,
            "state": self.state,
            "network": _at(facts, "train", "model", "architecture") or "",
            "labels": _at(facts, "data", "label_set") or "",
            "val. acc.": f"{max(accuracy):.3f}" if accuracy else "",
        }

    def _read(self, name: str, store: ObjectStore, work: Path) -> Any:
        path = work / "experiments" / self.id / name
        try:
            content = path.read_bytes() if path.exists() else store.read(f"experiments/{self.id}/{name}")
            return json.loads(content)
        except (MissingObject, ValueError):
            return {}


def _at(facts: Any, *names: str) -> Any:
    """What lies at that place of a JSON file; None where it has no such place."""
    for name in names:
        facts = facts.get(name) if isinstance(facts, dict) else None
    return facts


def list_experiments(store: ObjectStore, work: Path) -> list[Experiment]:
    """All of them, here or in the store, the newest first."""
    files: dict[str, set[str]] = {}
    for name, file in (*_stored(store), *_here(work)):
        files.setdefault(name, set()).add(file)
    found = (Experiment(id=name, files=frozenset(names)) for name, names in files.items())
    return sorted(found, key=lambda one: one.id, reverse=True)


def _stored(store: ObjectStore) -> Iterator[tuple[str, str]]:
    for info in store.list("experiments"):
        _, name, *rest = info.key.split("/")
        if _NAME.fullmatch(name) and rest:
            yield name, "/".join(rest)


def _here(work: Path) -> Iterator[tuple[str, str]]:
    for directory in (work / "experiments").glob("*_*"):
        if _NAME.fullmatch(directory.name):
            yield from (
                (directory.name, path.relative_to(directory).as_posix()) for path in finished_files(directory)
            )


def find_experiment(store: ObjectStore, work: Path, name: str, *, finished: bool = True) -> Experiment:
    """The experiment of that name, or the newest. InputError where there is none, or it isn't `finished`."""
    every = list_experiments(store, work)
    if name == NEWEST:
        every = [one for one in every if one.finished or not finished]
    found = next((one for one in every if name in (one.id, NEWEST)), None)
    if found is None:
        there = ", ".join(one.id for one in every[:_SHOWN]) or "none; `stress-vision train` makes one"
        raise InputError(f"{_places(store, work)}: no experiment {name!r}; there are: {there}")
    if finished and not found.finished:
        raise InputError(
            f"experiment {name} is unfinished: expected {MODEL} and {CONFIG} among its files, found "
            f"{', '.join(sorted(found.files)[:_SHOWN]) or 'none'}. Start `stress-vision train` with its "
            "configuration again: it goes on where it stopped"
        )
    return found


def _places(store: ObjectStore, work: Path) -> str:
    return f"{store.uri}/experiments and {work / 'experiments'}"


def bring_experiment(store: ObjectStore, work: Path, experiment: Experiment) -> Path:
    """The folder of its files on this machine, those that only the store has fetched."""
    directory = work / "experiments" / experiment.id
    fetch_experiment(store, directory)
    return directory


def seen_by(directory: Path) -> Path | None:
    """The file of what the experiment's network has learnt from, where it tells."""
    path = directory / SEEN_IMAGES
    return path if path.exists() else None


def data_of(store: ObjectStore, work: Path, directory: Path) -> PreparedData:
    """The data set that an experiment was trained on, from this machine or from the store.

    InputError where its configuration can't be read or the data set is gone.
    """
    path = directory / CONFIG
    try:
        fingerprint = json.loads(path.read_bytes())["data"]["fingerprint"]
        if not (isinstance(fingerprint, str) and _FINGERPRINT.fullmatch(fingerprint)):
            raise ValueError(f"{str(fingerprint)[:40]!r} instead of 16 hex digits")
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} doesn't tell the data set: expected data.fingerprint, got {error}"
        ) from None
    folder = work / "prepared" / fingerprint
    if not (folder / "metadata.json").exists():
        _fetch_data(store, fingerprint, folder)
    return PreparedData.read(folder, reused=True)


def _fetch_data(store: ObjectStore, fingerprint: str, folder: Path) -> None:
    stored = store.list(f"prepared/{fingerprint}")
    if not any(info.key.endswith("/metadata.json") for info in stored):
        raise InputError(
            f"data set {fingerprint} is neither in {folder} nor in {store.uri}/prepared: `stress-vision "
            "prepare` with the experiment's configuration makes it again"
        )
    with arriving_directory(folder) as part:
        for info in stored:
            store.download(info.key, part / info.key.rpartition("/")[2])
