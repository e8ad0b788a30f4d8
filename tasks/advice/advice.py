"""What the rules look at, and what they give."""

from typing import Any

from pydantic import BaseModel

from tasks.classes import CLASSES
from tasks.evaluate import Evaluation
from tasks.night import Night

Value = str | float | int | bool | tuple[int, ...]


class Advice(BaseModel, frozen=True):
    """One finding, its likely cause, and config fields (dotted, from the run's config) with values to try."""

    finding: str
    likely_cause: str
    changes: dict[str, Value] = {}
    beyond_config: str = ""


def new_values(run: Night, changes: dict[str, Value]) -> dict[str, Value]:
    """The changes that differ from the run's own config."""
    return {path: value for path, value in changes.items() if _current(run, path) != value}


def _current(run: Night, path: str) -> Value:
    value: Any = run.config
    for name in path.split("."):
        value = getattr(value, name)
    return value


def training_figures(run: Night) -> Evaluation:
    """What training is judged by: INT8, but float where quantization loses more than its bound.

    What that loses isn't put down to training: `quantization_loss` tells of it.
    """
    lossy = run.made.points_lost > run.config.targets.max_quantization_loss
    return run.made.original if lossy else run.made.int8


def real_images(run: Night) -> dict[str, int]:
    """Real training images of each class that the data has, however often they are drawn."""
    data = run.made.data
    counts = data.counts.get("train", {})
    return {name: counts.get(name, 0) for name in CLASSES if name not in data.absent}
