"""One configuration for a whole run, its presets, and how files and options become one.

A preset only fills in what nobody gave: options on the command line win over the TOML file,
the file wins over the preset, the preset over the defaults of the fields.
"""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError, model_validator

from storage.errors import InputError
from tasks.convert import ConvertConfig
from tasks.gate import GateConfig
from tasks.ingest import IngestConfig
from tasks.prepare import PrepareConfig
from tasks.prepare.drift import DriftConfig
from tasks.register import RegisterConfig
from tasks.rollout import RolloutConfig
from tasks.train import TrainConfig

Preset = Literal["highest_accuracy", "balanced", "highest_speed", "smallest", "mobilenet_v3"]
Parsed = TypeVar("Parsed", bound=BaseModel)

_MOBILENET = {"architecture": "mobilenet_v3_small", "input_px": 160}
_NATIVE: dict[str, Any] = {
    "batch_size": 64,
    "class_weights": 0.25,
    "early_stopping_patience": 30,
    "optimizer": {
        "name": "adamw",
        "weight_decay": 0.05,
        "clip_norm": 5.0,
        "schedule": "cosine",
        "ema_momentum": 0.998,
    },
    "augmentation": {
        "shift_share": 0.08,
        "zoom_share": 0.12,
        "brightness_share": 0.15,
        "contrast_share": 0.25,
        "erasing_share": 0.5,
    },
}
"""What proved itself for resnet_native: docs/experiments.md."""

PRESETS: dict[str, dict[str, Any]] = {
    "highest_accuracy": {
        "prepare": {"target_per_class": 10_000},
        "train": {
            "model": _MOBILENET,
            "epochs": 100,
            "batch_size": 16,
            "optimizer": {"learning_rate": 0.0001},
        },
    },
    "mobilenet_v3": {
        "prepare": {"target_per_class": 5_000},
        "train": {
            "model": _MOBILENET,
            "epochs": 50,
            "batch_size": 32,
            "optimizer": {"learning_rate": 0.001},
        },
    },
    "highest_speed": {
        "prepare": {"target_per_class": 5_000},
        "train": {
            "model": {"architecture": "custom_light", "input_px": 120, "dropout": 0.2},
            "epochs": 50,
            "batch_size": 64,
            "optimizer": {"learning_rate": 0.001},
        },
    },
    "balanced": {
        "prepare": {"target_per_class": 3_000},
        "train": {
            **_NATIVE,
            "model": {
                "architecture": "resnet_native",
                "filters": (16, 32, 80, 192),
                "blocks": (0, 1, 1, 1),
            },
            "epochs": 30,
            "optimizer": {**_NATIVE["optimizer"], "learning_rate": 0.002},
        },
    },
    "smallest": {
        "prepare": {"target_per_class": 3_000},
        "train": {
            **_NATIVE,
            "model": {
                "architecture": "resnet_native",
                "filters": (8, 16, 32, 56),
                "blocks": (0, 1, 1, 1),
                "dropout": 0.1,
            },
            "epochs": 20,
            "balance_outputs": True,
            "optimizer": {**_NATIVE["optimizer"], "learning_rate": 0.004, "weight_decay": 0.01},
            "augmentation": {**_NATIVE["augmentation"], "contrast_share": 0.2, "erasing_share": 0.0},
        },
    },
}
"""highest_accuracy, mobilenet_v3 and highest_speed are the phase document's, mobilenet_v3 its balanced one;
only what it says, all else stays at its default. README.md has what balanced and smallest reached."""


class RetrainConfig(BaseModel, frozen=True, extra="forbid", title="Retraining run"):
    """All that a run can be told. Secrets are no part of it: they come from key files and the environment."""

    store: str = Field(
        default="",
        description="Object store with the data sets and releases: s3://bucket/prefix or a directory. "
        "Empty: the environment variable STRESS_VISION_STORE.",
    )
    preset: Preset = Field(
        default="balanced",
        description="Starting values for all that is not given. A form gives every field: there, choose the "
        "deployment of the preset's name instead of changing this.",
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
    if not isinstance(asked, Mapping) or asked.get("architecture", ours) == ours:
        return preset
    return {**preset, "train": {name: value for name, value in preset["train"].items() if name != "model"}}


def store_uri(given: str) -> str:
    """The store given, or the environment's. Raises InputError if neither says."""
    uri = given or os.environ.get("STRESS_VISION_STORE", "")
    if not uri:
        raise InputError(
            "no object store is given: set `store` to s3://bucket/prefix or a directory, "
            "or the environment variable STRESS_VISION_STORE"
        )
    return uri


def work_path(given: str) -> Path:
    """The directory for caches and unfinished work, absolute: given, or the environment's, or the default."""
    path = given or os.environ.get("STRESS_VISION_WORK", "") or "~/.cache/stress-vision"
    return Path(path).expanduser().absolute()


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Lay `above` over `below`, table by table. A value that is no table replaces the one below it."""
    merged = {**below, **above}
    for key in below.keys() & above.keys():
        low, high = below[key], above[key]
        high = high.model_dump(exclude_unset=True) if isinstance(high, BaseModel) else high
        if isinstance(low, Mapping) and isinstance(high, Mapping):
            merged[key] = merge(low, high)
    return merged


def load_config(path: Path | None, options: Mapping[str, Any]) -> RetrainConfig:
    """Read the TOML file, if any, and lay the options over it. Raises InputError, naming each bad field."""
    where = f"{path} and the command line" if path else "the command line"
    return parse_config(RetrainConfig, merge(read_toml(path) if path else {}, options), where)


def parse_config(model: type[Parsed], given: Mapping[str, Any], where: str) -> Parsed:
    """`given` as a `model`. Raises InputError with `where` it came from, naming each bad field."""
    try:
        return model.model_validate(given)
    except ValidationError as error:
        lines = [_describe(problem) for problem in error.errors()]
        raise InputError(f"the configuration from {where} can't be used:\n" + "\n".join(lines)) from None


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file. Raises InputError where it is missing or no TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"there is no configuration file {path}") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path} can't be read as TOML: {error}") from None


def _describe(problem: Any) -> str:
    field = ".".join(str(part) for part in problem["loc"])
    return f"  {field}: {problem['msg']} (got {problem['input']!r})"
