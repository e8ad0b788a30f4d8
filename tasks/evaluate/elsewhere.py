"""The same model on sets from elsewhere, of which nothing was ever learnt.

In: a model file and prepared data that has sources with `use = "evaluate"`. Out: an `ElsewhereEvaluation`
with the figures of each such set and, beside them, of the test split; also as `<name>_elsewhere.json`.

The test split comes from the cameras and places that were trained on. What a figure is worth anywhere else,
only images from there tell.
"""

from pathlib import Path

import numpy as np
from prefect import task
from prefect.logging import get_run_logger
from pydantic import BaseModel, Field

from storage.errors import InputError
from storage.files import write_whole
from tasks.classes import CLASSES
from tasks.evaluate.figures import Interval, measure
from tasks.evaluate.predict import predict
from tasks.evaluate.ranking import Ranking, rank
from tasks.prepare import PreparedData, Split, load_elsewhere, load_split
from tasks.train.seen import unseen


class ElsewhereClass(BaseModel, frozen=True):
    """One class of one set. None where the set has no image of it, or of no other class."""

    support: int = Field(description="Images of the class")
    answers: float = Field(description="Share of all images for which the model answers this class")
    precision: float | None = Field(description="Share of these answers that is right")
    recall: float | None = Field(description="Share of the class's images that is found")
    recall_ci: Interval | None = Field(description="95 % interval of the recall")
    ranking: Ranking | None = Field(description="How well its score tells the class, free of any threshold")


class ElsewhereFigures(BaseModel, frozen=True):
    """What a model reaches on one set. Intervals are 95 % and take groups, not images, as independent."""

    source: str = Field(description="The set's source; test for the test split")
    images: int = Field(description="Images measured on")
    left_out: int = Field(description="Further images, which it or a network that it started from knows")
    groups: int = Field(description="Groups of images that are independent of one another")
    accuracy: float = Field(description="Share of images that is right")
    accuracy_ci: Interval = Field(description="Its interval")
    macro_recall: float = Field(description="Mean recall of the classes that the set has")
    macro_recall_ci: Interval = Field(description="Its interval")
    per_class: dict[str, ElsewhereClass] = Field(description="Class → its figures")


class ElsewhereEvaluation(BaseModel, frozen=True):
    """One model on every set from elsewhere, and on the test split to compare with."""

    model: str
    model_path: Path
    data_fingerprint: str
    test: ElsewhereFigures
    sets: tuple[ElsewhereFigures, ...]
    json_path: Path


def measure_elsewhere(
    model_path: Path, data: PreparedData, out_dir: Path, name: str, seen: Path | None = None
) -> ElsewhereEvaluation:
    """The model at `model_path` on each set of `data.elsewhere`, written under `out_dir` as well.

    Images whose digests lie in the file `seen` are left out. InputError for a set without images then,
    ModelError for a model that can't be run on them.
    """
    evaluation = ElsewhereEvaluation(
        model=name,
        model_path=model_path,
        data_fingerprint=data.fingerprint,
        test=_measure("test", model_path, load_split(data.directory, "test"), seen),
        sets=tuple(
            _measure(source, model_path, load_elsewhere(data.directory, source), seen)
            for source in data.elsewhere
        ),
        json_path=out_dir / f"{name}_elsewhere.json",
    )
    write_whole(evaluation.json_path, evaluation.model_dump_json(indent=2))
    return evaluation


def _measure(source: str, model_path: Path, split: Split, seen: Path | None) -> ElsewhereFigures:
    images = unseen(split, seen)
    if not len(images.labels):
        raise InputError(
            f"{source}: none of {len(split.labels)} images is left to measure on: the network or one that it "
            "started from has learnt from all of them; take the source out of data.sources"
        )
    return set_figures(
        source, predict(model_path, images.images), images, len(split.labels) - len(images.labels)
    )


def set_figures(source: str, probabilities: np.ndarray, images: Split, left_out: int = 0) -> ElsewhereFigures:
    """The figures of one set from probabilities float32 (N, 5) of its images."""
    labels, groups = images.labels, images.groups
    figures = measure(probabilities, labels, np.zeros(len(labels), np.uint8), (source,), groups)
    answers = np.bincount(probabilities.argmax(1), minlength=len(CLASSES)) / len(labels)
    return ElsewhereFigures(
        source=source,
        left_out=left_out,
        groups=len(np.unique(groups)),
        per_class={
            name: ElsewhereClass(
                **figures["per_class"][name].model_dump(
                    include={"support", "precision", "recall", "recall_ci"}
                ),
                answers=answers[place],
                ranking=rank(probabilities[:, place], labels == place, groups),
            )
            for place, name in enumerate(CLASSES)
        },
        **{
            key: figures[key]
            for key in ("images", "accuracy", "accuracy_ci", "macro_recall", "macro_recall_ci")
        },
    )


@task(name="evaluate-elsewhere", task_run_name="evaluate-elsewhere-{name}")
def evaluate_elsewhere(
    model_path: Path, data: PreparedData, out_dir: Path, name: str, seen: Path | None = None
) -> ElsewhereEvaluation:
    """Measure one model on every set from elsewhere and log its figures."""
    evaluation = measure_elsewhere(model_path, data, out_dir, name, seen)
    for one in evaluation.sets:
        stress = one.per_class["stress"].ranking
        get_run_logger().info(
            "%s on %s: accuracy %.3f, macro recall %.3f on %d images; stress told with an area of %s",
            name, one.source, one.accuracy, one.macro_recall, one.images,
            f"{stress.auc:.3f}" if stress else "-",
        )  # fmt: skip
    return evaluation
