import json

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import precision_recall_fscore_support, roc_auc_score

from storage.errors import InputError, ModelError
from tasks.classes import CLASSES
from tasks.convert import ConvertedModels, TensorInfo, TfliteModel
from tasks.evaluate import agreement, compare, evaluate, load_predictions, predict
from tasks.evaluate.calibration import reliability
from tasks.evaluate.figures import EvaluateConfig, confusion_matrix, macro_figures, measure
from tasks.evaluate.intervals import bootstrap_intervals, share_interval
from tasks.evaluate.layers import errors_of_files, layer_errors
from tasks.evaluate.predict import dequantize, quantize
from tasks.prepare import load_split
from tasks.train.seen import digests
from tests.tasks.small_model import SOURCES, prepared_data, save_keras, save_tflite

# Keras 3.15 with numpy 2.4, and the converter of every uint8 input; neither is ours to mend
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Statistics for quantized inputs:UserWarning"),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return prepared_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def models(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("models")
    keras_path = save_keras(folder / "model.keras", data)
    return {
        "float": keras_path,
        "float32": save_tflite(folder / "model_float32.tflite", keras_path),
        "int8": save_tflite(folder / "model_int8.tflite", keras_path, data),
    }


@pytest.fixture
def answers():
    """Probabilities and labels of 400 images, about half of them right, with five classes and two sources."""
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 5, 400).astype(np.uint8)
    logits = rng.normal(size=(400, 5)) + 1.2 * np.eye(5)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return probabilities.astype(np.float32), labels, (labels == 4).astype(np.uint8)


def test_a_float32_conversion_gives_the_probabilities_of_the_keras_model(models, data):
    images = load_split(data.directory, "test").images
    ours, theirs = predict(models["float32"], images), predict(models["float"], images)
    assert ours.dtype == theirs.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert agreement(ours, theirs).share == 1


def test_an_int8_model_takes_the_bytes_as_they_are_and_gives_probabilities(models, data):
    images = load_split(data.directory, "test").images
    probabilities = predict(models["int8"], images)
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=5 / 256)
    assert agreement(probabilities, predict(models["float"], images)).share > 0.9


def test_an_int8_input_is_quantised_by_the_tensors_own_scale_and_zero_point():
    tensor = {"dtype": np.int8, "quantization": (2.0, -100)}
    images = np.array([[0, 10, 254, 255]], np.uint8)
    assert quantize(images, tensor).tolist() == [[-100, -95, 27, 28]]
    assert dequantize(quantize(images, tensor), tensor).tolist() == [[0, 10, 254, 256]]


def test_every_figure_of_a_model_is_in_its_json_and_its_pictures_open(models, data, tmp_path):
    evaluation = evaluate(models["int8"], data, tmp_path, "int8")
    saved = json.loads(evaluation.json_path.read_text())
    assert saved["accuracy"] == evaluation.accuracy
    assert "NaN" not in evaluation.json_path.read_text()
    assert set(evaluation.pictures) == {"confusion_matrix", "reliability", "confident_errors"}
    for picture in evaluation.pictures.values():
        with Image.open(picture) as opened:
            assert min(opened.size) > 200
    probabilities, labels, _ = load_predictions(evaluation)
    assert evaluation.accuracy == np.mean(probabilities.argmax(1) == labels)
    assert evaluation.accuracy_ci[0] < evaluation.accuracy < evaluation.accuracy_ci[1]
    assert sum(one.images for one in evaluation.per_source.values()) == evaluation.images
    assert all(name in evaluation.classification_report for name in CLASSES)
    assert not list(tmp_path.glob("*.part*"))


def test_the_same_images_give_the_same_intervals(answers):
    first, second = (measure(*answers, SOURCES, EvaluateConfig()) for _ in range(2))
    assert first == second


def test_classes_and_sources_without_a_test_image_have_no_figures(models, tmp_path):
    data = prepared_data(tmp_path / "data", test_classes=("happy", "sad"))
    evaluation = evaluate(models["float"], data, tmp_path, "float")
    fatigue = evaluation.per_class["fatigue"]
    assert (fatigue.recall, fatigue.f1, fatigue.auc, fatigue.support) == (None, None, None, 0)
    assert evaluation.auc is None
    assert evaluation.per_source["custom"].accuracy is None
    present = [evaluation.per_class[name].recall for name in ("happy", "sad")]
    assert evaluation.macro_recall == pytest.approx(np.mean(present))


def test_figures_agree_with_scikit_learn(answers):
    probabilities, labels, sources = answers
    figures = measure(probabilities, labels, sources, SOURCES, EvaluateConfig())
    precision, recall, f1, support = precision_recall_fscore_support(labels, probabilities.argmax(1))
    for index, one in enumerate(figures["per_class"].values()):
        assert (one.precision, one.recall, one.f1, one.support) == pytest.approx(
            (precision[index], recall[index], f1[index], support[index])
        )
    assert figures["macro_f1"] == pytest.approx(f1.mean())
    assert figures["auc"] == pytest.approx(roc_auc_score(labels, probabilities, multi_class="ovr"), abs=1e-6)


def test_the_bootstrap_agrees_with_resampling_images_one_by_one(answers):
    probabilities, labels, _ = answers
    predicted = probabilities.argmax(1)
    [*_, (low, high)] = bootstrap_intervals(confusion_matrix(labels, predicted), macro_figures, 4000)
    rng = np.random.default_rng(1)
    rows = rng.integers(0, len(labels), (1500, len(labels)))
    slow = [macro_figures(confusion_matrix(labels[row], predicted[row]))[2] for row in rows]
    assert (low, high) == pytest.approx(np.quantile(slow, [0.025, 0.975]), abs=0.006)


def test_an_interval_of_few_images_that_are_all_right_does_not_collapse():
    low, high = share_interval(10, 10)
    assert high == pytest.approx(1)
    assert 0.65 < low < 0.75


@pytest.mark.parametrize(("share", "whole"), [(0.5, 200), (0.84, 5000)])
def test_a_share_lies_in_its_interval_in_95_of_100_repetitions(share, whole):
    draws = np.random.default_rng(0).binomial(whole, share, 2000)
    inside = [low <= share <= high for low, high in (share_interval(draw, whole) for draw in draws)]
    assert 0.93 < np.mean(inside) < 0.97


def test_calibration_error_is_the_gap_between_confidence_and_accuracy():
    probabilities = np.tile(np.array([[0.8, 0.05, 0.05, 0.05, 0.05]], np.float32), (10, 1))
    labels = np.array([0] * 6 + [1] * 4)
    assert reliability(probabilities, labels).ece == pytest.approx(0.2)
    assert reliability(probabilities, np.array([0] * 8 + [1] * 2)).ece == pytest.approx(0, abs=1e-6)


def test_common_errors_are_sorted_by_count_with_their_share_of_the_true_class():
    labels = np.array([2] * 10 + [1] * 4)
    predicted = np.array([0] * 6 + [2] * 4 + [3] * 2 + [1] * 2)
    figures = measure(np.eye(5, dtype=np.float32)[predicted], labels, labels * 0, SOURCES, EvaluateConfig())
    errors = [(error.truth, error.predicted, error.count, error.share) for error in figures["common_errors"]]
    assert errors == [("sad", "neutral", 6, 0.6), ("stress", "happy", 2, 0.5)]


def test_only_images_that_one_model_alone_gets_right_speak_for_it():
    labels = np.zeros(100, int)
    candidate = np.eye(5)[[0] * 90 + [1] * 10]
    champion = np.eye(5)[[0] * 80 + [1] * 20]
    paired = compare(candidate, champion, labels)
    assert (paired.both_right, paired.candidate_only, paired.champion_only, paired.neither) == (80, 10, 0, 10)
    assert paired.difference == pytest.approx(0.1)
    assert paired.p_value == pytest.approx(2 * 0.5**10)
    low, high = paired.interval()
    assert 0 < low < 0.1 < high


def test_a_model_that_does_not_differ_from_the_champion_is_not_said_to(answers):
    probabilities, labels, _ = answers
    paired = compare(probabilities, probabilities, labels)
    assert (paired.difference, paired.p_value, paired.interval()) == (0, 1, (0, 0))


def test_predictions_on_other_images_are_not_compared():
    with pytest.raises(InputError, match="same images"):
        agreement(np.ones((3, 5)), np.ones((4, 5)))


def test_a_broken_model_file_is_named_in_the_error(tmp_path):
    images = np.zeros((1, 48, 48, 1), np.uint8)
    for name in ("model.tflite", "model.keras", "model.h5"):
        (tmp_path / name).write_bytes(b"not a model")
        with pytest.raises(ModelError, match=name):
            predict(tmp_path / name, images)


@pytest.mark.parametrize("name", ["float", "int8"])
def test_images_of_another_size_than_the_model_takes_are_refused(models, name):
    with pytest.raises(ModelError, match=r"\(48, 48, 1\).*\(32, 32, 1\)"):
        predict(models[name], np.zeros((2, 32, 32, 1), np.uint8))


def test_an_empty_split_is_an_error_that_says_where_to_look(models, tmp_path):
    data = prepared_data(tmp_path / "data", test_classes=())
    with pytest.raises(InputError, match=r"test split has no image.*metadata\.json"):
        evaluate(models["float"], data, tmp_path, "float")


def test_images_that_the_network_has_learnt_from_are_left_out_and_counted(models, data, tmp_path):
    test = load_split(data.directory, "test")
    known = np.arange(0, len(test.images), 4)
    np.save(tmp_path / "seen_images.npy", np.unique(digests(test.images[known])))
    whole = evaluate(models["float"], data, tmp_path / "whole", "float")
    fresh = evaluate(models["float"], data, tmp_path / "fresh", "float", seen=tmp_path / "seen_images.npy")
    assert (whole.left_out, fresh.left_out) == (0, len(known))
    assert fresh.images == whole.images - len(known)
    right = load_predictions(whole)[0].argmax(1) == test.labels
    assert fresh.accuracy == np.delete(right, known).mean()


def test_the_error_of_quantization_is_told_layer_by_layer(models, data):
    images = load_split(data.directory, "test").images[:16]
    errors = layer_errors(models["float32"], models["int8"], images)
    assert [error.relative_error for error in errors] == sorted(
        (error.relative_error for error in errors), reverse=True
    )
    assert any("conv2d" in error.name for error in errors)
    assert 0 < errors[0].relative_error < 0.2
    assert layer_errors(models["float32"], models["float32"], images) == ()


def test_layers_are_compared_on_validation_images_where_there_is_a_float32_file(models, data):
    files = {
        name: TfliteModel(
            format=name, path=models[name], bytes=1, sha256="", min_runtime_version="", delegate_partitions=1,
            undelegated=(), host_latency_ms={}, input=_TENSOR, output=_TENSOR,
        )
        for name in ("float32", "int8")
    }  # fmt: skip
    images = load_split(data.directory, "val").images
    few = images[:: len(images) // 32][:32]
    assert errors_of_files(ConvertedModels(models=files), data) == layer_errors(
        models["float32"], models["int8"], few
    )
    assert errors_of_files(ConvertedModels(models={"int8": files["int8"]}), data) == ()


_TENSOR = TensorInfo(shape=(1,), dtype="uint8", scale=1.0, zero_point=0)
