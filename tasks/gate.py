"""The gate: is this candidate good enough to run on the fleet?

In: `Figures` of the INT8 candidate as it will run, the targets, and the champion's figures if there is one.
Out: a `Verdict` with one `Check` per target. A pure function of plain numbers.

A figure that is missing is a failed check with its reason; a floor that is not set makes no check. A
rejected model is a normal outcome, not an exception.
"""

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from tasks.classes import CLASSES
from tasks.evaluate.compare import Paired
from tasks.evaluate.figures import Evaluation

Unit = Literal["share", "points", "MB", "ms", "", "million"]


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
        default_factory=dict,
        description='Recall of single classes, at least (share, 0 to 1), as {"sad": 0.5}; goes before '
        "min_class_recall.",
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
    champion_confidence: float = Field(
        default=0.95,
        gt=0.5,
        lt=1,
        description="One-sided confidence that it does not lie below by more (share, 0.5 to 1).",
    )

    @field_validator("class_recall_floors", "source_accuracy_floors")
    @classmethod
    def _shares(cls, floors: dict[str, float]) -> dict[str, float]:
        wrong = {name: floor for name, floor in floors.items() if not 0 <= floor <= 1}
        if wrong:
            raise ValueError(f"expected shares from 0 to 1, got {wrong}")
        return floors

    @field_validator("class_recall_floors")
    @classmethod
    def _known_classes(cls, floors: dict[str, float]) -> dict[str, float]:
        unknown = sorted(set(floors) - set(CLASSES))
        if unknown:
            raise ValueError(f"no such class: {', '.join(unknown)}; expected some of {', '.join(CLASSES)}")
        return floors


class Figures(BaseModel, frozen=True):
    """What the gate needs to know of one model. None: not measured. Shares are 0 to 1."""

    accuracy: float | None = None
    accuracy_ci: tuple[float, float] | None = None
    macro_recall: float | None = None
    macro_recall_ci: tuple[float, float] | None = None
    class_recall: dict[str, float | None] = {}
    class_recall_ci: dict[str, tuple[float, float] | None] = {}
    source_accuracy: dict[str, float | None] = {}
    source_accuracy_ci: dict[str, tuple[float, float] | None] = {}
    float_accuracy: float | None = None
    model_bytes: int | None = None
    host_latency_ms: float | None = None
    leaked_pairs: int | None = None
    delegate_partitions: int | None = None
    instructions_m: float | None = None
    warm_start: bool = False
    seen_share: float | None = None
    against_champion: Paired | None = None


class Check(BaseModel, frozen=True):
    """One target: `margin` is the distance to it in `unit` ("": a count), positive where reached."""

    name: str
    value: float | None
    target: float
    sense: Literal["at least", "at most"]
    unit: Unit
    passed: bool
    margin: float | None
    interval: tuple[float, float] | None
    reason: str


class Verdict(BaseModel, frozen=True):
    """Passed only if every check passed."""

    passed: bool
    checks: tuple[Check, ...]

    @property
    def failed(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if not check.passed)


def figures_of(
    int8: Evaluation,
    float_evaluation: Evaluation | None = None,
    *,
    model_bytes: int | None = None,
    host_latency_ms: float | None = None,
    leaked_pairs: int | None = None,
    delegate_partitions: int | None = None,
    instructions_m: float | None = None,
    warm_start: bool = False,
    against_champion: Paired | None = None,
) -> Figures:
    """Collect the gate's figures from an evaluation and what was measured beside it."""
    return Figures(
        accuracy=int8.accuracy,
        accuracy_ci=int8.accuracy_ci,
        macro_recall=int8.macro_recall,
        macro_recall_ci=int8.macro_recall_ci,
        class_recall={name: one.recall for name, one in int8.per_class.items()},
        class_recall_ci={name: one.recall_ci for name, one in int8.per_class.items()},
        source_accuracy={name: one.accuracy for name, one in int8.per_source.items()},
        source_accuracy_ci={name: one.ci for name, one in int8.per_source.items()},
        float_accuracy=float_evaluation.accuracy if float_evaluation else None,
        model_bytes=model_bytes,
        host_latency_ms=host_latency_ms,
        leaked_pairs=leaked_pairs,
        delegate_partitions=delegate_partitions,
        instructions_m=instructions_m,
        warm_start=warm_start,
        seen_share=int8.left_out / (int8.images + int8.left_out),
        against_champion=against_champion,
    )


def judge(candidate: Figures, targets: GateConfig, champion: Figures | None = None) -> Verdict:
    """Check every target. With a champion, `candidate.against_champion` must hold the paired comparison."""
    checks = [
        *_base_checks(candidate, targets),
        *_floor_checks(candidate, targets),
        *_limit_checks(candidate, targets),
    ]
    if candidate.warm_start:
        checks.append(
            _at_most("test images seen before", candidate.seen_share, targets.max_seen_share, "share")
        )
    if champion is not None:
        checks.append(_champion_check(candidate, targets))
    return Verdict(passed=all(check.passed for check in checks), checks=tuple(checks))


def _base_checks(candidate: Figures, targets: GateConfig) -> list[Check]:
    size = None if candidate.model_bytes is None else candidate.model_bytes / 1e6
    return [
        _at_least("accuracy", candidate.accuracy, targets.min_accuracy, candidate.accuracy_ci),
        _at_most("model size", size, targets.max_model_mb, "MB"),
        _at_most("latency on this host", candidate.host_latency_ms, targets.max_latency_ms, "ms"),
        _at_most("quantization loss", _quantization_loss(candidate), targets.max_quantization_loss, "points"),
        _at_most("leaked pairs", candidate.leaked_pairs, targets.max_leaked_pairs, ""),
    ]


def _floor_checks(candidate: Figures, targets: GateConfig) -> list[Check]:
    checks = []
    if targets.min_macro_recall is not None:
        checks.append(
            _at_least(
                "macro recall", candidate.macro_recall, targets.min_macro_recall, candidate.macro_recall_ci
            )
        )
    recalls = dict.fromkeys(CLASSES) | candidate.class_recall
    for name, floor in _floors(recalls, targets.min_class_recall, targets.class_recall_floors):
        checks.append(
            _at_least(f"recall of {name}", recalls[name], floor, candidate.class_recall_ci.get(name))
        )
    sources = dict.fromkeys(targets.source_accuracy_floors) | candidate.source_accuracy
    for name, floor in _floors(sources, targets.min_source_accuracy, targets.source_accuracy_floors):
        checks.append(
            _at_least(f"accuracy on {name}", sources[name], floor, candidate.source_accuracy_ci.get(name))
        )
    return checks


def _limit_checks(candidate: Figures, targets: GateConfig) -> list[Check]:
    limits = [
        ("delegate partitions", candidate.delegate_partitions, targets.max_delegate_partitions, ""),
        ("instructions", candidate.instructions_m, targets.max_instructions_m, "million"),
    ]
    return [_at_most(name, value, limit, unit) for name, value, limit, unit in limits if limit is not None]


def _champion_check(candidate: Figures, targets: GateConfig) -> Check:
    """Non-inferiority: the lower end of the paired interval must lie above minus the margin."""
    name, floor = "accuracy against the champion", -targets.champion_margin
    paired = candidate.against_champion
    if paired is None:
        return _at_least(name, None, floor, None, "points")
    low, high = (100 * end for end in paired.interval(2 * targets.champion_confidence - 1))
    change, sure = 100 * paired.difference, f"{targets.champion_confidence:.0%}"
    bound = f"with {sure} confidence it is at worst {low:+.2f} points, {-floor:g} below is allowed"
    reason = f"{change:+.2f} points against the champion on the same {paired.images:,} images; {bound}"
    return Check(
        name=name, value=change, target=floor, sense="at least", unit="points",
        passed=low >= floor, margin=low - floor, interval=(low, high), reason=reason,
    )  # fmt: skip


def _floors(
    names: dict[str, float | None], every: float | None, single: dict[str, float]
) -> list[tuple[str, float]]:
    floors = [(name, single.get(name, every)) for name in names]
    return [(name, floor) for name, floor in floors if floor is not None]


def _quantization_loss(figures: Figures) -> float | None:
    if figures.float_accuracy is None or figures.accuracy is None:
        return None
    return 100 * (figures.float_accuracy - figures.accuracy)


def _at_least(
    name: str, value: float | None, target: float, interval: tuple[float, float] | None, unit: Unit = "share"
) -> Check:
    return _check(name, value, target, "at least", unit, interval)


def _at_most(name: str, value: float | None, target: float, unit: Unit) -> Check:
    return _check(name, value, target, "at most", unit, None)


def _check(
    name: str, value: float | None, target: float, sense: Literal["at least", "at most"], unit: Unit,
    interval: tuple[float, float] | None,
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


def _reason(
    name: str, value: float, target: float, sense: str, unit: Unit, interval: tuple[float, float] | None
) -> str:
    gap = abs(value - target)
    distance = f"{100 * gap:.2g} points" if unit == "share" else _show(gap, unit)
    where = "exactly" if value == target else f"{distance} {'over' if value > target else 'under'}"
    reason = f"{name} {_show(value, unit)} is {where} {_show(target, unit)}"
    if interval and value >= target > interval[0]:
        reason += f", though its 95 % interval reaches down to {interval[0]:.3f}"
    return reason


def _show(value: float, unit: Unit) -> str:
    return f"{value:.3g} {unit.removeprefix('share')}".rstrip()
