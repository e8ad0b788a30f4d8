"""What nuisance figures alone would tell: a class by its blur, a source by its borders.

In: the training split as written. Out: a `ShortcutAudit` for metadata.json, under audit.shortcuts.

A network takes the easiest way to a label. Where sharpness, noise, light or borders tell a class, it may
learn the camera, or what was done to the images, instead of the face. So two small classifiers, a logistic
regression and boosted trees, get six such figures of each image and nothing else, and are tested on groups
(people, copies) that they weren't fitted on. They do so twice for the same images: as originals, and as the
file holds them, for which one of an image's rows is drawn. What the files tell more than the originals was
added by this stage, an error of ours. What originals tell already is a warning about their source.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, Field

from tasks.classes import CLASSES
from tasks.prepare.pixels import CHUNK, to_grey
from tasks.prepare.splits import Split

FIGURES = ("sharpness", "noise", "brightness", "contrast", "border repetition", "JPEG grid")
ALL_SOURCES = "all sources"
MAX_ADDED = 0.02
"""Area under the curve that writing the files may add."""
MAX_TOLD = 0.75
"""Area under the curve from which a class is told apart by nuisance figures; 0.5 is chance."""
_PER_SIDE = 2000
_FEWEST = 30
_FOLDS = 3
_GRID_PX = 8
_SMALL = 1e-3
_SURE = 3
"""Standard errors: of a dozen comparisons of equals, one in a hundred audits has one beyond."""


class Shortcut(BaseModel, frozen=True, extra="forbid"):
    """How well nuisance figures tell one class or source: areas under the curve, 0.5 is chance."""

    told: str = Field(description="The class or source that is told")
    among: str = Field(description="From the rest of which source it is told, or of all sources")
    images: int = Field(description="Images compared, those of `told` and others")
    logistic: float = Field(description="Area under the curve of a logistic regression, files as written")
    trees: float = Field(description="Area under the curve of boosted trees, files as written")
    logistic_originals: float = Field(description="The logistic regression's, of the same images' originals")
    trees_originals: float = Field(description="The boosted trees', of the same images' originals")

    chance: float = Field(description="Difference to the originals that chance makes: 3 standard errors")

    @property
    def area(self) -> float:
        """The better classifier's, files as written."""
        return max(self.logistic, self.trees)

    @property
    def area_originals(self) -> float:
        """The better classifier's, originals."""
        return max(self.logistic_originals, self.trees_originals)

    @property
    def added(self) -> float:
        """What the files tell more than the originals, by the classifier for which that is most."""
        return max(self.logistic - self.logistic_originals, self.trees - self.trees_originals)

    @property
    def is_ours(self) -> bool:
        """Whether the files tell more than the originals, more than is allowed and than chance explains."""
        return self.added > max(MAX_ADDED, self.chance)


class ShortcutAudit(BaseModel, frozen=True, extra="forbid"):
    """What nuisance figures tell of every class and source of the training files."""

    figures: tuple[str, ...] = Field(default=FIGURES, description="What the classifiers see of an image")
    shortcuts: tuple[Shortcut, ...] = Field(description="Each class within its source, and each source")
    added: float = Field(description="The most that files tell more than originals, area, beyond chance")
    max_added: float = Field(default=MAX_ADDED, description="From which on that is an error of this stage")
    max_told: float = Field(default=MAX_TOLD, description="Area from which on a source is warned about")
    errors: tuple[str, ...] = Field(description="What this stage added, class by class")
    warnings: tuple[str, ...] = Field(description="What the sources bring along")


def audit_shortcuts(
    train: Split,
    sources: tuple[str, ...],
    seed: int,
    images_at: Callable[[np.ndarray], np.ndarray] | None = None,
) -> ShortcutAudit:
    """Two classifiers for every class within its source, and for every source; `sources` are their names.

    At most 2,000 images of what is told and as many others are compared, drawn by `seed`; `images_at` gives
    those in some rows, for who doesn't want to hold all pages of a mapped file that were ever looked at.
    """
    import sklearn.ensemble  # noqa: F401 - only threads of what is there already are limited
    from threadpoolctl import threadpool_limits

    real = np.flatnonzero(~train.augmented)
    written = _one_row_each(train, real, np.random.default_rng(seed))
    questions = _questions(train.labels[real], train.sources[real], sources)
    samples = [sample for one in questions if (sample := _sample(one, seed))]
    looked_at = [rows[sample.chosen] for sample in samples for rows in (real, written)]
    rows = np.unique(np.concatenate([np.empty(0, int), *looked_at]))
    figures = np.zeros((len(train.labels), len(FIGURES)), np.float32)
    figures[rows] = _at(rows, images_at or train.images.__getitem__)
    # so few images are too little work to share out: on a busy machine threads wait for one another
    with threadpool_limits(1):
        answers = [_answer(one, train.groups, figures, real, written) for one in samples]
    shortcuts = tuple(answer for answer in answers if answer)
    single = _single_sources(train.labels[real], train.sources[real], sources)
    return ShortcutAudit(
        shortcuts=shortcuts,
        added=max((one.added for one in shortcuts if one.added > one.chance), default=0.0),
        errors=tuple(_error(one) for one in shortcuts if one.is_ours),
        warnings=tuple(
            _warning(one, single)
            for one in shortcuts
            if one.told in CLASSES and one.area_originals > MAX_TOLD
        ),
    )


def _at(rows: np.ndarray, images_at: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """FIGURES of the images in some rows, float32 (n, 6), a chunk at a time."""
    chunks = (images_at(rows[start : start + CHUNK]) for start in range(0, len(rows), CHUNK))
    return np.concatenate([np.empty((0, len(FIGURES)), np.float32), *map(nuisance, chunks)])


def nuisance(images: np.ndarray) -> np.ndarray:
    """FIGURES of uint8 (n, P, P, C), float32 (n, 6)."""
    grey = to_grey(images)
    contrast = grey.std(axis=(1, 2))
    inner = grey[:, 1:-1, 1:-1]
    cross = grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:]
    corners = grey[:, :-2, :-2] + grey[:, 2:, 2:] + grey[:, 2:, :-2] + grey[:, :-2, 2:]
    # Immerkær, 1996, "Fast noise variance estimation": this kernel sees no edge; the median no detail
    noise = np.median(np.abs(4 * inner - 2 * cross + corners), axis=(1, 2)) / (6 * 0.6745)
    columns = [
        np.log((cross - 4 * inner).std(axis=(1, 2)) / (contrast + _SMALL) + _SMALL),
        np.log1p(noise),
        grey.mean(axis=(1, 2)),
        contrast,
        _border_repetition(grey),
        _jpeg_grid(grey),
    ]
    return np.stack(columns, axis=1).astype(np.float32)


def _border_repetition(grey: np.ndarray) -> np.ndarray:
    """Which share of the outermost pixels repeat the next ones, (n,)."""
    sides = [(grey[:, place], grey[:, inside]) for place, inside in ((0, 1), (-1, -2))]
    sides += [(grey[:, :, place], grey[:, :, inside]) for place, inside in ((0, 1), (-1, -2))]
    return np.mean([(outer == inner).mean(axis=1) for outer, inner in sides], axis=0)


def _jpeg_grid(grey: np.ndarray) -> np.ndarray:
    """Steps between JPEG's blocks of 8 px over those within them, logarithm, (n,)."""
    steps = np.stack([np.abs(np.diff(grey, axis=axis)).mean(axis=3 - axis) for axis in (1, 2)], axis=1)
    edge = np.arange(1, grey.shape[1]) % _GRID_PX == 0
    across, within = steps[:, :, edge].mean(axis=(1, 2)), steps[:, :, ~edge].mean(axis=(1, 2))
    return np.log((across + _SMALL) / (within + _SMALL))


def _one_row_each(train: Split, real: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """For each real image one of the rows that show it, itself or a copy, int (len(real),)."""
    order = rng.permutation(len(train.ids))
    names, first = np.unique(train.ids[order], return_index=True)
    return order[first[np.searchsorted(names, train.ids[real])]]


@dataclass(frozen=True)
class _Question:
    """Which of the real images are to be told (bool), from which others (bool)."""

    told: str
    among: str
    mine: np.ndarray
    others: np.ndarray


def _questions(labels: np.ndarray, sources: np.ndarray, names: tuple[str, ...]) -> list[_Question]:
    found = []
    for number, name in enumerate(names):
        here = sources == number
        found += [
            _Question(CLASSES[label], name, here & (labels == label), here & (labels != label))
            for label in np.unique(labels[here])
        ]
    present = np.unique(sources)
    if len(present) < 2:
        return found
    single = _single_sources(labels, sources, names)
    found += [
        _Question(name, ALL_SOURCES, labels == label, labels != label)
        for label, name in enumerate(CLASSES)
        if name in single
    ]
    # of two sources, one is told as well as the other
    return found + [
        _Question(names[number], ALL_SOURCES, sources == number, sources != number)
        for number in (present if len(present) > 2 else present[1:])
    ]


def _single_sources(labels: np.ndarray, sources: np.ndarray, names: tuple[str, ...]) -> dict[str, str]:
    """Class → source, of the classes that come from one source alone."""
    found = {name: np.unique(sources[labels == label]) for label, name in enumerate(CLASSES)}
    return {name: names[mine[0]] for name, mine in found.items() if len(mine) == 1}


@dataclass(frozen=True)
class _Sample:
    """A question and the real images that answer it: their numbers, and what draws their folds."""

    question: _Question
    chosen: np.ndarray
    rng: np.random.Generator


def _sample(question: _Question, seed: int) -> _Sample | None:
    """None where there are too few images to say."""
    sides = [np.flatnonzero(side) for side in (question.mine, question.others)]
    if min(map(len, sides)) < _FEWEST:
        return None
    rng = np.random.default_rng(seed)
    return _Sample(question, np.concatenate([rng.permutation(side)[:_PER_SIDE] for side in sides]), rng)


def _answer(
    sample: _Sample, groups: np.ndarray, figures: np.ndarray, real: np.ndarray, written: np.ndarray
) -> Shortcut | None:
    """None where no fold has both kinds. `figures` (rows, 6) are those of the file's rows looked at."""
    question, chosen = sample.question, sample.chosen
    told, rows = question.mine[chosen], real[chosen]
    members = np.unique(groups[rows], return_inverse=True)[1]
    folds = sample.rng.permutation(members.max() + 1)[members] % _FOLDS
    originals = _placements(figures[rows], told, folds)
    copied = (written[chosen] != rows).any()
    files = _placements(figures[written[chosen]], told, folds) if copied else originals
    if np.isnan(files).all():
        return None
    (logistic, trees), (logistic_originals, trees_originals) = _areas(files, told), _areas(originals, told)
    return Shortcut(
        told=question.told,
        among=question.among,
        images=len(chosen),
        logistic=logistic,
        trees=trees,
        logistic_originals=logistic_originals,
        trees_originals=trees_originals,
        chance=_SURE * _standard_error(files - originals, told),
    )


def _placements(figures: np.ndarray, told: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Where each image stands among those of the other kind by each classifier's score, float (2, N).

    A share of them, 1 where all stand on the right side. The mean over the images told is the area under the
    curve (DeLong et al., 1988). NaN in a fold that lacks a kind, in it or outside.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classifiers = (
        make_pipeline(StandardScaler(), LogisticRegression()),
        HistGradientBoostingClassifier(max_iter=60, max_leaf_nodes=15, early_stopping=False, random_state=0),
    )
    places = np.full((len(classifiers), len(told)), np.nan)
    for fold in range(_FOLDS):
        out = folds == fold
        if not all(len(np.unique(part)) == 2 for part in (told[out], told[~out])):
            continue
        for place, one in zip(places, classifiers, strict=True):
            score = one.fit(figures[~out], told[~out]).predict_proba(figures[out])[:, 1]
            mine, others = score[told[out]], score[~told[out]]
            place[out & told] = _below(mine, others)
            place[out & ~told] = 1 - _below(others, mine)
    return places


def _below(scores: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Which share of the others lies below each score, equal ones half."""
    others = np.sort(others)
    ends = [np.searchsorted(others, scores, side) for side in ("left", "right")]
    return np.mean(ends, axis=0) / len(others)


def _areas(places: np.ndarray, told: np.ndarray) -> list[float]:
    return np.nanmean(places[:, told], axis=1).tolist()


def _standard_error(places: np.ndarray, told: np.ndarray) -> float:
    """Of the area of the classifier for which it is larger; `places` may be a difference of two."""
    parts = [places[:, side] for side in (told, ~told)]
    return float(np.sqrt(sum(np.nanvar(part, axis=1) / part.shape[1] for part in parts)).max())


def _error(one: Shortcut) -> str:
    return (
        f"{one.told} is told by {', '.join(FIGURES)} better in train_data.npz than among its originals "
        f"({one.among}: area under the curve {one.area:.2f} against {one.area_originals:.2f}, at most "
        f"{MAX_ADDED} more is allowed): how its copies are made tells them; don't store any "
        "(store_augmented = false)"
    )


def _warning(one: Shortcut, single: dict[str, str]) -> str:
    reached = f"area under the curve {one.area_originals:.2f}, chance is 0.5"
    if one.among == ALL_SOURCES:
        return (
            f"{one.told} comes from {single[one.told]} alone, and {', '.join(FIGURES)} tell it from all else "
            f"({reached}): a network may learn the camera; add images of it from elsewhere"
        )
    return (
        f"{one.told} is told by {', '.join(FIGURES)} within {one.among} ({reached}): its images were taken "
        "or cropped otherwise than the other classes'; add images of all classes from one camera"
    )
