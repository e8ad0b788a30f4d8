"""One configuration for a whole run.

A preset (`tasks.presets`) only fills in what nobody gave. Nothing in this folder is heavier to import than
pydantic: the command line and forms read it, without Prefect and numpy.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, Field, model_validator

from tasks.config.convert import ConvertConfig
from tasks.config.drift import DriftConfig
from tasks.config.gate import GateConfig
from tasks.config.ingest import IngestConfig
from tasks.config.prepare import PrepareConfig
from tasks.config.register import RegisterConfig
from tasks.config.rollout import RolloutConfig
from tasks.config.train import TrainConfig
from tasks.presets import PRESETS, Preset


class RetrainConfig(BaseModel, frozen=True, extra="forbid", title="Retraining run"):
    """All that a run can be told. Secrets are no part of it: they come from key files and the environment."""

    store: str = Field(
        default="",
        description="Object store with the data sets and releases: s3://bucket/prefix or a directory. "
        "Empty: the environment variable STRESS_VISION_STORE.",
    )
    preset: Preset = Field(
        default="balanced",
        description="Starting values for all that is not given.",
    )
    data: IngestConfig = Field(
        default=IngestConfig(), title="Data", description="Where the images come from."
    )
    prepare: PrepareConfig = Field(
        default=PrepareConfig(), title="Preparation", description="Labels, splits and balancing."
    )
    drift: DriftConfig = Field(
        default=DriftConfig(),
        title="Drift",
        description="When tonight's data has moved away from the champion's.",
    )
    train: TrainConfig = Field(
        default=TrainConfig(), title="Training", description="Network and hyperparameters."
    )
    convert: ConvertConfig = Field(default=ConvertConfig(), title="Conversion", description="TFLite formats.")
    targets: GateConfig = Field(
        default=GateConfig(), title="Targets", description="What a model must reach to be released."
    )
    release: RegisterConfig = Field(
        default=RegisterConfig(), title="Release", description="What a release contains besides the model."
    )
    rollout: RolloutConfig = Field(
        default=RolloutConfig(), title="Rollout", description="Which devices get the release, in which waves."
    )
    force: bool = Field(
        default=False, description="Train even if data and configuration are those of the last run."
    )
    time_limit_h: float = Field(
        default=20.0,
        gt=0,
        le=168,
        description="Hours after which a run that is not done is ended; the next goes on with what it left.",
    )
    work_dir: str = Field(
        default="",
        description="Directory for caches and unfinished work on the machine that runs. "
        "Empty: STRESS_VISION_WORK, or ~/.cache/stress-vision.",
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_in_preset(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        preset = PRESETS.get(given.get("preset", cls.model_fields["preset"].default), {})
        return merge(_for_network_of(given, preset), given)


def _for_network_of(given: Mapping[str, Any], preset: Mapping[str, Any]) -> Mapping[str, Any]:
    """The preset, without its network's sizes where `given` names another architecture."""
    train = merge({"train": {"model": {}}}, given)["train"]
    asked = train["model"] if isinstance(train, Mapping) else None
    ours = preset.get("train", {}).get("model", {}).get("architecture")
    if not preset or not isinstance(asked, Mapping) or asked.get("architecture", ours) == ours:
        return preset
    return {**preset, "train": {name: value for name, value in preset["train"].items() if name != "model"}}


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Lay `above` over `below`, table by table. A value that is no table replaces the one below it."""
    merged = {**below, **above}
    for key in below.keys() & above.keys():
        low, high = below[key], above[key]
        high = high.model_dump(exclude_unset=True) if isinstance(high, BaseModel) else high
        if isinstance(low, Mapping) and isinstance(high, Mapping):
            merged[key] = merge(low, high)
    return merged
