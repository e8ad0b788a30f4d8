import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import precision_recall_fscore_support, roc_auc_score

from storage.errors import InputError, ModelError
from tasks.classes import CLASSES
from tasks.convert import ConvertedModels, TensorInfo, TfliteModel
from tasks.evaluate import agreement, compare, evaluate, evaluate_predictions, load_predictions, predict
from tasks.evaluate.calibration import reliability
from tasks.evaluate.compare import Paired
from tasks.evaluate.figures import cells_of, macro_figures, measure
from tasks.evaluate.intervals import bootstrap_intervals, independent_images, share_interval
from tasks.evaluate.layers import errors_of_files, layer_errors
from tasks.litert import dequantize, quantize
from tasks.prepare import PreparedData, load_split
from tests.tasks.small_model import SOURCES, prepared_data, save_keras, save_tflite

# Keras 3.15 with numpy 2.4, and the converter of every uint8 input; neither is ours to mend
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Statistics for quantized inputs:UserWarning"),
]


Answers = tuple[np.ndarray, np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    return prepared_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, data: PreparedData) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    keras_path = save_keras(folder / "model.keras", data)
    return {
        "float": keras_path,
        "float32": save_tflite(folder / "model_float32.tflite", keras_path),
        "int8": save_tflite(folder / "model_int8.tflite", keras_path, data),
    }


@pytest.fixture
def answers() -> Answers:
    """Probabilities and labels of 400 images, about half of them right, with five classes and two sources."""
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 5, 400).astype(np.uint8)
    logits = rng.normal(size=(400, 5)) + 1.2 * np.eye(5)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return probabilities.astype(np.float32), labels, (labels == 4).astype(np.uint8)


def test_a_float32_conversion_gives_the_probabilities_of_the_keras_model(
    models: dict[str, Path], data: PreparedData
) -> None:
    images = load_split(data.directory, "test").images
    ours, theirs = predict(models["float32"], images), predict(models["float"], images)
    assert ours.dtype == theirs.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert agreement(ours, theirs).share == 1


def test_an_int8_model_takes_the_bytes_as_they_are_and_gives_probabilities(
    models: dict[str, Path], data: PreparedData
) -> None:
    images = load_split(data.directory, "test").images
    probabilities = predict(models["int8"], images)
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=5 / 256)
    assert agreement(probabilities, predict(models["float"], images)).share > 0.9


def test_an_int8_input_is_quantised_by_the_tensors_own_scale_and_zero_point() -> None:
    tensor = {"dtype": np.int8, "quantization": (2.0, -100)}
    images = np.array([[0, 10, 254, 255]], np.uint8)
    assert quantize(images, tensor).tolist() == [[-100, -95, 27, 28]]
    assert dequantize(quantize(images, tensor), tensor).tolist() == [[0, 10, 254, 256]]


def test_every_figure_of_a_model_is_in_its_json_and_its_pictures_open(
    models: dict[str, Path], data: PreparedData, tmp_path: Path
) -> None:
    evaluation = evaluate(models["int8"], data, tmp_path, "int8")
    saved = json.loads(evaluation.json_path.read_text())
    assert saved["accuracy"] == evaluation.accuracy
    assert "NaN" not in evaluation.json_path.read_text()
    assert set(evaluation.pictures) == {"confusion_matrix", "reliability", "confident_errors", "stress"}
    for picture in evaluation.pictures.values():
        with Image.open(picture) as opened:
            assert min(opened.size) > 200
    probabilities, labels, _ = load_predictions(evaluation)
    assert evaluation.accuracy == np.mean(probabilities.argmax(1) == labels)
    assert evaluation.accuracy_ci[0] < evaluation.accuracy < evaluation.accuracy_ci[1]
    assert sum(one.images for one in evaluation.per_source.values()) == evaluation.images
    assert all(name in evaluation.classification_report for name in CLASSES)
    assert not list(tmp_path.glob("*.part*"))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 half of one"])
def test_half_a_network_is_one_error_that_says_so(
    models: dict[str, Path], data: PreparedData, tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "final_model.keras"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=rf"expected a whole \.keras file, got {len(content)} bytes"):
        evaluate(path, data, tmp_path, "float")


@pytest.mark.parametrize("content", [b"", b"garbage", None])
def test_what_a_network_has_seen_must_be_known(
    models: dict[str, Path], data: PreparedData, tmp_path: Path, content: bytes | None
) -> None:
    seen = tmp_path / "seen_images.npy"
    if content is None:
        np.save(seen, np.zeros((2, 2)))
    else:
        seen.write_bytes(content)
    with pytest.raises(InputError, match=r"seen_images\.npy can't be read .* train anew"):
        evaluate(models["int8"], data, tmp_path, "int8", seen=seen)


def test_the_same_images_give_the_same_intervals(answers: Answers) -> None:
    first, second = (measure(*answers, SOURCES, np.arange(400)) for _ in range(2))
    assert first == second


def test_classes_and_sources_without_a_test_image_have_no_figures(tmp_path: Path) -> None:
    data = prepared_data(tmp_path / "data", test_classes=("happy", "sad"), per_class=6)
    answers = made_up_answers(12)
    evaluation = evaluate_predictions(answers, tmp_path / "model.keras", data, tmp_path, "float")
    fatigue = evaluation.per_class["fatigue"]
    assert (fatigue.recall, fatigue.f1, fatigue.auc, fatigue.support) == (None, None, None, 0)
    assert evaluation.absent == ("neutral", "stress", "fatigue")
    areas = [one.auc for one in evaluation.per_class.values() if one.auc is not None]
    assert len(areas) == 2 and evaluation.auc == pytest.approx(np.mean(areas))
    assert evaluation.stress_points == () and "stress" not in evaluation.pictures
    assert evaluation.per_source["custom"].accuracy is None
    happy, sad = (evaluation.per_class[name].recall for name in ("happy", "sad"))
    assert happy is not None and sad is not None
    assert evaluation.macro_recall == pytest.approx((happy + sad) / 2)


def test_a_split_of_one_class_has_no_area_under_a_curve(answers: Answers) -> None:
    probabilities, labels, sources = (part[answers[1] == 0] for part in answers)
    figures = measure(probabilities, labels, sources, SOURCES, np.arange(len(labels)))
    assert figures["auc"] is None and figures["macro_recall"] > 0


def test_figures_agree_with_scikit_learn(answers: Answers) -> None:
    probabilities, labels, sources = answers
    figures = measure(probabilities, labels, sources, SOURCES, np.arange(400))
    precision, recall, f1, support = precision_recall_fscore_support(labels, probabilities.argmax(1))
    for index, one in enumerate(figures["per_class"].values()):
        assert (one.precision, one.recall, one.f1, one.support) == pytest.approx(
            (precision[index], recall[index], f1[index], support[index])
        )
    assert figures["macro_f1"] == pytest.approx(f1.mean())
    positive, scores = labels == CLASSES.index("stress"), probabilities[:, CLASSES.index("stress")]
    for point in figures["stress_points"]:
        found = [scores >= one for one in scores if (scores[positive] >= one).mean() >= point.recall]
        assert point.precision == pytest.approx(max(positive[alarms].mean() for alarms in found))
    assert figures["auc"] == pytest.approx(roc_auc_score(labels, probabilities, multi_class="ovr"), abs=1e-6)


@pytest.mark.parametrize("members", [1, 4, 40], ids=["strangers", "small groups", "large groups"])
def test_the_bootstrap_agrees_with_resampling_groups_one_by_one(answers: Answers, members: int) -> None:
    probabilities, labels, _ = answers
    predicted, groups = probabilities.argmax(1), np.arange(len(labels)) // members
    cells = cells_of(labels, predicted)
    [*_, (low, high)] = bootstrap_intervals(cells, (5, 5), groups, macro_figures, rounds=4000)
    tables = np.stack([np.bincount(cells[groups == one], minlength=25) for one in np.unique(groups)])
    drawn = np.random.default_rng(1).integers(0, len(tables), (1500, len(tables)))
    slow = macro_figures(tables[drawn].sum(1).reshape(-1, 5, 5))[:, 2]
    assert (low, high) == pytest.approx(np.quantile(slow, [0.025, 0.975]), abs=0.006)


def test_an_interval_of_few_images_that_are_all_right_does_not_collapse() -> None:
    low, high = share_interval(1, 10)
    assert high == pytest.approx(1)
    assert 0.65 < low < 0.75
    right, persons = np.ones(40, bool), np.arange(40) // 4
    assert share_interval(1, independent_images(right, persons))[0] < low


@pytest.mark.parametrize(("share", "whole"), [(0.5, 200), (0.84, 5000)])
def test_a_share_lies_in_its_interval_in_95_of_100_repetitions(share: float, whole: int) -> None:
    draws = np.random.default_rng(0).binomial(whole, share, 2000)
    inside = [low <= share <= high for low, high in (share_interval(draw / whole, whole) for draw in draws)]
    assert 0.93 < np.mean(inside) < 0.97


@pytest.mark.parametrize("persons", [8, 30])
def test_a_share_lies_in_its_interval_where_frames_of_one_person_are_right_together(persons: int) -> None:
    """Ten frames a person, each person's own share drawn around 0.8; images alone would cover 65 of 100."""
    rng, groups = np.random.default_rng(0), np.repeat(np.arange(persons), 10)
    inside = []
    for _ in range(400):
        right = rng.random(len(groups)) < rng.beta(1.2, 0.3, persons)[groups]
        low, high = share_interval(right.mean(), independent_images(right, groups))
        inside.append(low <= 0.8 <= high)
    assert np.mean(inside) > 0.91


def test_every_interval_is_wider_where_wrong_images_are_of_few_persons(answers: Answers) -> None:
    """The same answers, once of strangers and once with each person's frames all right or all wrong."""
    probabilities, labels, _ = answers
    right = probabilities.argmax(1) == labels
    persons = np.empty(len(labels), int)
    order = np.lexsort((right, labels))
    persons[order] = np.arange(len(labels)) // 10
    apart = measure(*answers, SOURCES, np.arange(len(labels)))
    together = measure(*answers, SOURCES, persons)
    for name in ("accuracy", "macro_precision", "macro_recall", "macro_f1"):
        assert together[name] == apart[name]
        assert width(together[f"{name}_ci"]) > 1.5 * width(apart[f"{name}_ci"]), name
    for name in CLASSES:
        ours, theirs = (width(figures["per_class"][name].recall_ci) for figures in (together, apart))
        assert ours > 1.5 * theirs
    for name in SOURCES:
        ours, theirs = (width(figures["per_source"][name].ci) for figures in (together, apart))
        assert ours > 1.5 * theirs


def made_up_answers(images: int) -> np.ndarray:
    """Probabilities float32 (N, 5)."""
    return np.random.default_rng(7).dirichlet(np.ones(5), images).astype(np.float32)


def width(interval: tuple[float, float]) -> float:
    return interval[1] - interval[0]


def test_calibration_error_is_the_gap_between_confidence_and_accuracy() -> None:
    probabilities = np.tile(np.array([[0.8, 0.05, 0.05, 0.05, 0.05]], np.float32), (10, 1))
    labels = np.array([0] * 6 + [1] * 4)
    assert reliability(probabilities, labels).ece == pytest.approx(0.2)
    assert reliability(probabilities, np.array([0] * 8 + [1] * 2)).ece == pytest.approx(0, abs=1e-6)


def test_common_errors_are_sorted_by_count_with_their_share_of_the_true_class() -> None:
    labels = np.array([2] * 10 + [1] * 4)
    predicted = np.array([0] * 6 + [2] * 4 + [3] * 2 + [1] * 2)
    answers = np.eye(5, dtype=np.float32)[predicted]
    figures = measure(answers, labels, labels * 0, SOURCES, np.arange(len(labels)))
    errors = [(error.truth, error.predicted, error.count, error.share) for error in figures["common_errors"]]
    assert errors == [("sad", "neutral", 6, 0.6), ("stress", "happy", 2, 0.5)]


def test_only_images_that_one_model_alone_gets_right_speak_for_it() -> None:
    labels = np.zeros(100, int)
    candidate = np.eye(5)[[0] * 90 + [1] * 10]
    champion = np.eye(5)[[0] * 80 + [1] * 20]
    paired = compare(candidate, champion, labels)
    assert (paired.both_right, paired.candidate_only, paired.champion_only, paired.neither) == (80, 10, 0, 10)
    assert paired.difference == pytest.approx(0.1)
    assert paired.p_value == pytest.approx(2 * 0.5**10)
    low, high = paired.interval()
    assert 0 < low < 0.1 < high


def test_a_model_that_does_not_differ_from_the_champion_is_not_said_to(answers: Answers) -> None:
    probabilities, labels, _ = answers
    paired = compare(probabilities, probabilities, labels)
    low, high = paired.interval()
    assert (paired.difference, paired.p_value) == (0, 1)
    assert -0.01 < low < 0 < high < 0.01


def test_few_images_without_disagreement_leave_the_difference_open() -> None:
    low, high = Paired(both_right=25, candidate_only=0, champion_only=0, neither=5).interval()
    assert (low, high) == pytest.approx((-0.1135, 0.1135), abs=1e-4)
    assert Paired(both_right=0, candidate_only=9, champion_only=0, neither=0).interval()[1] == 1


@pytest.mark.parametrize(
    ("ours", "theirs", "images"), [(1, 7, 21), (12, 5, 54), (0, 3, 40), (300, 250, 5000)]
)
def test_at_the_ends_of_the_paired_interval_a_score_test_just_rejects(
    ours: int, theirs: int, images: int
) -> None:
    """With the nuisance where the likelihood is largest, found by trying all values instead of by formula."""
    paired = Paired(both_right=images - ours - theirs, candidate_only=ours, champion_only=theirs, neither=0)
    for end in paired.interval():
        worse = np.linspace(max(0, -end), (1 - end) / 2, 400_001)[1:-1]
        better = worse + end
        same = (images - ours - theirs) * np.log(1 - better - worse)
        likeliest = worse[np.argmax(same + theirs * np.log(worse) + ours * np.log(np.maximum(better, 1e-12)))]
        spread = np.sqrt((2 * likeliest + end - end**2) / images)
        assert abs(paired.difference - end) / spread == pytest.approx(1.96, abs=0.01)


@pytest.mark.parametrize("images", [30, 100, 1000])
@pytest.mark.parametrize(("better", "worse"), [(0.0, 0.02), (0.03, 0.02), (0.1, 0.1)])
def test_the_true_difference_lies_in_the_paired_interval(images: int, better: float, worse: float) -> None:
    draws = np.random.default_rng(1).multinomial(images, [better, worse, 1 - better - worse], 1500)
    covered = 0
    for (ours, theirs, same), times in Counter(map(tuple, draws.tolist())).items():
        paired = Paired(both_right=same, candidate_only=ours, champion_only=theirs, neither=0)
        low, high = paired.interval()
        covered += times * (low <= better - worse <= high)
    assert covered / 1500 > 0.93


def test_the_true_difference_lies_in_the_paired_interval_of_few_persons() -> None:
    """Twelve persons with ten frames each, of whom some look like others to one model."""
    rng, persons = np.random.default_rng(2), np.repeat(np.arange(12), 10)
    either = np.eye(2)
    covered = {"together": 0, "apart": 0}
    for _ in range(400):
        shares = rng.dirichlet((0.25, 0.25, 2), 12).cumsum(1)[persons]
        outcome = (rng.random((120, 1)) > shares).sum(1)
        ours, theirs = either[(outcome != 1) * 1], either[(outcome != 0) * 1]
        for name, groups in (("together", persons), ("apart", None)):
            low, high = compare(ours, theirs, np.ones(120, int), groups).interval()
            covered[name] += low <= 0 <= high
    assert covered["together"] / 400 > 0.93 > 0.8 > covered["apart"] / 400


def test_predictions_on_other_images_are_not_compared() -> None:
    with pytest.raises(InputError, match="same images"):
        agreement(np.ones((3, 5)), np.ones((4, 5)))


def test_a_broken_model_file_is_named_in_the_error(tmp_path: Path) -> None:
    images = np.zeros((1, 48, 48, 1), np.uint8)
    for name in ("model.tflite", "model.keras", "model.h5"):
        (tmp_path / name).write_bytes(b"not a model")
        with pytest.raises(ModelError, match=name):
            predict(tmp_path / name, images)


@pytest.mark.parametrize("name", ["float", "int8"])
def test_images_of_another_size_than_the_model_takes_are_refused(models: dict[str, Path], name: str) -> None:
    with pytest.raises(ModelError, match=r"\(48, 48, 1\).*\(32, 32, 1\)"):
        predict(models[name], np.zeros((2, 32, 32, 1), np.uint8))


def test_an_empty_split_is_an_error_that_says_where_to_look(models: dict[str, Path], tmp_path: Path) -> None:
    data = prepared_data(tmp_path / "data", test_classes=())
    with pytest.raises(InputError, match=r"test split has no image.*metadata\.json"):
        evaluate(models["float"], data, tmp_path, "float")


def test_images_that_the_network_has_learnt_from_are_left_out_and_counted(
    data: PreparedData, tmp_path: Path
) -> None:
    test = load_split(data.directory, "test")
    known = np.arange(0, len(test.images), 4)
    np.save(tmp_path / "seen_images.npy", np.unique(test.digests[known]))
    answers, path = made_up_answers(len(test.images)), tmp_path / "model.keras"
    whole = evaluate_predictions(answers, path, data, tmp_path / "whole", "float")
    fresh = evaluate_predictions(
        np.delete(answers, known, axis=0), path, data, tmp_path / "fresh", "float",
        seen=tmp_path / "seen_images.npy",
    )  # fmt: skip
    assert (whole.left_out, fresh.left_out) == (0, len(known))
    assert fresh.images == whole.images - len(known)
    right = load_predictions(whole)[0].argmax(1) == test.labels
    assert fresh.accuracy == np.delete(right, known).mean()


def test_the_error_of_quantization_is_told_layer_by_layer(
    models: dict[str, Path], data: PreparedData
) -> None:
    images = load_split(data.directory, "test").images[:16]
    errors = layer_errors(models["float32"], models["int8"], images)
    assert [error.relative_error for error in errors] == sorted(
        (error.relative_error for error in errors), reverse=True
    )
    assert any("conv2d" in error.name for error in errors)
    assert 0 < errors[0].relative_error < 0.2
    assert layer_errors(models["float32"], models["float32"], images) == ()


def test_layers_are_compared_on_validation_images_where_there_is_a_float32_file(
    models: dict[str, Path], data: PreparedData
) -> None:
    files = {
        name: TfliteModel(
            format=name, path=models[name], bytes=1, sha256="", min_runtime_version="", delegate_partitions=1,
            undelegated=(), input=_TENSOR, output=_TENSOR,
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
