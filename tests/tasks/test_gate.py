import pytest
from pydantic import ValidationError

from tasks.classes import CLASSES
from tasks.evaluate.compare import Paired
from tasks.gate import Figures, GateConfig, judge

GOOD = Figures(
    accuracy=0.86,
    accuracy_ci=(0.85, 0.87),
    macro_recall=0.8,
    class_recall=dict.fromkeys(CLASSES, 0.8),
    source_accuracy={"fer2013": 0.85, "custom": 0.95},
    float_accuracy=0.862,
    model_bytes=1_500_000,
    host_latency_ms=3.0,
    leaked_pairs=0,
)


def judged(targets=GateConfig(), champion=None, **changed):  # noqa: B008 - frozen
    return judge(GOOD.model_copy(update=changed), targets, champion)


def check(verdict, name):
    [found] = [one for one in verdict.checks if one.name == name]
    return found


def test_a_good_first_model_passes_with_the_default_targets():
    verdict = judged()
    assert verdict.passed
    assert not verdict.failed
    assert [one.name for one in verdict.checks] == [
        "accuracy", "model size", "latency on this host", "quantization loss", "leaked pairs",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "name", "reason"),
    [
        ({"accuracy": 0.812, "float_accuracy": 0.812}, "accuracy", "accuracy 0.812 is 2.8 points under 0.84"),
        ({"model_bytes": 11_200_000}, "model size", "model size 11.2 MB is 1.2 MB over 10 MB"),
        ({"host_latency_ms": 250.0}, "latency on this host", "250 ms is 50 ms over 200 ms"),
        ({"float_accuracy": 0.9}, "quantization loss", "4 points is 1 points over 3 points"),
        ({"leaked_pairs": 2}, "leaked pairs", "leaked pairs 2 is 2 over 0"),
    ],
)
def test_each_missed_target_rejects_with_its_distance_in_plain_words(changed, name, reason):
    verdict = judged(**changed)
    assert not verdict.passed
    [failed] = verdict.failed
    assert failed.name == name
    assert failed.margin < 0
    assert reason in failed.reason


@pytest.mark.parametrize(
    ("field", "names"),
    [
        ("accuracy", ["accuracy", "quantization loss"]),
        ("float_accuracy", ["quantization loss"]),
        ("model_bytes", ["model size"]),
        ("host_latency_ms", ["latency on this host"]),
        ("leaked_pairs", ["leaked pairs"]),
    ],
)
def test_a_missing_figure_is_a_failed_check_with_its_reason(field, names):
    verdict = judged(**{field: None})
    assert [one.name for one in verdict.failed] == names
    assert all("was not measured" in one.reason and one.value is None for one in verdict.failed)


def test_a_figure_that_is_not_a_number_counts_as_missing():
    assert check(judged(accuracy=float("nan")), "accuracy").value is None


def test_a_target_that_is_met_exactly_passes():
    assert check(judged(accuracy=0.84), "accuracy").passed


def test_a_pass_that_chance_could_explain_says_so():
    doubtful = check(judged(accuracy=0.845, accuracy_ci=(0.83, 0.86)), "accuracy")
    assert doubtful.passed
    assert "interval reaches down to 0.830" in doubtful.reason
    assert "interval" not in check(judged(), "accuracy").reason


def test_a_floor_for_every_class_yields_to_the_floor_of_one():
    targets = GateConfig(min_class_recall=0.7, class_recall_floors={"sad": 0.5})
    recall = dict.fromkeys(CLASSES, 0.8) | {"sad": 0.55, "stress": 0.65}
    verdict = judged(targets, class_recall=recall)
    assert [one.name for one in verdict.failed] == ["recall of stress"]
    assert check(verdict, "recall of sad").target == 0.5


def test_a_class_without_a_test_image_fails_its_floor():
    targets = GateConfig(min_class_recall=0.1)
    assert not check(judged(targets, class_recall={"sad": None}), "recall of sad").passed
    assert not check(judged(targets, class_recall={}), "recall of happy").passed


def test_an_easy_source_can_not_buy_the_accuracy_of_a_hard_one():
    verdict = judged(GateConfig(min_source_accuracy=0.9))
    assert [one.name for one in verdict.failed] == ["accuracy on fer2013"]


def test_a_floor_on_a_source_that_is_not_there_fails():
    verdict = judged(GateConfig(source_accuracy_floors={"night": 0.5}))
    assert [one.name for one in verdict.failed] == ["accuracy on night"]


def test_optional_limits_are_checked_where_they_are_set():
    targets = GateConfig(min_macro_recall=0.78, max_delegate_partitions=1, max_instructions_m=8)
    assert judged(targets, delegate_partitions=1, instructions_m=6.4).passed
    verdict = judged(targets, delegate_partitions=19, instructions_m=None, macro_recall=0.7)
    assert [one.name for one in verdict.failed] == ["macro recall", "delegate partitions", "instructions"]


@pytest.mark.parametrize(
    ("candidate_only", "champion_only", "passed"),
    [(200, 100, True), (100, 100, True), (60, 150, False), (0, 0, True)],
)
def test_a_candidate_must_not_be_clearly_worse_than_the_champion(candidate_only, champion_only, passed):
    paired = Paired(both_right=4000, candidate_only=candidate_only, champion_only=champion_only, neither=500)
    verdict = judged(champion=GOOD, against_champion=paired)
    against = check(verdict, "accuracy against the champion")
    assert against.passed == passed == verdict.passed
    assert against.value == pytest.approx(100 * paired.difference)
    assert against.interval[0] <= against.value <= against.interval[1]


def test_few_images_are_not_enough_to_prove_that_a_candidate_is_no_worse():
    paired = Paired(both_right=40, candidate_only=5, champion_only=5, neither=5)
    assert not judged(champion=GOOD, against_champion=paired).passed


def test_a_champion_that_was_not_compared_with_is_a_failed_check():
    [failed] = judged(champion=GOOD).failed
    assert failed.name == "accuracy against the champion"


def test_a_floor_outside_0_to_1_or_for_an_unknown_class_is_refused():
    with pytest.raises(ValidationError, match="from 0 to 1"):
        GateConfig(class_recall_floors={"sad": 50})
    with pytest.raises(ValidationError, match="no such class: angry"):
        GateConfig(class_recall_floors={"angry": 0.5})


def test_every_target_is_described_with_its_unit():
    for name, field in GateConfig.model_fields.items():
        assert any(
            unit in field.description
            for unit in ("share", "MB", "ms", "points", "pairs", "pieces", "cut", "million")
        ), name


def test_a_warm_start_must_not_have_learnt_from_many_test_images():
    targets = GateConfig(max_seen_share=0.01)
    assert judged(targets, warm_start=True, seen_share=0.009).passed
    (missed,) = judged(targets, warm_start=True, seen_share=0.02).failed
    assert missed.name == "test images seen before"
    (unknown,) = judged(targets, warm_start=True).failed
    assert "was not measured" in unknown.reason
    assert judged(targets).passed
