from typing import Any

import pytest
from pydantic import ValidationError

from tasks.candidate import Candidate
from tasks.champion import AgainstRelease
from tasks.classes import CLASSES
from tasks.evaluate import ClassFigures, Paired, SourceFigures
from tasks.evaluate.camera_figures import Cameras
from tasks.evaluate.elsewhere import ElsewhereEvaluation
from tasks.gate import Check, GateConfig, Verdict, judge
from tests.tasks.small_run import host_latency, small_candidate


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Candidate:
    """A candidate that passes."""
    made = small_candidate(tmp_path_factory.mktemp("candidate"))
    figures = {
        "accuracy": 0.86,
        "accuracy_ci": (0.85, 0.87),
        "macro_recall": 0.8,
        "macro_recall_ci": (0.79, 0.81),
        "per_class": {name: of_class(0.8) for name in CLASSES},
        "per_source": {"fer2013": of_source(0.85), "custom": of_source(0.95)},
        "images": 1000,
        "left_out": 0,
    }
    model = {"bytes": 1_500_000, "host_latency": host_latency(3.0)}
    clean = made.cameras.cameras[0]
    through = clean.model_copy(update={"camera": "blur 1 px"})
    return changed(
        made,
        model=model,
        data={"leaked_pairs": 0, "twin_share": 0.0, "shortcut_added": 0.0},
        float_accuracy=0.862,
        cameras=made.cameras.model_copy(update={"cameras": (clean, through)}),
        elsewhere=made.elsewhere.model_copy(update={"sets": ()}),
        **figures,
    )


def of_class(recall: float | None) -> ClassFigures:
    interval = None if recall is None else (recall - 0.02, recall + 0.02)
    return ClassFigures(precision=0.8, recall=recall, recall_ci=interval, f1=0.8, auc=0.9, support=200)


def of_source(accuracy: float) -> SourceFigures:
    return SourceFigures(accuracy=accuracy, images=500, ci=(accuracy - 0.02, accuracy + 0.02))


def changed(
    good: Candidate,
    *,
    model: dict[str, Any] | None = None,
    data: dict[str, Any] | None = None,
    float_accuracy: float | None = None,
    against: tuple[AgainstRelease, ...] = (),
    cameras: Cameras | None = None,
    elsewhere: ElsewhereEvaluation | None = None,
    **int8: Any,
) -> Candidate:
    """The candidate with other figures; those of the INT8 evaluation as keywords."""
    file = good.model.model_copy(update=model or {})
    float_figures = {} if float_accuracy is None else {"accuracy": float_accuracy}
    return good.model_copy(
        update={
            "converted": good.converted.model_copy(update={"models": {"int8": file}}),
            "data": good.data.model_copy(update=data or {}),
            "original": good.original.model_copy(update=float_figures),
            "int8": good.int8.model_copy(update=int8),
            "against": against,
            "cameras": cameras or good.cameras,
            "elsewhere": elsewhere or good.elsewhere,
        }
    )


@pytest.fixture
def judged(good):
    """The verdict on a good candidate with some of its figures replaced."""

    def of(targets: GateConfig | None = None, **changes: Any) -> Verdict:
        return judge(changed(good, **changes), targets or GateConfig())

    return of


def check(verdict: Verdict, name: str) -> Check:
    [found] = [one for one in verdict.checks if one.name == name]
    return found


def test_a_good_first_model_passes_with_the_default_targets(judged):
    verdict = judged()
    assert verdict.passed
    assert not verdict.failed
    assert [one.name for one in verdict.checks] == [
        "accuracy", "model size", "latency on this host", "quantization loss", "leaked pairs",
        "twins in a sample", "shortcut added", "test images seen before", "recall of stress", "recall of sad",
        "accuracy kept (blur 1 px)", "answers leaning to neutral",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "name", "reason"),
    [
        (
            {"accuracy": 0.812, "float_accuracy": 0.812},
            "accuracy",
            "accuracy 81.2 % is 2.8 points under 84 %",
        ),
        ({"model": {"bytes": 11_200_000}}, "model size", "model size 11.2 MB is 1.2 MB over 10 MB"),
        (
            {"model": {"host_latency": host_latency(250.0)}},
            "latency on this host",
            "250 ms is 50 ms over 200 ms",
        ),
        ({"float_accuracy": 0.9}, "quantization loss", "4 points is 1 points over 3 points"),
        ({"data": {"twin_share": 0.012}}, "twins in a sample", "1.2 % is 0.7 points over 0.5 %"),
        ({"data": {"shortcut_added": 0.27}}, "shortcut added", "shortcut added 0.27 is 0.25 over 0.02"),
        ({"data": {"leaked_pairs": 2}}, "leaked pairs", "leaked pairs 2 is 2 over 0"),
        ({"data": {"leaked_pairs": 12345}}, "leaked pairs", "leaked pairs 12,345 is 12,345 over 0"),
        ({"accuracy": 0.0, "float_accuracy": 0.0}, "accuracy", "accuracy 0 % is 84 points under 84 %"),
    ],
)
def test_each_missed_target_rejects_with_its_distance_in_plain_words(judged, changes, name, reason):
    verdict = judged(**changes)
    assert not verdict.passed
    [failed] = verdict.failed
    assert failed.name == name
    assert failed.margin < 0
    assert reason in failed.reason


def without(good: Candidate, *classes: str) -> dict[str, dict[str, int]]:
    """The counts of its data had no source an image of these."""
    return {
        split: {name: 0 if name in classes else count for name, count in counts.items()}
        for split, counts in good.data.counts.items()
    }


def test_a_class_that_no_source_provides_is_named_and_the_model_judged_on_the_others(good, judged):
    figures = {name: of_class(None if name == "sad" else 0.8) for name in CLASSES}
    assert "recall of sad" in judged(per_class=figures).missed
    verdict = judged(per_class=figures, data={"counts": without(good, "sad")})
    assert verdict.passed and verdict.not_judged == ("sad",)
    assert "recall of sad" not in [one.name for one in verdict.checks]


def test_a_class_that_the_champion_tells_must_not_get_lost(good, judged):
    paired = Paired(both_right=4000, candidate_only=150, champion_only=100, neither=500)
    champion = AgainstRelease(role="champion", version="v", paired=paired, lost=("fatigue",))
    verdict = judged(data={"counts": without(good, "fatigue")}, against=(champion,))
    assert verdict.missed == ("classes lost against the champion",)
    assert "fatigue, of which tonight's data has no image" in verdict.failed[0].reason


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"accuracy": float("nan")}, ["accuracy", "quantization loss"]),
        ({"float_accuracy": float("nan")}, ["quantization loss"]),
        ({"model": {"host_latency": None}}, ["latency on this host"]),
        ({"data": {"leaked_pairs": None}}, ["leaked pairs"]),
    ],
)
def test_a_missing_figure_is_a_failed_check_with_its_reason(judged, changes, names):
    verdict = judged(**changes)
    assert list(verdict.missed) == names
    assert all("was not measured" in one.reason and one.value is None for one in verdict.failed)


def test_a_target_that_is_met_exactly_passes(judged):
    assert check(judged(accuracy=0.84), "accuracy").passed


def test_a_pass_that_chance_could_explain_says_so(judged):
    doubtful = check(judged(accuracy=0.845, accuracy_ci=(0.83, 0.86)), "accuracy")
    assert doubtful.passed
    assert "interval reaches down to 83 %" in doubtful.reason
    assert "interval" not in check(judged(), "accuracy").reason


def test_a_floor_for_every_class_yields_to_the_floor_of_one(judged):
    targets = GateConfig(min_class_recall=0.7, class_recall_floors={"sad": 0.5})
    recalls = dict.fromkeys(CLASSES, 0.8) | {"sad": 0.55, "stress": 0.65}
    verdict = judged(targets, per_class={name: of_class(recall) for name, recall in recalls.items()})
    assert [one.name for one in verdict.failed] == ["recall of stress"]
    assert check(verdict, "recall of sad").target == 0.5


def test_a_class_without_a_test_image_fails_its_floor(judged):
    targets = GateConfig(min_class_recall=0.1)
    assert not check(judged(targets, per_class={"sad": of_class(None)}), "recall of sad").passed
    assert not check(judged(targets, per_class={}), "recall of happy").passed


def test_an_easy_source_can_not_buy_the_accuracy_of_a_hard_one(judged):
    verdict = judged(GateConfig(min_source_accuracy=0.9))
    assert [one.name for one in verdict.failed] == ["accuracy on fer2013"]


def test_a_floor_on_a_source_that_is_not_there_fails(judged):
    verdict = judged(GateConfig(source_accuracy_floors={"night": 0.5}))
    assert [one.name for one in verdict.failed] == ["accuracy on night"]


def test_optional_limits_are_checked_where_they_are_set(judged):
    targets = GateConfig(min_macro_recall=0.78, max_delegate_partitions=1, max_instructions_m=8)
    assert judged(targets, model={"delegate_partitions": 1, "instructions_m": 6.4}).passed
    verdict = judged(targets, model={"delegate_partitions": 19, "instructions_m": None}, macro_recall=0.7)
    assert [one.name for one in verdict.failed] == ["macro recall", "delegate partitions", "instructions"]


@pytest.mark.parametrize(
    ("candidate_only", "champion_only", "passed"),
    [(200, 100, True), (100, 100, True), (60, 150, False), (0, 0, True)],
)
def test_a_candidate_must_not_be_clearly_worse_than_the_champion(
    judged, candidate_only, champion_only, passed
):
    paired = Paired(both_right=4000, candidate_only=candidate_only, champion_only=champion_only, neither=500)
    verdict = judged(against=(AgainstRelease(role="champion", version="v", paired=paired),))
    against = check(verdict, "accuracy against the champion")
    assert against.passed == passed == verdict.passed
    assert against.value == pytest.approx(100 * paired.difference)
    assert against.value is not None and against.interval is not None
    assert against.interval[0] <= against.value <= against.interval[1]
    # how far what it is at worst (one-sided), not the value, is above the floor of -1 point
    assert against.margin == pytest.approx(100 * paired.interval(0.9)[0] + 1)
    assert against.interval == pytest.approx([100 * end for end in paired.interval(0.95)])
    assert "the same 4" in against.reason and "1 below is allowed" in against.reason


def test_few_images_are_not_enough_to_prove_that_a_candidate_is_no_worse(judged):
    paired = Paired(both_right=40, candidate_only=5, champion_only=5, neither=5)
    assert not judged(against=(AgainstRelease(role="champion", version="v", paired=paired),)).passed


def test_a_champion_that_was_not_compared_with_is_a_failed_check(judged):
    [failed] = judged(against=(AgainstRelease(role="champion", version="v", paired=None),)).failed
    assert failed.name == "accuracy against the champion"


def test_a_floor_outside_0_to_1_or_for_an_unknown_class_is_refused():
    with pytest.raises(ValidationError, match="from 0 to 1"):
        GateConfig(class_recall_floors={"sad": 50})
    with pytest.raises(ValidationError, match="no such class: angry"):
        GateConfig(class_recall_floors={"angry": 0.5})


def test_every_target_is_described_with_its_unit():
    for name, field in GateConfig.model_fields.items():
        assert any(
            unit in (field.description or "")
            for unit in ("share", "MB", "ms", "points", "pairs", "pieces", "cut", "million", "area")
        ), name


def test_a_warm_start_must_not_have_learnt_from_many_test_images(judged):
    targets = GateConfig(max_seen_share=0.01)
    assert judged(targets, images=991, left_out=9).passed
    assert judged(targets, images=980, left_out=20).missed == ("test images seen before",)


def test_small_steps_down_may_not_add_up_to_more_than_the_anchors_margin(judged):
    """As good as the champion, yet clearly below the best release so far."""
    near = Paired(both_right=4000, candidate_only=100, champion_only=100, neither=500)
    far = Paired(both_right=4000, candidate_only=100, champion_only=250, neither=500)
    against = (
        AgainstRelease(role="champion", version="champion", paired=near),
        AgainstRelease(role="anchor", version="anchor", paired=far),
    )
    assert judged(against=against).missed == ("accuracy against the best release so far",)
    assert judged(GateConfig(anchor_margin=5), against=against).passed


def through(good: Candidate, **figures: Any) -> Cameras:
    """The candidate's cameras, with another one last."""
    clean, other = good.cameras.cameras
    return good.cameras.model_copy(update={"cameras": (clean, other, other.model_copy(update=figures))})


def test_the_worst_camera_decides_on_the_accuracy_that_is_kept(good, judged):
    clean = good.cameras.cameras[0].accuracy
    cameras = through(good, camera="fog", accuracy=0.1 * clean)
    missed = check(judged(GateConfig(min_camera_accuracy=0.2), cameras=cameras), "accuracy kept (fog)")
    assert not missed.passed and missed.value == pytest.approx(0.1)
    assert judged(GateConfig(min_camera_accuracy=0.1 - 1e-9), cameras=cameras).passed


def test_no_class_may_become_the_answer_to_what_can_not_be_seen(good, judged):
    cameras = through(good, camera="fog", answers=dict.fromkeys(CLASSES, 0.0) | {"fatigue": 1.0})
    grown = 100 * (1 - good.cameras.cameras[0].answers["fatigue"])
    missed = check(judged(GateConfig(max_camera_growth=50), cameras=cameras), "answers leaning to fatigue")
    assert not missed.passed and missed.value == pytest.approx(grown)
    assert judged(GateConfig(max_camera_growth=100), cameras=cameras).passed


def test_a_floor_elsewhere_holds_for_every_set_that_has_the_class(good, judged):
    office = good.elsewhere.test.model_copy(update={"source": "office"})
    sad = office.per_class["sad"].model_copy(update={"recall": None, "support": 0})
    stress = office.per_class["stress"].model_copy(update={"recall": 0.3, "recall_ci": (0.2, 0.4)})
    office = office.model_copy(update={"per_class": office.per_class | {"sad": sad, "stress": stress}})
    elsewhere = good.elsewhere.model_copy(update={"sets": (office,)})
    targets = GateConfig(elsewhere_recall_floors={"stress": 0.4, "sad": 0.4})
    assert judged(targets, elsewhere=elsewhere).missed == ("on office, recall of stress",)
    assert judged(GateConfig(elsewhere_recall_floors={"stress": 0.3}), elsewhere=elsewhere).passed


def test_the_defaults_are_the_users_targets_and_the_floors_that_docs_name():
    targets = GateConfig()
    assert (targets.min_accuracy, targets.max_model_mb, targets.max_latency_ms) == (0.84, 10.0, 200.0)
    assert (targets.max_quantization_loss, targets.max_leaked_pairs, targets.max_shortcut_added) == (
        3,
        0,
        0.02,
    )
    assert (targets.min_camera_accuracy, targets.max_camera_growth) == (0.7, 15.0)
    assert targets.class_recall_floors == {"stress": 0.5, "sad": 0.45}
    assert targets.elsewhere_recall_floors == {"fatigue": 0.5}
    assert (targets.champion_margin, targets.anchor_margin, targets.max_seen_share) == (1.0, 2.0, 0.2)


@pytest.mark.parametrize(
    ("field", "inside", "outside"),
    [
        ("min_accuracy", (0, 1), (-0.01, 1.01)),
        ("max_model_mb", (0.001, 1000), (0, 1000.5)),
        ("max_latency_ms", (0.001, 60_000), (0, 60_000.5)),
        ("max_quantization_loss", (0, 100), (-0.01, 100.5)),
        ("max_leaked_pairs", (0, 10**6), (-1,)),
        ("max_twin_share", (0, 1), (-0.01, 1.01)),
        ("max_shortcut_added", (0, 0.5), (-0.01, 0.51)),
        ("min_macro_recall", (0, 1, None), (-0.01, 1.01)),
        ("min_class_recall", (0, 1, None), (-0.01, 1.01)),
        ("min_source_accuracy", (0, 1, None), (-0.01, 1.01)),
        ("min_camera_accuracy", (0, 1, None), (-0.01, 1.01)),
        ("max_camera_growth", (0, 100, None), (-0.01, 100.5)),
        ("max_delegate_partitions", (1, None), (0,)),
        ("max_instructions_m", (0.001, None), (0,)),
        ("max_seen_share", (0, 1), (-0.01, 1.01)),
        ("champion_margin", (0, 100), (-0.01, 100.5)),
        ("anchor_margin", (0, 100), (-0.01, 100.5)),
        ("champion_confidence", (0.51, 0.99), (0.5, 1)),
    ],
)
def test_a_target_that_can_not_be_meant_is_refused(field, inside, outside):
    for value in inside:
        assert getattr(GateConfig.model_validate({field: value}), field) == value
    for value in outside:
        with pytest.raises(ValidationError, match=field):
            GateConfig.model_validate({field: value})
