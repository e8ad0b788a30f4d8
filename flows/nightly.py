"""The night as it is started from a form: what changes from day to day, and a file in the store for all else.

Requires, and ends, as `flows.retrain`, whose flow takes the whole configuration.
"""

from typing import Any, get_args

from prefect import flow
from prefect.client.schemas.objects import State
from pydantic import BaseModel, Field

from flows.config import parse_config, parse_toml, store_uri
from flows.retrain import run_night
from flows.said import night_name
from storage.errors import InputError, MissingObject
from storage.files import SETTINGS_BYTES
from storage.opening import open_store
from tasks.config import RetrainConfig, merge
from tasks.config.prepare import LabelChoice
from tasks.presets import PRESETS

_SETTINGS = "retrain.toml"


_UNSET = "as the settings say"
"""A list's first choice; elsewhere empty and 0 mean it: a field that may be null is a button in a form."""


class FormData(BaseModel, frozen=True, extra="forbid", title="Data"):
    store: str = Field(
        default="",
        title="Store",
        description="s3://bucket/prefix or a directory. Empty: STRESS_VISION_STORE of the worker.",
    )
    label_set: str = Field(
        default=_UNSET,
        title="Labels",
        description="Whose labels the images of FER-2013 get.",
        json_schema_extra={"enum": [_UNSET, *get_args(LabelChoice)]},
    )
    settings: str = Field(
        default=_SETTINGS,
        title="Settings",
        description=f"TOML file in the store with all that this form leaves out. {_SETTINGS} may be missing; "
        "`stress-vision config` prints one with every field.",
    )


class FormTraining(BaseModel, frozen=True, extra="forbid", title="Training"):
    preset: str = Field(
        default=_UNSET,
        title="Preset",
        description="Network and hyperparameters; balanced where the settings have none.",
        json_schema_extra={"enum": [_UNSET, *PRESETS]},
    )
    epochs: int = Field(
        default=0, title="Epochs", ge=0, le=10_000, description="0: as many as settings or preset say."
    )


class FormTargets(BaseModel, frozen=True, extra="forbid", title="Targets"):
    min_accuracy: float = Field(
        default=0,
        title="Accuracy, at least",
        ge=0,
        le=1,
        description="Of the INT8 model on the test split, 0 to 1. 0: as the settings say, or 0.84.",
    )
    max_latency_ms: float = Field(
        default=0,
        title="Latency, at most",
        ge=0,
        le=60_000,
        description="p95 of a frame, milliseconds. 0: as the settings say, or 200.",
    )


class FormFleet(BaseModel, frozen=True, extra="forbid", title="Fleet"):
    inventory: str = Field(
        default="",
        title="Inventory",
        description="Path of fleet.toml on the worker's machine. Empty: that of the settings, else "
        "STRESS_VISION_INVENTORY of the worker, else no fleet.",
    )
    group: str = Field(default="", title="Group", description="Only the devices of this group. Empty: all.")


class NightForm(BaseModel, frozen=True, extra="forbid", title="Tonight"):
    """Ten fields at most; those left empty come from the settings, the preset, or their own defaults."""

    data: FormData = Field(default=FormData(), title="Data")
    training: FormTraining = Field(default=FormTraining(), title="Training")
    targets: FormTargets = Field(default=FormTargets(), title="Targets")
    fleet: FormFleet = Field(default=FormFleet(), title="Fleet")
    force: bool = Field(
        default=False, title="Force", description="Train even if nothing is new since the last night."
    )

    @property
    def preset(self) -> str:
        """The one chosen here; empty where there is none."""
        return "" if self.training.preset == _UNSET else self.training.preset

    def given(self) -> dict[str, Any]:
        """What is filled in, by the names of the whole configuration's fields."""
        form: dict[str, Any] = {
            "store": self.data.store,
            "preset": self.training.preset,
            "prepare": {"label_set": self.data.label_set},
            "train": {"epochs": self.training.epochs},
            "targets": self.targets.model_dump(),
            "rollout": self.fleet.model_dump(),
            "force": self.force,
        }
        return _filled_in(form)


@flow(name="retrain", flow_run_name=night_name)
def nightly(tonight: NightForm = NightForm()) -> State:  # noqa: B008 (frozen)
    """Retrain on the data in the store, judge the INT8 model, and roll out what passes.

    Args:
        tonight: What is different from the settings in the store.
    """
    return run_night(whole_config(tonight))


def whole_config(form: NightForm) -> RetrainConfig:
    """The form over the settings in the store. Raises InputError, naming each field amiss."""
    settings = _settings(store_uri(form.data.store), form.data.settings)
    return parse_config(RetrainConfig, merge(settings, form.given()), f"the form and {form.data.settings}")


def _settings(store: str, key: str) -> dict[str, Any]:
    if not key:
        return {}
    try:
        found = open_store(store).read(key, SETTINGS_BYTES)
    except MissingObject:
        if key == _SETTINGS:
            return {}
        raise InputError(f"the store {store} has no settings {key}") from None
    return _changes(parse_toml(found, f"{store}/{key}"))


def _changes(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings without what their preset says too: printed whole, they let the form choose another.

    A preset that there is none of is left for `parse_config` to name.
    """
    preset = settings.get("preset", RetrainConfig.model_fields["preset"].default)
    usual = RetrainConfig.model_validate({"preset": preset}) if preset in PRESETS else RetrainConfig()
    return {"preset": preset, **_differing(settings, usual)}


def _differing(settings: dict[str, Any], usual: BaseModel) -> dict[str, Any]:
    """Tables are those of the configuration: a field whose value is a dict is kept whole or not at all."""
    changed: dict[str, Any] = {}
    values = usual.model_dump(mode="json")
    for name, value in settings.items():
        ours = getattr(usual, name, None)
        if isinstance(value, dict) and isinstance(ours, BaseModel):
            changed[name] = _differing(value, ours)
        elif name not in values or value != values[name]:
            changed[name] = value
    return changed


def _filled_in(form: dict[str, Any]) -> dict[str, Any]:
    tables = {name: _filled_in(value) if isinstance(value, dict) else value for name, value in form.items()}
    return {name: value for name, value in tables.items() if value not in ("", 0, _UNSET, {})}
