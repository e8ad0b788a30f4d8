"""The gate: is this candidate good enough to run on the fleet?

In: a `Candidate`, measured as it will run, and the targets. Out: a `Verdict` with one `Check` per target.
A pure function: nothing is read or measured here.

A figure that is missing is a failed check with its reason; a floor that is not set makes no check. A
rejected model is a normal outcome, not an exception.
"""

import math
from typing import Literal

from prefect import get_run_logger, task
from pydantic import BaseModel, ConfigDict, Field, field_validator

from tasks.candidate import Candidate
from tasks.champion import AgainstRelease, Role
from tasks.classes import CLASSES
from tasks.evaluate.camera_figures import Cameras
from tasks.evaluate.elsewhere import ElsewhereFigures

Unit = Literal["share", "points", "MB", "ms", "", "million"]
Interval = tuple[float, float] | None
Measured = tuple[float | None, Interval]
"""A share from 0 to 1 and its 95 % interval."""
_UNMEASURED: Measured = (None, None)
_OPPONENTS: dict[Role, str] = {"champion": "champion", "anchor": "best release so far"}


class GateConfig(BaseModel):
    """Targets that a candidate must reach before it may be released."""

    model_config = ConfigDict(frozen=True, extra="forbid", title="Targets")

    min_accuracy: float = Field(
        default=0.84,
        ge=0,
        le=1,
        description="Accuracy of the INT8 model on the test split, at least (share, 0 to 1).",
    )
    max_model_mb: float = Field(
        default=10.0,
        gt=0,
        le=1000,
        description="Size of the INT8 .tflite file, at most (MB of 1,000,000 bytes).",
    )
    max_latency_ms: float = Field(
        default=200.0,
        gt=0,
        le=60_000,
        description="Latency per frame, p95, at most (ms). Measured on this host as a guard before "
        "the release; each Pi measures again and returns to its previous release where it is slower.",
    )
    max_quantization_loss: float = Field(
        default=3.0,
        ge=0,
        le=100,
        description="Accuracy lost from the float to the INT8 model, at most (points of 100).",
    )
    max_leaked_pairs: int = Field(
        default=0,
        ge=0,
        description="Pairs of duplicate images in different splits, as the audit found, at most (pairs).",
    )
    max_twin_share: float = Field(
        default=0.005,
        ge=0,
        le=1,
        description="Test images of which a photo in training is found again by a second look at a sample, "
        "another way than the search, at most (share, 0 to 1).",
    )
    max_shortcut_added: float = Field(
        default=0.02,
        ge=0,
        le=0.5,
        description="How much better sharpness, noise and light alone tell a class on the training files "
        "than on the original images, at most (area under the curve, 0 to 0.5).",
    )
    min_macro_recall: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Mean recall over the classes, at least (share, 0 to 1). Empty: no floor.",
    )
    min_class_recall: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Recall of every class, at least (share, 0 to 1). Empty: no floor.",
    )
    class_recall_floors: dict[str, float] = Field(
        default={"stress": 0.5, "sad": 0.45},
        description="Recall of single classes, at least (share, 0 to 1); goes before min_class_recall. The "
        "classes that accuracy can do without are those that the product is for.",
    )
    min_source_accuracy: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Accuracy on the images of every source, at least (share, 0 to 1). Empty: no floor.",
    )
    source_accuracy_floors: dict[str, float] = Field(
        default_factory=dict,
        description='Accuracy on single sources, at least (share, 0 to 1), as {"fer2013": 0.84}; goes before '
        "min_source_accuracy.",
    )
    elsewhere_recall_floors: dict[str, float] = Field(
        default={"fatigue": 0.5},
        description='Recall of single classes on every set from elsewhere (a source with use = "evaluate") '
        "that has images of them, at least (share, 0 to 1). Fatigue is learnt from one source alone.",
    )
    min_camera_accuracy: float | None = Field(
        default=0.7,
        ge=0,
        le=1,
        description="Accuracy under the worst camera (blur, noise, JPEG, light, ...), as a share of that on "
        "the images as they are, at least (share, 0 to 1). Empty: no floor.",
    )
    max_camera_growth: float | None = Field(
        default=15.0,
        ge=0,
        le=100,
        description="How much larger the share of any class in the answers may be under a camera, at most "
        "(points of 100). Empty: no limit.",
    )
    max_delegate_partitions: int | None = Field(
        default=None,
        ge=1,
        description="Pieces that the delegate cuts the graph into, at most. Empty: no limit.",
    )
    max_instructions_m: float | None = Field(
        default=None,
        gt=0,
        description="Instructions per inference, at most (million), where measured. Empty: no limit.",
    )
    max_seen_share: float = Field(
        default=0.2,
        ge=0,
        le=1,
        description="Test images that are left out because a release from which training started "
        "(init_from) had learnt from them, at most (share, 0 to 1).",
    )
    champion_margin: float = Field(
        default=1.0,
        ge=0,
        le=100,
        description="Accuracy that a candidate may lie below the champion, at most (points of 100).",
    )
    anchor_margin: float = Field(
        default=2.0,
        ge=0,
        le=100,
        description="Accuracy that a candidate may lie below the best release so far, at most (points of "
        "100): what small steps down from champion to champion may add up to.",
    )
    champion_confidence: float = Field(
        default=0.95,
        gt=0.5,
        lt=1,
        description="One-sided confidence that it does not lie below by more (share, 0.5 to 1).",
    )

    @field_validator("class_recall_floors", "source_accuracy_floors", "elsewhere_recall_floors")
    @classmethod
    def _shares(cls, floors: dict[str, float]) -> dict[str, float]:
        wrong = {name: floor for name, floor in floors.items() if not 0 <= floor <= 1}
        if wrong:
            raise ValueError(f"expected shares from 0 to 1, got {wrong}")
        return floors

    @field_validator("class_recall_floors", "elsewhere_recall_floors")
    @classmethod
    def _known_classes(cls, floors: dict[str, float]) -> dict[str, float]:
        unknown = sorted(set(floors) - set(CLASSES))
        if unknown:
            raise ValueError(f"no such class: {', '.join(unknown)}; expected some of {', '.join(CLASSES)}")
        return floors


class Check(BaseModel, frozen=True):
    """One target: `margin` is the distance to it in `unit` ("": a count), positive where reached."""

    name: str
    value: float | None
    target: float
    sense: Literal["at least", "at most"]
    unit: Unit
    passed: bool
    margin: float | None
    interval: Interval
    reason: str


class Verdict(BaseModel, frozen=True):
    """Passed only if every check passed."""

    passed: bool
    checks: tuple[Check, ...]
    not_judged: tuple[str, ...] = ()
    """Classes that no source provides: floors on them don't count."""

    @property
    def failed(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if not check.passed)

    @property
    def missed(self) -> tuple[str, ...]:
        """The names of the checks that failed."""
        return tuple(check.name for check in self.failed)


def judge(candidate: Candidate, targets: GateConfig) -> Verdict:
    """Check every target; comparisons where there was a champion to compare with."""
    checks = [
        *_base_checks(candidate, targets),
        *_floor_checks(candidate, targets),
        *_camera_checks(candidate.cameras, targets),
        *_limit_checks(candidate, targets),
        *(_release_check(against, targets) for against in candidate.against),
        *(
            _lost_check(against)
            for against in candidate.against
            if against.role == "champion" and against.lost
        ),
    ]
    return Verdict(
        passed=all(check.passed for check in checks), checks=tuple(checks), not_judged=candidate.data.absent
    )


def _base_checks(candidate: Candidate, targets: GateConfig) -> list[Check]:
    int8, model = candidate.int8, candidate.model
    return [
        _at_least("accuracy", int8.accuracy, targets.min_accuracy, int8.accuracy_ci),
        _at_most("model size", model.bytes / 1e6, targets.max_model_mb, "MB"),
        _at_most("latency on this host", model.host_p95_ms, targets.max_latency_ms, "ms"),
        _at_most("quantization loss", candidate.points_lost, targets.max_quantization_loss, "points"),
        _at_most("leaked pairs", candidate.data.leaked_pairs, targets.max_leaked_pairs, ""),
        _at_most("twins in a sample", candidate.data.twin_share, targets.max_twin_share, "share"),
        _at_most("shortcut added", candidate.data.shortcut_added, targets.max_shortcut_added, ""),
        _at_most("test images seen before", candidate.seen_share, targets.max_seen_share, "share"),
    ]


def _floor_checks(candidate: Candidate, targets: GateConfig) -> list[Check]:
    int8, absent = candidate.int8, candidate.data.absent
    recalls = {name: (one.recall, one.recall_ci) for name, one in int8.per_class.items()}
    sources = {name: (one.accuracy, one.ci) for name, one in int8.per_source.items()}
    recalls = dict.fromkeys(CLASSES, _UNMEASURED) | recalls
    recalls = {name: figures for name, figures in recalls.items() if name not in absent}
    sources = dict.fromkeys(targets.source_accuracy_floors, _UNMEASURED) | sources
    checks = [
        *_each("recall of", recalls, targets.min_class_recall, targets.class_recall_floors),
        *_each("accuracy on", sources, targets.min_source_accuracy, targets.source_accuracy_floors),
        *_elsewhere_checks(candidate.elsewhere.sets, targets, absent),
    ]
    if targets.min_macro_recall is None:
        return checks
    macro = _at_least("macro recall", int8.macro_recall, targets.min_macro_recall, int8.macro_recall_ci)
    return [macro, *checks]


def _limit_checks(candidate: Candidate, targets: GateConfig) -> list[Check]:
    limits: list[tuple[str, float | None, float | None, Unit]] = [
        ("delegate partitions", candidate.model.delegate_partitions, targets.max_delegate_partitions, ""),
        ("instructions", candidate.model.instructions_m, targets.max_instructions_m, "million"),
    ]
    return [_at_most(name, value, limit, unit) for name, value, limit, unit in limits if limit is not None]


def _elsewhere_checks(
    sets: tuple[ElsewhereFigures, ...], targets: GateConfig, absent: tuple[str, ...]
) -> list[Check]:
    """Floors on sets that nothing was learnt from, for the classes that set and training have images of."""
    return [
        check
        for one in sets
        for check in _each(
            f"on {one.source}, recall of",
            {
                name: (figures.recall, figures.recall_ci)
                for name, figures in one.per_class.items()
                if figures.support and name not in absent
            },
            None,
            targets.elsewhere_recall_floors,
        )
    ]


def _camera_checks(cameras: Cameras, targets: GateConfig) -> list[Check]:
    """What the worst camera for each figure leaves of it, and where answers go when faces can't be seen."""
    checks: list[Check] = []
    if targets.min_camera_accuracy is not None:
        kept = min(cameras.losses, key=lambda one: one.accuracy_kept or 0.0)
        name = f"accuracy kept ({kept.camera})"
        checks.append(_at_least(name, kept.accuracy_kept, targets.min_camera_accuracy, None))
    if targets.max_camera_growth is not None:
        name, points = max(cameras.largest_growth.items(), key=lambda item: item[1])
        checks.append(_at_most(f"answers leaning to {name}", points, targets.max_camera_growth, "points"))
    return checks


def _release_check(against: AgainstRelease, targets: GateConfig) -> Check:
    """Non-inferiority: the lower end of the paired interval must lie above minus the margin."""
    margins = {"champion": targets.champion_margin, "anchor": targets.anchor_margin}
    name, floor = f"accuracy against the {_OPPONENTS[against.role]}", -margins[against.role]
    paired = against.paired
    if paired is None:
        return _at_least(name, None, floor, None, "points")
    low, high = (100 * end for end in paired.interval(2 * targets.champion_confidence - 1))
    change, sure = 100 * paired.difference, f"{targets.champion_confidence:.0%}"
    bound = f"with {sure} confidence it is at worst {low:+.2f} points, {-floor:g} below is allowed"
    reason = f"{change:+.2f} points against it on the same {paired.images:,} images; {bound}"
    return Check(
        name=name, value=change, target=floor, sense="at least", unit="points",
        passed=low >= floor, margin=low - floor, interval=(low, high), reason=reason,
    )  # fmt: skip


def _lost_check(against: AgainstRelease) -> Check:
    """Devices must not unlearn a class because a source was away one night."""
    lost, count = ", ".join(against.lost), len(against.lost)
    reason = (
        f"the champion tells {lost}, of which tonight's data has no image: bring the source back, or delete "
        "models/champion.json from the store to begin without"
    )
    return Check(
        name="classes lost against the champion", value=count, target=0, sense="at most", unit="",
        passed=False, margin=-count, interval=None, reason=reason,
    )  # fmt: skip


def _each(
    what: str, figures: dict[str, Measured], every: float | None, single: dict[str, float]
) -> list[Check]:
    """A check for each name that has a floor: its own, or the one for every name."""
    floors = {name: single.get(name, every) for name in figures}
    return [
        _at_least(f"{what} {name}", figures[name][0], floor, figures[name][1])
        for name, floor in floors.items()
        if floor is not None
    ]


def _at_least(
    name: str, value: float | None, target: float, interval: Interval, unit: Unit = "share"
) -> Check:
    return _check(name, value, target, "at least", unit, interval)


def _at_most(name: str, value: float | None, target: float, unit: Unit) -> Check:
    return _check(name, value, target, "at most", unit, None)


def _check(
    name: str, value: float | None, target: float, sense: Literal["at least", "at most"], unit: Unit,
    interval: Interval,
) -> Check:  # fmt: skip
    if value is None or not math.isfinite(value):
        reason = f"{name} was not measured: a missing figure fails its target ({sense} {_show(target, unit)})"
        return Check(name=name, value=None, target=target, sense=sense, unit=unit, passed=False, margin=None,
                     interval=None, reason=reason)  # fmt: skip
    margin = value - target if sense == "at least" else target - value
    passed = margin >= 0
    return Check(
        name=name, value=value, target=target, sense=sense, unit=unit, passed=passed, margin=margin,
        interval=interval, reason=_reason(name, value, target, sense, unit, interval),
    )  # fmt: skip


def _reason(name: str, value: float, target: float, sense: str, unit: Unit, interval: Interval) -> str:
    gap = abs(value - target)
    distance = f"{100 * gap:.2g} points" if unit == "share" else _show(gap, unit)
    where = "exactly" if value == target else f"{distance} {'over' if value > target else 'under'}"
    reason = f"{name} {_show(value, unit)} is {where} {_show(target, unit)}"
    if interval and value >= target > interval[0]:
        reason += f", though its 95 % interval reaches down to {_show(interval[0], unit)}"
    return reason


def _show(value: float, unit: Unit) -> str:
    return f"{100 * value:.3g} %" if unit == "share" else f"{value:.3g} {unit}".rstrip()


@task(name="gate", task_run_name="gate")
def judge_candidate(candidate: Candidate, targets: GateConfig) -> Verdict:
    """Judge the candidate, and log what it missed."""
    verdict, log = judge(candidate, targets), get_run_logger()
    for check in verdict.failed:
        log.warning(check.reason)
    log.info("%d of %d checks passed", len(verdict.checks) - len(verdict.failed), len(verdict.checks))
    return verdict
