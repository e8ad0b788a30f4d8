import pytest

from tasks.advice import RULES, Measured, advise
from tasks.classes import CLASSES
from tasks.evaluate.figures import CommonError
from tasks.evaluate.layers import LayerError
from tasks.gate import GateConfig
from tasks.prepare import PrepareConfig
from tasks.train import ModelConfig, OptimizerConfig, TrainConfig
from tests.tasks.small_run import small_run

GOOD_HISTORY = {
    "loss": [1.5, 1.0, 0.8, 0.7],
    "val_loss": [1.5, 1.0, 0.85, 0.8],
    "val_accuracy": [0.3, 0.6, 0.86, 0.85],
}


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory):
    """An evaluation without anything to complain about."""
    int8 = small_run(tmp_path_factory.mktemp("night")).int8
    classes = {name: one.model_copy(update={"recall": 0.86}) for name, one in int8.per_class.items()}
    return int8.model_copy(
        update={
            "accuracy": 0.86,
            "accuracy_ci": (0.85, 0.87),
            "macro_recall": 0.86,
            "ece": 0.03,
            "per_class": classes,
        }
    )


@pytest.fixture
def measured(evaluation):
    """The figures of a good night, with some replaced: `int8`'s as keywords, others in `run`."""

    def make(run=None, **figures):
        good = Measured(
            train=TrainConfig(),
            prepare=PrepareConfig(),
            targets=GateConfig(),
            history=GOOD_HISTORY,
            counts={"train": dict.fromkeys(CLASSES, 5000), "train_augmented": dict.fromkeys(CLASSES, 1000)},
            int8=evaluation.model_copy(update=figures),
            float_evaluation=evaluation.model_copy(update={"accuracy": 0.862}),
            model_bytes=1_500_000,
            latency_ms=20.0,
            delegate_partitions=1,
        )
        return good.model_copy(update=run or {})

    return make


def only(measured):
    """The single piece of advice that the rules give."""
    [one] = advise(measured)
    return one


def configured(config, advice):
    """The run's config with the advice's changes, checked by the config's own rules."""
    plain = {"train": config.train.model_dump(), "prepare": config.prepare.model_dump()}
    for path, value in advice.changes.items():
        *parents, name = path.split(".")
        table = plain
        for parent in parents:
            table = table[parent]
        assert name in table, path
        assert table[name] != value, path
        table[name] = value
    return TrainConfig(**plain["train"]), PrepareConfig(**plain["prepare"])


def test_a_good_night_needs_no_advice(measured):
    assert advise(measured()) == ()


def test_accuracy_under_70_percent_advises_the_larger_network_lower_rate_and_more_epochs(measured):
    run = measured({"train": TrainConfig(model=ModelConfig(architecture="custom_light"))}, accuracy=0.62)
    run = run.model_copy(update={"float_evaluation": None})
    advice = only(run)
    assert "62.0%" in advice.finding
    train, _ = configured(run, advice)
    assert train.model.architecture == "mobilenet_v3_small"
    assert train.optimizer.learning_rate < run.train.optimizer.learning_rate
    assert train.epochs > run.train.epochs
    assert train.augmentation.rotation_degrees > run.train.augmentation.rotation_degrees


def test_missing_the_target_on_original_labels_points_to_the_labels_and_not_to_the_network(measured):
    advice = only(measured({"float_evaluation": None}, accuracy=0.78))
    assert advice.changes == {"prepare.label_set": "ferplus_votes"}
    assert "fer2013new.csv" in advice.beyond_config


def test_missing_the_target_on_good_labels_advises_the_network_at_the_images_own_resolution(measured):
    run = measured({"float_evaluation": None, "prepare": PrepareConfig(label_set="ferplus")}, accuracy=0.82)
    train, _ = configured(run, only(run))
    assert train.model.architecture == "resnet_native"


def test_a_validation_loss_far_over_the_training_loss_is_called_overfitting(measured):
    run = measured({"history": GOOD_HISTORY | {"loss": [1.5, 0.6, 0.3, 0.2]}})
    advice = only(run)
    assert "Overfitting" in advice.likely_cause
    train, _ = configured(run, advice)
    assert (train.model.dropout, train.early_stopping_patience) == (0.5, 5)
    assert train.model.l2 > run.train.model.l2


def test_a_loss_that_does_not_fall_advises_a_tenth_of_the_learning_rate(measured):
    run = measured({"history": {"loss": [1.6, 1.61, 1.6], "val_loss": [1.6, 1.6, 1.6]}})
    assert only(run).changes == {"train.optimizer.learning_rate": pytest.approx(0.0001)}


def test_a_network_that_was_still_getting_better_gets_more_epochs(measured):
    history = GOOD_HISTORY | {"val_accuracy": [0.3, 0.6, 0.8, 0.86]}
    run = measured({"history": history, "train": TrainConfig(epochs=4)})
    assert only(run).changes == {"train.epochs": 8}
    assert advise(measured({"history": history})) == ()


def test_too_slow_a_frame_advises_the_small_network_a_smaller_input_and_the_accelerator(measured):
    run = measured({"latency_ms": 240.0})
    advice = only(run)
    assert advice.changes == {"train.model.architecture": "custom_light", "train.model.input_px": 120}
    assert "Coral" in advice.beyond_config


@pytest.mark.parametrize(
    ("network", "field"),
    [("mobilenet_v3_small", "train.model.architecture"), ("custom_light", "train.model.filters")],
)
def test_too_large_a_file_advises_the_small_network_and_then_fewer_filters(measured, network, field):
    run = measured({"model_bytes": 12_000_000, "train": TrainConfig(model=ModelConfig(architecture=network))})
    advice = only(run)
    assert list(advice.changes) == [field]
    train, _ = configured(run, advice)
    assert sum(train.model.channels_per_stage) < 481


def test_loss_by_quantization_names_the_layers_that_lose_most(measured, evaluation):
    layers = (LayerError(name="conv_7", relative_error=0.4), LayerError(name="conv_1", relative_error=0.1))
    exact = evaluation.model_copy(update={"accuracy": 0.91})
    advice = only(measured({"float_evaluation": exact, "layer_errors": layers}))
    assert "5.0 points" in advice.finding
    assert "conv_7, conv_1" in advice.finding
    assert advice.changes == {"train.model.activation": "relu6"}


def test_a_warm_start_that_has_learnt_from_too_many_test_images_is_advised_to_start_anew(measured):
    warm = TrainConfig(init_from="release:20261122-031500-0a1b2c3d")
    advice = only(measured({"train": warm}, images=300, left_out=100))
    assert "25%" in advice.finding and advice.changes == {"train.init_from": ""}
    assert advise(measured({"train": warm}, images=300, left_out=10)) == ()


def test_a_graph_in_pieces_names_hard_swish_where_the_network_has_it(measured):
    advice = only(measured({"delegate_partitions": 19, "undelegated": ("HARD_SWISH", "HARD_SWISH")}))
    assert "19 pieces; outside of them run HARD_SWISH." in advice.finding
    assert advice.changes == {"train.model.activation": "relu6"}
    native = TrainConfig(model=ModelConfig(architecture="resnet_native"))
    assert only(measured({"delegate_partitions": 2, "train": native})).changes == {}


def test_a_class_that_is_rarely_found_is_named_with_what_it_is_taken_for(measured, evaluation):
    weak = evaluation.per_class | {"sad": evaluation.per_class["sad"].model_copy(update={"recall": 0.55})}
    errors = [CommonError(truth="sad", predicted="neutral", count=9, share=0.3)]
    advice = only(measured(per_class=weak, common_errors=errors))
    assert "55% of sad" in advice.finding
    assert "30% of it is taken for neutral" in advice.finding
    assert "4,000 real training images" in advice.likely_cause
    assert advice.changes == {"train.balance_outputs": True}
    balanced = TrainConfig(balance_outputs=True)
    assert only(measured({"train": balanced}, per_class=weak)).changes == {"train.class_weights": 1.0}


def test_what_quantization_loses_is_not_put_down_to_training(measured, evaluation):
    weak = evaluation.per_class | {"sad": evaluation.per_class["sad"].model_copy(update={"recall": 0.2})}
    advice = only(measured(accuracy=0.65, macro_recall=0.51, per_class=weak))
    assert advice.finding.startswith("INT8 loses 21.2 points of accuracy")


def test_imbalance_is_advised_against_unless_classes_are_weighted(measured):
    counts = {"train": dict.fromkeys(CLASSES, 5000) | {"fatigue": 900}}
    run = measured({"counts": counts, "prepare": PrepareConfig(target_per_class=0)})
    assert only(run).changes == {"prepare.target_per_class": 5000}
    assert advise(run.model_copy(update={"train": TrainConfig(class_weights=1.0)})) == ()


def test_few_real_images_of_a_class_can_not_be_hidden_by_augmentation(measured):
    counts = {"train": dict.fromkeys(CLASSES, 5000), "train_augmented": {"fatigue": 4950}}
    advice = only(measured({"counts": counts}))
    assert "fatigue 50" in advice.finding
    assert not advice.changes


def test_a_small_test_split_is_called_uncertain_with_the_images_it_would_take(measured):
    advice = only(measured(accuracy_ci=(0.82, 0.90), images=1000))
    assert "4.0 points" in advice.finding
    assert "4,000 test images" in advice.beyond_config


def test_a_model_that_is_too_sure_gets_label_smoothing_and_a_modest_one_less_of_it(measured):
    assert only(measured(ece=0.2, mean_confidence=0.97)).changes == {"train.label_smoothing": 0.1}
    smoothed = measured({"train": TrainConfig(label_smoothing=0.2)}, ece=0.2, mean_confidence=0.6)
    assert only(smoothed).changes == {"train.label_smoothing": 0.0}


def test_a_change_that_the_config_holds_already_is_not_advised(measured):
    train = TrainConfig(epochs=200, optimizer=OptimizerConfig(learning_rate=0.00005))
    [advice] = advise(measured({"train": train, "float_evaluation": None}, accuracy=0.6))
    assert set(advice.changes) == {"train.augmentation.rotation_degrees"}


def test_every_rule_states_what_it_looks_at():
    assert all(rule.__doc__ for rule in RULES)
