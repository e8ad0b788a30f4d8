"""What a model finds through other cameras, in figures."""

from pathlib import Path

from pydantic import BaseModel, Field, computed_field

from tasks.classes import CLASSES

CLEAN = "as they are"


class CameraFigures(BaseModel, frozen=True):
    """What a model finds through one camera. Shares are 0 to 1."""

    camera: str
    accuracy: float
    macro_recall: float
    recall: dict[str, float | None]
    """Of each class; None where it has no image."""
    answers: dict[str, float]
    """How much of all answers each class gets."""


class Loss(BaseModel, frozen=True):
    """One camera beside the images as they are."""

    camera: str
    accuracy_kept: float | None
    """Accuracy as a share of the clean one. This and recalls: None where there is nothing to keep."""
    recall_kept: dict[str, float | None]
    growth: dict[str, float]
    """By how much each class's share of the answers is larger, in points of 100."""


class Cameras(BaseModel, frozen=True):
    """One model on the same images through every camera; the first is none: the images as they are."""

    model: str
    split: str
    images: int
    truth: dict[str, float]
    """How much of the images each class really has."""
    cameras: tuple[CameraFigures, ...] = Field(min_length=1)
    json_path: Path
    picture: Path

    @computed_field
    @property
    def losses(self) -> tuple[Loss, ...]:
        """Every camera but the first, beside the first."""
        clean, *others = self.cameras
        return tuple(loss(clean, other) for other in others)

    @computed_field
    @property
    def worst(self) -> CameraFigures:
        """The camera with the lowest accuracy."""
        return min(self.cameras, key=lambda figures: figures.accuracy)

    @computed_field
    @property
    def largest_growth(self) -> dict[str, float]:
        """By how many points of 100 a class's share of the answers grows under the worst camera for it."""
        return {name: max([0.0, *(one.growth[name] for one in self.losses)]) for name in CLASSES}


def loss(clean: CameraFigures, other: CameraFigures) -> Loss:
    """What `other` keeps of `clean`, and which classes its answers lean to."""
    return Loss(
        camera=other.camera,
        accuracy_kept=_kept(other.accuracy, clean.accuracy),
        recall_kept={name: _kept(other.recall[name], clean.recall[name]) for name in CLASSES},
        growth={name: 100 * (other.answers[name] - clean.answers[name]) for name in CLASSES},
    )


def _kept(value: float | None, clean: float | None) -> float | None:
    return value / clean if value is not None and clean else None
