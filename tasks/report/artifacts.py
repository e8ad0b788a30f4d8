"""A night on its run's page in Prefect: artifacts with fixed keys, whose history is the trend.

In: the `Night` and where its report can be opened. Out: the artifacts of `KEYS`, as far as there is something
to show. Pictures are Markdown with a data URI: an artifact of the picture kind would also print it as text.
"""

import io
from collections.abc import Iterator
from pathlib import Path

from PIL import Image
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact

from tasks.candidate import Candidate
from tasks.classes import CLASSES
from tasks.night import Night
from tasks.prepare import PreparedData
from tasks.report.formats import data_uri_of, percent, points, words
from tasks.rollout import FleetOutcome

KEYS = {
    "verdict": "the outcome in a sentence, and every check with value and target",
    "report": "a link to the whole report",
    "data": "images by split and class",
    "training-history": "loss and accuracy by epoch",
    "confusion-matrix": "what the INT8 model took for what",
    "cameras": "accuracy as other cameras would show the images",
    "float-against-int8": "what INT8 costs, figure by figure",
    "fleet": "what became of each device",
    "latency": "milliseconds a frame on each device that measured",
    "model-card": "what the model is for, and its limits",
    "training-progress": "how far the training is, while it lasts",
}
"""In the order in which they are read."""
_ARTIFACT_BYTES = 95_000
"""Prefect keeps artifacts in its database, and shows one above 100 kB slowly or not at all."""
_LATENCY_ROWS = 200
_COLOURS = (128, 64, 32, 16)


def show_night(night: Night, summary: str, card: str, link: str) -> None:
    """All artifacts of a night; `summary` and `card` are Markdown, `link` opens the report."""
    create_markdown_artifact(summary, key="verdict", description=night.headline)
    create_link_artifact(link, link_text="The whole report", key="report", description=night.headline)
    if night.data:
        create_table_artifact(data_table(night.data), key="data", description=_data_words(night.data))
    if night.candidate:
        _show_candidate(night.candidate)
    if night.fleet:
        show_fleet(night.fleet)
    if card:
        create_markdown_artifact(
            card, key="model-card", description=f"What {night.id} is for, and its limits"
        )


def show_fleet(fleet: FleetOutcome) -> None:
    """The devices, and how fast those are that measured."""
    said = f"Devices after rolling out {fleet.release}"
    create_table_artifact(fleet.table(), key="fleet", description=said)
    if rows := latency_table(fleet):
        said = f"Milliseconds a frame, at most {fleet.max_latency_ms:g} at p95"
        create_table_artifact(rows, key="latency", description=said)


def data_table(data: PreparedData) -> list[dict[str, str | int]]:
    """Images by split and class, one row a split."""
    return [
        {
            "images": words(split),
            **{name: counts.get(name, 0) for name in CLASSES},
            "all": sum(counts.values()),
        }
        for split, counts in data.counts.items()
    ]


def latency_table(fleet: FleetOutcome) -> list[dict[str, str | float]]:
    """One row a device that measured, the slowest first."""
    measured = [(one.device, one.benchmark) for one in fleet.devices if one.benchmark]
    measured = sorted(measured, key=lambda pair: -pair[1].p95_ms)[:_LATENCY_ROWS]
    return [
        {
            "device": name,
            "p50 ms": round(one.p50_ms, 2),
            "p95 ms": round(one.p95_ms, 2),
            "p99 ms": round(one.p99_ms, 2),
            "frames a second": round(one.fps, 1),
            "machine": one.machine.model,
        }
        for name, one in measured
    ]


def float_int8_table(candidate: Candidate) -> list[dict[str, str]]:
    """What INT8 costs, one row a figure."""
    pairs = {
        "accuracy": (candidate.original.accuracy, candidate.int8.accuracy),
        "macro recall": (candidate.original.macro_recall, candidate.int8.macro_recall),
        **{
            f"{name} found": (
                candidate.original.per_class[name].recall,
                candidate.int8.per_class[name].recall,
            )
            for name in CLASSES
        },
    }
    return [
        {"figure": name, "float": percent(a), "INT8": percent(b), "INT8 less float": _difference(a, b)}
        for name, (a, b) in pairs.items()
    ]


def small_picture(path: Path) -> str | None:
    """The picture as a data URI that an artifact can hold, in as many colours as fit; None where none do."""
    with Image.open(path) as picture:
        plain = picture.convert("RGB")
    for colours in _COLOURS:
        written = io.BytesIO()
        plain.quantize(colours).save(written, format="PNG", optimize=True)
        if len(uri := data_uri_of(written.getvalue())) < _ARTIFACT_BYTES:
            return uri
    return None


def _show_candidate(candidate: Candidate) -> None:
    for key, path in _pictures(candidate):
        if path and path.exists() and (uri := small_picture(path)):
            said = f"{words(key.replace('-', '_')).capitalize()} of {candidate.trained.experiment_id}"
            create_markdown_artifact(f"![{said}]({uri})", key=key, description=said)
    agreement = candidate.agreement()
    create_table_artifact(
        float_int8_table(candidate),
        key="float-against-int8",
        description=f"The same answer for {percent(agreement.share)} of the test images",
    )


def _pictures(candidate: Candidate) -> Iterator[tuple[str, Path | None]]:
    yield "training-history", candidate.trained.pictures.get("training_history")
    yield "confusion-matrix", candidate.int8.pictures.get("confusion_matrix")
    yield "cameras", candidate.cameras.picture


def _data_words(data: PreparedData) -> str:
    return f"Images of {', '.join(data.sources)}, labels {data.label_set}, fingerprint {data.fingerprint}"


def _difference(a: float | None, b: float | None) -> str:
    return points(None if a is None or b is None else b - a)
