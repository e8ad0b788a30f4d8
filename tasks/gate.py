"""The gate: is this candidate good enough to run on the fleet?

In: a `Candidate`, measured as it will run, and the targets. Out: a `Verdict` with one `Check` per target.
A pure function: nothing is read or measured here.

A figure that is missing is a failed check with its reason; a floor that is not set makes no check. A
rejected model is a normal outcome, not an exception.
"""

import math
from typing import Literal

from prefect import get_run_logger, task
from pydantic import BaseModel

from tasks.candidate import Candidate
from tasks.champion import AgainstRelease, Role
from tasks.classes import CLASSES
from tasks.config.gate import GateConfig
from tasks.evaluate.camera_figures import Cameras
from tasks.evaluate.elsewhere import ElsewhereFigures

Unit = Literal["share", "points", "MB", "ms", "", "million"]
Interval = tuple[float, float] | None
Measured = tuple[float | None, Interval]
"""A share from 0 to 1 and its 95 % interval."""
_UNMEASURED: Measured = (None, None)
RELEASE_CHECKS: dict[Role, str] = {
    "champion": "accuracy against the champion",
    "anchor": "accuracy against the best release so far",
}
"""The names of the checks that compare with a release; their intervals are of the difference, in points."""


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

    @staticmethod
    def digits(value: float) -> str:
        """Three digits, or all before the point: 0.112, 54.7, 1,234."""
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


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
    """Non-inferiority: at worst, with the confidence asked for, it may be behind by the margin."""
    margins = {"champion": targets.champion_margin, "anchor": targets.anchor_margin}
    name, floor = RELEASE_CHECKS[against.role], -margins[against.role]
    paired = against.paired
    if paired is None:
        return _at_least(name, None, floor, None, "points")
    low = 100 * paired.interval(2 * targets.champion_confidence - 1)[0]
    ends = paired.interval()
    change, sure = 100 * paired.difference, f"{targets.champion_confidence:.0%}"
    bound = f"with {sure} confidence it is at worst {low:+.2f} points, {-floor:g} below is allowed"
    reason = f"{change:+.2f} points against it on the same {paired.images:,} images; {bound}"
    return Check(
        name=name, value=change, target=floor, sense="at least", unit="points", passed=low >= floor,
        margin=low - floor, interval=(100 * ends[0], 100 * ends[1]), reason=reason,
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
    distance = f"{Check.digits(100 * gap)} points" if unit == "share" else _show(gap, unit)
    where = "exactly" if value == target else f"{distance} {'over' if value > target else 'under'}"
    reason = f"{name} {_show(value, unit)} is {where} {_show(target, unit)}"
    if interval and value >= target > interval[0]:
        reason += f", though its 95 % interval reaches down to {_show(interval[0], unit)}"
    return reason


def _show(value: float, unit: Unit) -> str:
    return f"{100 * value:.3g} %" if unit == "share" else f"{Check.digits(value)} {unit}".rstrip()


@task(name="gate", task_run_name="gate")
def judge_candidate(candidate: Candidate, targets: GateConfig) -> Verdict:
    """Judge the candidate, and log what it missed."""
    verdict, log = judge(candidate, targets), get_run_logger()
    for check in verdict.failed:
        log.warning(check.reason)
    log.info("%d of %d checks passed", len(verdict.checks) - len(verdict.failed), len(verdict.checks))
    return verdict
