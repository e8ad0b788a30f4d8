"""A model on sets that it knows nothing of, and figures that no threshold decides."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from storage.errors import InputError
from tasks.classes import CLASSES
from tasks.evaluate.elsewhere import ElsewhereEvaluation, measure_elsewhere, set_figures
from tasks.evaluate.ranking import rank
from tasks.prepare import PreparedData, Split, load_elsewhere
from tasks.synthetic import draw_faces
from tests.tasks.small_model import prepared_data, save_keras, save_split


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    """Splits of drawn faces, and a set from elsewhere: four classes, four images a person, dark."""
    folder = tmp_path_factory.mktemp("elsewhere")
    made = prepared_data(folder / "data")
    images, labels = draw_faces(24, seed=9)
    kept = labels != CLASSES.index("fatigue")
    images, labels = images[kept] // 2, labels[kept]
    save_split(made.directory, "lab", images, labels, np.zeros(len(labels)), np.arange(len(labels)) // 4)
    (made.directory / "lab_data.npz").rename(made.directory / "elsewhere_lab.npz")
    return made.model_copy(update={"elsewhere": ("lab",)})


@pytest.fixture(scope="module")
def model(data: PreparedData) -> Path:
    return save_keras(data.directory.parent / "model.keras", data, epochs=6)


def test_a_model_is_measured_on_every_set_beside_the_test_split(
    data: PreparedData, model: Path, tmp_path: Path
) -> None:
    evaluation = measure_elsewhere(model, data, tmp_path, "float")
    [lab] = evaluation.sets
    assert (lab.source, lab.images, lab.groups, lab.left_out) == ("lab", 96, 24, 0)
    assert (evaluation.test.images, evaluation.test.groups) == (120, 120)
    assert lab.accuracy != evaluation.test.accuracy
    assert lab.accuracy_ci[0] < lab.accuracy < lab.accuracy_ci[1]
    present = [lab.per_class[name].recall for name in CLASSES[:4]]
    assert lab.macro_recall == pytest.approx(np.mean([recall for recall in present if recall is not None]))
    assert sum(one.answers for one in lab.per_class.values()) == pytest.approx(1)
    assert evaluation == ElsewhereEvaluation.model_validate_json(evaluation.json_path.read_text())


def test_a_class_that_a_set_lacks_has_no_recall_but_a_share_of_the_answers(data: PreparedData) -> None:
    split = load_elsewhere(data.directory, "lab")
    always = np.tile(np.eye(5, dtype=np.float32)[4], (len(split.labels), 1))
    fatigue = set_figures("lab", always, split).per_class["fatigue"]
    assert (fatigue.support, fatigue.recall, fatigue.ranking, fatigue.answers) == (0, None, None, 1)


def test_images_that_the_network_has_learnt_from_are_left_out(
    data: PreparedData, model: Path, tmp_path: Path
) -> None:
    digests = load_elsewhere(data.directory, "lab").digests
    np.save(tmp_path / "seen.npy", digests[:30])
    [lab] = measure_elsewhere(model, data, tmp_path, "float", tmp_path / "seen.npy").sets
    assert (lab.images, lab.left_out) == (66, 30)
    np.save(tmp_path / "seen.npy", digests)
    with pytest.raises(InputError, match="lab: none of 96 images is left"):
        measure_elsewhere(model, data, tmp_path, "float", tmp_path / "seen.npy")


def test_a_threshold_that_is_wrong_elsewhere_costs_accuracy_and_no_area(data: PreparedData) -> None:
    split: Split = load_elsewhere(data.directory, "lab")
    stress = split.labels == 1
    shy = np.zeros((len(stress), 5), np.float32)
    shy[:, 1], shy[:, 0] = np.where(stress, 0.4, 0.1), np.where(stress, 0.6, 0.9)
    figures = set_figures("lab", shy, split).per_class["stress"]
    assert figures.recall == 0
    assert figures.ranking is not None
    assert figures.ranking.auc == figures.ranking.recall_at_5 == 1


def test_area_is_scikit_learns_and_recall_is_read_off_the_curve() -> None:
    rng = np.random.default_rng(4)
    positive = rng.random(600) < 0.3
    # rounded, so that many are equal, as an INT8 model's are
    scores = np.round(rng.normal(positive * 1.2, 1), 1)
    ranking = rank(scores, positive, np.arange(600))
    assert ranking is not None
    assert ranking.auc == pytest.approx(roc_auc_score(positive, scores))
    threshold = np.quantile(scores[~positive], 0.9)
    found = [(scores[positive] > threshold).mean(), (scores[positive] >= threshold).mean()]
    assert found[0] <= ranking.recall_at_10 <= found[1]
    assert ranking.recall_at_5 < ranking.recall_at_10


def test_intervals_are_wider_where_images_are_of_few_people() -> None:
    rng = np.random.default_rng(5)
    person = np.repeat(np.arange(30), 20)
    positive = np.arange(600) % 3 == 0
    scores = positive + rng.normal(0, 1, 30)[person] * np.where(positive, 1, -1) + rng.normal(0, 0.3, 600)
    alone, people = rank(scores, positive, np.arange(600)), rank(scores, positive, person)
    assert alone is not None and people is not None
    widths = [high - low for low, high in (alone.auc_ci, people.auc_ci)]
    assert widths[1] > 2 * widths[0]
    assert people.auc_ci[0] < people.auc < people.auc_ci[1]
