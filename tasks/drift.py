"""Has what is new in tonight's data moved away from what the champion learnt?

In: the facts of two prepared data sets (`tasks.prepare.facts`), the champion's and tonight's. Out: `Drift`, a
table and a picture, or None before the first champion and where the two were prepared in different ways.

Compared are, source by source, the images that the champion's set didn't have with its images of that source
(for a new source, with all of its images): among all the old ones a new camera would go unnoticed. For the
class shares and for the brightness, contrast and sharpness of the images it is told how far apart they are.

The measure is the population stability index, PSI = sum((p - q) ln(p / q)) over bins: below 0.1 nothing to
speak of, above 0.25 a shift (Siddiqi, 2006, "Credit Risk Scorecards"). With few images it is large by
chance: under no shift it follows chi-squared with bins - 1 degrees of freedom times (1/n + 1/m) (Yurdakul,
2018), so a shift must exceed that distribution's 99 % point, too. The effect size beside it is the difference
of the means in standard deviations of the champion's images.
"""

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from prefect import get_run_logger, task
from pydantic import BaseModel

from storage.errors import InputError, MissingObject
from storage.files import replacing
from storage.objects import ObjectStore
from storage.opening import open_store
from storage.registry import Registry
from tasks.config.drift import DriftConfig
from tasks.prepare import PreparedData
from tasks.prepare.blocks import STATISTICS
from tasks.prepare.facts import IMAGE_FACTS, ImageFacts, read_facts

FEWEST = 30
"""New images of a source, with fewer of which nothing is said about it."""
_SHARES = "class shares"
_BINS = 16
_TOP = {"brightness": 255.0, "contrast": 128.0, "sharpness": 128.0}
_CHI2_99 = 2.326
_ALIKE = ("code_version", "classes", "label_set", "image_px")


class Shift(BaseModel, frozen=True, extra="forbid"):
    """One property of a source's new images against the champion's."""

    name: str
    source: str
    images: int
    """How many of the source are new."""
    psi: float
    chance: float
    """The PSI that 1 % of samples of these sizes exceed without any shift."""
    reference_mean: float | None
    new_mean: float | None
    effect_size: float | None
    shifted: bool

    @property
    def where(self) -> str:
        """What of which images, in words."""
        return f"{self.name} of {self.images:,} new images of {self.source}"


class DriftReport(BaseModel, frozen=True, extra="forbid"):
    """The table of a comparison."""

    reference: str
    new: str
    shifts: tuple[Shift, ...]
    few: dict[str, int] = {}
    """source → new images, of which there are too few (`FEWEST`) to say anything."""

    @property
    def shifted(self) -> tuple[str, ...]:
        """What shifted, in words."""
        return tuple(shift.where for shift in self.shifts if shift.shifted)


class Drift(BaseModel, frozen=True):
    """What has shifted since the champion, and the picture of it; none where nothing was compared."""

    champion: str
    report: DriftReport
    picture: Path | None


@dataclass(frozen=True)
class DataSet:
    """What a prepared data set says of itself: metadata.json and images.npz."""

    metadata: dict[str, Any]
    facts: ImageFacts

    @property
    def fingerprint(self) -> str:
        return self.metadata["fingerprint"]

    @property
    def sources(self) -> list[str]:
        return self.metadata["sources"]

    def of(self, source: str) -> ImageFacts:
        """The images of a source; none where the set doesn't know it."""
        number = self.sources.index(source) if source in self.sources else -1
        return self.facts.where(self.facts.sources == number)


def compare(reference: DataSet, new: DataSet, config: DriftConfig = DriftConfig()) -> DriftReport:  # noqa: B008 (frozen)
    """Tonight's data against the champion's. InputError where they can't be compared."""
    for key in _ALIKE:
        if reference.metadata.get(key) != new.metadata.get(key):
            raise InputError(
                f"drift: {key}: expected the champion's {reference.metadata.get(key)}, got "
                f"{new.metadata.get(key)}; prepare both alike to compare them"
            )
    shifts = [
        _shift(name, source, _column(before, name), _column(after, name), config)
        for source, before, after in _pairs(reference, new)
        for name in (_SHARES, *STATISTICS)
    ]
    few = {
        source: len(facts.digests)
        for source, facts in _new_images(reference, new)
        if 0 < len(facts.digests) < FEWEST
    }
    return DriftReport(reference=reference.fingerprint, new=new.fingerprint, shifts=tuple(shifts), few=few)


def _new_images(reference: DataSet, new: DataSet) -> Iterator[tuple[str, ImageFacts]]:
    """Each source of tonight, and its images that the champion's set didn't have."""
    for source in new.sources:
        mine = new.of(source)
        yield source, mine.where(~np.isin(mine.digests, reference.facts.digests))


def _pairs(reference: DataSet, new: DataSet) -> Iterator[tuple[str, ImageFacts, ImageFacts]]:
    """Each source with enough new images: the champion's images to compare with, and the new ones."""
    for source, mine in _new_images(reference, new):
        if len(mine.digests) >= FEWEST:
            theirs = reference.of(source)
            yield source, theirs if len(theirs.digests) else reference.facts, mine


def _column(facts: ImageFacts, name: str) -> np.ndarray:
    return facts.labels if name == _SHARES else facts.statistics[:, STATISTICS.index(name)]


def _counts(name: str, values: np.ndarray, classes: int) -> np.ndarray:
    """How many images each class or each of `_BINS` bins has."""
    if name == _SHARES:
        return np.bincount(values, minlength=classes)
    return np.histogram(np.clip(values, 0, _TOP[name]), _BINS, (0, _TOP[name]))[0]


def _shift(name: str, source: str, before: np.ndarray, after: np.ndarray, config: DriftConfig) -> Shift:
    classes = 1 + int(max(before.max(), after.max())) if name == _SHARES else 0
    p, q = (_counts(name, values, classes).astype(float) for values in (before, after))
    used = (p + q) > 0
    p, q = p[used] + 0.5, q[used] + 0.5
    n, m = p.sum(), q.sum()
    psi = float(((p / n - q / m) * np.log((p / n) / (q / m))).sum())
    chance = float(_chi_squared(len(p) - 1) * (1 / n + 1 / m))
    means = None if name == _SHARES else (float(before.mean()), float(after.mean()))
    return Shift(
        name=name,
        source=source,
        images=len(after),
        psi=psi,
        chance=chance,
        reference_mean=means and means[0],
        new_mean=means and means[1],
        effect_size=means and (means[1] - means[0]) / max(float(before.std()), 1e-6),
        shifted=psi > config.max_psi and psi > chance,
    )


def _chi_squared(freedom: int) -> float:
    """99 % point of chi-squared, by Wilson and Hilferty's cube (1931), good to 1 % from one degree on."""
    k = max(freedom, 1)
    return k * (1 - 2 / (9 * k) + _CHI2_99 * (2 / (9 * k)) ** 0.5) ** 3


def draw_drift(reference: DataSet, new: DataSet, path: Path) -> Path | None:
    """Class shares and the three histograms as a PNG, a row a source; None where there is nothing new."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    pairs, classes = list(_pairs(reference, new)), new.metadata["classes"]
    if not pairs:
        return None
    figure = Figure(figsize=(12, 3 * len(pairs)), layout="constrained")
    FigureCanvasAgg(figure)
    grid: Any = figure.subplots(len(pairs), 4, squeeze=False)
    for row, (source, before, after) in zip(grid, pairs, strict=True):
        for axes, name in zip(row, (_SHARES, *STATISTICS), strict=True):
            for place, facts in enumerate((before, after)):
                counts = _counts(name, _column(facts, name), len(classes))
                label = f"{len(after.digests):,} new images" if place else "champion's data"
                axes.bar(np.arange(len(counts)) + 0.4 * place, counts / counts.sum(), 0.4, label=label)
            axes.set_title(f"{source}: {name}")
            _label_bins(axes, name, classes)
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=80)
    return path


def _label_bins(axes: Any, name: str, classes: list[str]) -> None:
    if name == _SHARES:
        axes.set_xticks(np.arange(len(classes)) + 0.2, classes, rotation=45)
        axes.legend(frameon=False, fontsize=8)
    else:
        axes.set_xticks(np.linspace(-0.3, _BINS - 0.3, 5), np.linspace(0, _TOP[name], 5).astype(int))
        axes.set_xlabel("grey levels")


def tonights(data: PreparedData) -> DataSet:
    """What tonight's data set says of itself."""
    path = data.directory / IMAGE_FACTS
    return DataSet(json.loads(data.metadata_path.read_text()), read_facts(path, str(path)))


def published(store: ObjectStore, fingerprint: str) -> DataSet:
    """What a data set in the store says of itself. MissingObject where it is not there."""
    folder = f"prepared/{fingerprint}"
    facts = io.BytesIO(store.read(f"{folder}/{IMAGE_FACTS}"))
    metadata = json.loads(store.read(f"{folder}/metadata.json"))
    return DataSet(metadata, read_facts(facts, f"{store.uri}/{folder}/{IMAGE_FACTS}"))


@task(name="drift", task_run_name="drift")
def watch_drift(store_uri: str, data: PreparedData, config: DriftConfig, directory: Path) -> Drift | None:
    """Compare with the champion's data, draw it into `directory`, and warn of what has shifted."""
    store, log = open_store(store_uri), get_run_logger()
    champion = Registry(store).champion()
    if champion is None:
        return None
    new = tonights(data)
    try:
        old = published(store, Registry(store).manifest(champion.version).data_fingerprint)
        report = compare(old, new, config)
    except (InputError, MissingObject) as error:
        log.warning("no comparison with the data of champion %s: %s", champion.version, error)
        return None
    if report.shifted:
        log.warning("shifted against champion %s: %s", champion.version, ", ".join(report.shifted))
    for source, images in report.few.items():
        log.info("%d new images of %s are too few to compare with the champion's data", images, source)
    picture = draw_drift(old, new, directory / "drift.png")
    return Drift(champion=champion.version, report=report, picture=picture)
