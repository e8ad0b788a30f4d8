"""The nights before: one small record a night in the store, and what they look like side by side.

In: the `Night` and the store. Out: `history/<id>.json`, of which `history.html` in the store and the small
pictures in each report are made. What was not measured is None, and no point in a picture.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from markupsafe import Markup
from pydantic import BaseModel, ValidationError

from storage.errors import MissingObject
from storage.objects import ObjectStore
from storage.registry import Registry
from tasks.report.formats import milliseconds, percent

if TYPE_CHECKING:
    from tasks.night import Night

Said = Callable[[float], str]
"""How a value is written."""
SHOWN = 60
"""Nights in a picture; all of them are kept."""
_FOLDER = "history/"
_WIDTH, _HEIGHT, _EDGE = 320, 90, 8
_TONES = {"Deployed": "good", "Registered": "good", "Drifted": "mixed", "PartlyDeployed": "mixed"}


class PastNight(BaseModel, frozen=True):
    """What is remembered of a night. Shares are 0 to 1; unknown fields of later versions are left alone."""

    id: str
    started_at: datetime
    preset: str
    outcome: str
    headline: str = ""
    images: int | None = None
    accuracy: float | None = None
    macro_recall: float | None = None
    stress_recall: float | None = None
    points_lost: float | None = None
    model_bytes: int | None = None
    latency_ms: dict[str, float] = {}
    """p95 by device, or of "this host" where none has measured."""
    release: str | None = None
    min_accuracy: float | None = None
    run: str | None = None

    @property
    def tone(self) -> str:
        """good, mixed or bad: the colour of its outcome."""
        return _TONES.get(self.outcome, "bad")

    @property
    def slowest_ms(self) -> float | None:
        """p95 of the slowest device."""
        return max(self.latency_ms.values(), default=None)


def past_night(night: "Night") -> PastNight:
    """What is remembered of it once it is over."""
    seen = night.data.counts if night.data else {}
    made = night.candidate
    figures = (
        {
            "accuracy": made.int8.accuracy,
            "macro_recall": made.int8.macro_recall,
            "stress_recall": made.int8.per_class["stress"].recall,
            "points_lost": made.points_lost,
            "model_bytes": made.model.bytes,
        }
        if made
        else {}
    )
    return PastNight(
        id=night.id,
        started_at=night.started_at,
        preset=night.config.preset,
        outcome=night.outcome or "",
        headline=night.headline,
        images=sum(sum(seen.get(split, {}).values()) for split in ("train", "val", "test")) or None,
        latency_ms=_latency(night),
        release=night.release.version if night.release else None,
        min_accuracy=night.config.targets.min_accuracy,
        run=night.run,
        **figures,
    )


def remember(store: ObjectStore, night: PastNight) -> None:
    """Keep it, in place of what was known of it before."""
    store.write(f"{_FOLDER}{night.id}.json", night.model_dump_json(indent=1).encode())


def read_history(store: ObjectStore, last: int = SHOWN) -> tuple[PastNight, ...]:
    """The last nights, the oldest first; one that can't be read is left out."""
    keys = sorted(info.key for info in store.list(_FOLDER) if info.key.endswith(".json"))
    found = (_read(store, key) for key in keys[-last:])
    return tuple(night for night in found if night)


def champion_version(store: ObjectStore) -> str | None:
    """The release that devices should run, if there is one."""
    champion = Registry(store).champion()
    return champion.version if champion else None


def trends(nights: Sequence[PastNight], champion: str | None) -> list[tuple[str, str, str, Markup]]:
    """Title, last value, range and picture of each figure that at least two nights have."""
    wanted: list[tuple[str, Callable[[PastNight], float | None], Said]] = [
        ("Accuracy, INT8", lambda night: night.accuracy, percent),
        ("Stress found", lambda night: night.stress_recall, percent),
        ("Macro recall", lambda night: night.macro_recall, percent),
        ("Lost by INT8, points", lambda night: night.points_lost, "{:.2f}".format),
        ("Images", lambda night: night.images, "{:,.0f}".format),
    ]
    devices = sorted({name for night in nights for name in night.latency_ms})[:6]
    wanted += [(f"{name}, p95", _of_device(name), milliseconds) for name in devices]
    drawn = []
    for title, figure, form in wanted:
        values = [figure(night) for night in nights]
        there = [value for value in values if value is not None]
        if len(there) > 1:
            target = nights[-1].min_accuracy if title.startswith("Accuracy") else None
            picture = _picture(nights, values, form, champion, target)
            drawn.append((title, form(there[-1]), f"{form(min(there))} to {form(max(there))}", picture))
    return drawn


def _picture(
    nights: Sequence[PastNight],
    values: Sequence[float | None],
    form: Said,
    champion: str | None,
    target: float | None,
) -> Markup:
    """A line with a dot a night; releases are filled, the champion is ringed, the target is dashed."""
    there = [value for value in (*values, target) if value is not None]
    low, high = min(there), max(there)

    def x(index: int) -> float:
        return _EDGE + index * (_WIDTH - 2 * _EDGE) / max(1, len(values) - 1)

    def y(value: float) -> float:
        share = (value - low) / (high - low) if high > low else 0.5
        return _HEIGHT - _EDGE - share * (_HEIGHT - 2 * _EDGE)

    dots = [
        _dot(night, x(index), y(value), form(value), champion)
        for index, (night, value) in enumerate(zip(nights, values, strict=True))
        if value is not None
    ]
    line = " ".join(f"{x(i):.1f},{y(value):.1f}" for i, value in enumerate(values) if value is not None)
    dashed = Markup("")
    if target is not None:
        dashed = Markup('<line class="target" x1="0" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(
            _WIDTH, y(target), y(target)
        )
    said = f"{form(low)} to {form(high)} over {len(dots)} nights"
    return Markup(
        '<svg class="trend" viewBox="0 0 {} {}" role="img" aria-label="{}">{}<polyline points="{}"/>{}</svg>'
    ).format(_WIDTH, _HEIGHT, said, dashed, line, Markup("").join(dots))


def _dot(night: PastNight, x: float, y: float, value: str, champion: str | None) -> Markup:
    ours = champion is not None and night.release == champion
    said = f"{night.started_at:%F} {night.preset}: {value}, {night.outcome}{', champion' if ours else ''}"
    return Markup('<circle class="{}{}" cx="{:.1f}" cy="{:.1f}" r="{}"><title>{}</title></circle>').format(
        night.tone, " champion" if ours else "", x, y, 5 if ours else 3, said
    )


def _of_device(name: str) -> Callable[[PastNight], float | None]:
    return lambda night: night.latency_ms.get(name)


def _latency(night: "Night") -> dict[str, float]:
    devices = night.fleet.devices if night.fleet else ()
    measured = {one.device: one.benchmark.p95_ms for one in devices if one.benchmark}
    if not measured and night.candidate and (host := night.latency_ms) is not None:
        return {"this host": host}
    return measured


def _read(store: ObjectStore, key: str) -> PastNight | None:
    try:
        return PastNight.model_validate_json(store.read(key))
    except (MissingObject, ValidationError):
        return None
