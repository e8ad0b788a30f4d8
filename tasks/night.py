"""The one record of a night: what it was asked, what each stage found, and how it ended.

It outlives the process: kept as JSON in the store under `nights/<key>.json`, where the key is made of the
data, the configuration and the code that can change its outcome. A night that was cut off is taken up from
it, one that is done isn't repeated, and report, advice and final word are functions of it.

Paths in it lie below the work directory of the machine that reads it: in the store they are written with
`{work}` in its place.
"""

import hashlib
import json
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ValidationError

from storage.errors import InputError, MissingObject
from storage.objects import ObjectStore
from tasks.candidate import Candidate
from tasks.config import RetrainConfig
from tasks.drift import Drift
from tasks.evaluate.layers import LayerError
from tasks.gate import Verdict
from tasks.prepare import PreparedData
from tasks.register import Release
from tasks.rollout import FleetOutcome, FleetWord

Outcome = Literal[FleetWord, "Registered", "Rejected", "Drifted"]

_AFTER_THE_GATE = {"report", "advice", "rollout", "sweep"}
"""Folders of tasks/ that can't change what a candidate is, nor whether it passes."""


class Night(BaseModel, frozen=True, extra="forbid"):
    """What a stage that wasn't reached would have found is None."""

    id: str
    """YYYYMMDD_HHMMSS (UTC), the name of its experiment."""
    key: str
    started_at: datetime
    config: RetrainConfig
    champion: str | None
    """The version that was champion when it began, which the candidate is compared with and replaces."""
    data: PreparedData | None = None
    drift: Drift | None = None
    candidate: Candidate | None = None
    verdict: Verdict | None = None
    layer_errors: tuple[LayerError, ...] = ()
    release: Release | None = None
    fleet: FleetOutcome | None = None
    ended_at: datetime | None = None
    run: str | None = None
    """Address, or id where it has none, of the Prefect run that works or has worked on it last."""

    @property
    def stopped_by_drift(self) -> bool:
        """Whether the data is too far from the champion's to train on unseen."""
        return bool(self.config.drift.stop and self.drift and self.drift.report.shifted)

    @property
    def made(self) -> Candidate:
        """The candidate of a night that trained one."""
        if self.candidate is None:
            raise ValueError(f"night {self.id} has trained no candidate")
        return self.candidate

    @property
    def slowest_p95_ms(self) -> float | None:
        """p95 latency of the slowest device that measured."""
        devices = self.fleet.devices if self.fleet else ()
        return max((device.benchmark.p95_ms for device in devices if device.benchmark), default=None)

    @property
    def latency_ms(self) -> float | None:
        """p95 of the slowest device, or of this host where none has measured."""
        slowest = self.slowest_p95_ms
        return self.made.model.host_p95_ms if slowest is None else slowest

    @property
    def outcome(self) -> Outcome | None:
        """The final word, or None while there is none."""
        if self.verdict is None:
            return "Drifted" if self.stopped_by_drift else None
        if not self.verdict.passed:
            return "Rejected"
        if self.fleet:
            return self.fleet.word
        return "Registered" if self.release else None

    @property
    def headline(self) -> str:
        """The outcome in one sentence."""
        if self.fleet:
            return self.fleet.sentence
        if self.release:
            return f"Release {self.release.version} is registered; no fleet was asked for."
        if self.verdict and not self.verdict.passed:
            return f"Nothing was released. Missed targets: {', '.join(self.verdict.missed)}."
        if self.drift and self.stopped_by_drift:
            shifted, champion = ", ".join(self.drift.report.shifted), self.drift.champion
            return f"Nothing was trained: {shifted} shifted against the data of champion {champion}."
        if self.verdict:
            return "Every target is reached; nothing is released yet: a run with its configuration does that."
        return "It has not come to an end."


def night_key(config: RetrainConfig, data_fingerprint: str) -> str:
    """SHA-256 over the data and over all configuration and code that can change the outcome of a night."""
    decisive = config.model_dump_json(include={"prepare", "drift", "train", "convert", "targets"})
    return hashlib.sha256(f"{data_fingerprint}\n{decisive}\n{code_version()}".encode()).hexdigest()


@cache
def code_version() -> str:
    """SHA-256 over the program's own sources up to the gate, so that an upgrade makes a new night."""
    root, digest = Path(__file__).parent, hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        if path.relative_to(root).parts[0] not in _AFTER_THE_GATE:
            digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def load_night(store: ObjectStore, key: str, work: Path) -> Night | None:
    """The record of that key, or None; also None for one that another version of this program wrote."""
    try:
        text = store.read(_place(key)).decode()
        return Night.model_validate_json(text.replace("{work}", _as_json(work)))
    except (MissingObject, UnicodeDecodeError, ValidationError):
        return None


def find_night(store: ObjectStore, experiment: str, work: Path) -> Night:
    """The record of the night that began the experiment. InputError where none can be read."""
    mark = json.dumps({"id": experiment})[1:-1].encode()
    for info in store.list("nights"):
        if mark in store.read(info.key):
            night = load_night(store, info.key.removeprefix("nights/").removesuffix(".json"), work)
            if night:
                return night
    raise InputError(
        f"{store.uri}/nights has no record of experiment {experiment} that this version can read. A report "
        f"that it has already is experiments/{experiment}/report.html; `stress-vision train` with its "
        "configuration makes an experiment that can have one"
    )


def save_night(store: ObjectStore, night: Night, work: Path) -> None:
    """Put the record in place of what was known of its key before."""
    store.write(_place(night.key), night.model_dump_json(indent=1).replace(_as_json(work), "{work}").encode())


def _place(key: str) -> str:
    return f"nights/{key}.json"


def _as_json(path: Path) -> str:
    return json.dumps(str(path))[1:-1]
