"""What the form says is what the night does."""

from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from flows.config import load_config
from flows.nightly import NightForm, whole_config
from flows.template import config_template
from storage.errors import InputError
from tasks.config import RetrainConfig
from tasks.presets import PRESETS

ROOT = Path(__file__).parents[2]


def form(store: Path, **tables: object) -> NightForm:
    return NightForm.model_validate({"data": {"store": str(store)}, **tables})


def test_the_form_has_ten_fields_in_groups_each_with_a_title_and_a_description() -> None:
    fields = list(_leaves(NightForm))
    assert len(fields) <= 10
    assert all(field.title and field.description for field in fields)


def _leaves(model: type[BaseModel]):
    for field in model.model_fields.values():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _leaves(field.annotation)
        else:
            yield field


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_that_is_chosen_in_the_form_is_the_one_that_runs(tmp_path: Path, preset: str) -> None:
    config = whole_config(form(tmp_path, training={"preset": preset}))
    assert config == RetrainConfig.model_validate({"store": str(tmp_path), "preset": preset})


def test_all_that_the_form_has_arrives_where_it_belongs(tmp_path: Path) -> None:
    config = whole_config(
        form(
            tmp_path,
            data={"store": str(tmp_path), "label_set": "ferplus"},
            training={"epochs": 3},
            targets={"min_accuracy": 0.9, "max_latency_ms": 50},
            fleet={"inventory": "fleet.toml", "group": "lab"},
            force=True,
        )
    )
    assert (config.prepare.label_set, config.train.epochs, config.force) == ("ferplus", 3, True)
    assert (config.targets.min_accuracy, config.targets.max_latency_ms) == (0.9, 50)
    assert (config.rollout.inventory, config.rollout.group) == ("fleet.toml", "lab")


def test_what_the_form_leaves_empty_comes_from_the_settings_in_the_store(tmp_path: Path) -> None:
    """Sent as a browser sends it: every field, also those that nobody touched."""
    whole = RetrainConfig.model_validate({"preset": "smallest", "train": {"epochs": 7}, "force": True})
    (tmp_path / "retrain.toml").write_text(config_template(whole))
    untouched = form(tmp_path).model_dump(mode="json")
    expected = load_config(tmp_path / "retrain.toml", {"store": str(tmp_path)})
    assert whole_config(NightForm.model_validate(untouched)).model_dump() == expected.model_dump()
    assert whole_config(form(tmp_path, training={"epochs": 9})).train.epochs == 9


def test_another_preset_in_the_form_wins_over_settings_that_were_printed_whole(tmp_path: Path) -> None:
    """Only what a person changed in them stays."""
    printed = config_template(RetrainConfig())
    (tmp_path / "retrain.toml").write_text(printed.replace("batch_size = 64", "batch_size = 16", 1))
    chosen = whole_config(form(tmp_path, training={"preset": "smallest"}))
    given = {"store": str(tmp_path), "preset": "smallest", "train": {"batch_size": 16}}
    assert chosen.model_dump() == RetrainConfig.model_validate(given).model_dump()


def test_settings_that_are_named_and_missing_or_wrong_are_an_error_that_names_them(tmp_path: Path) -> None:
    assert whole_config(form(tmp_path)).train == RetrainConfig().train
    with pytest.raises(InputError, match=r"no settings office\.toml"):
        whole_config(form(tmp_path, data={"store": str(tmp_path), "settings": "office.toml"}))
    (tmp_path / "retrain.toml").write_text("[train]\nepoch = 3\n")
    with pytest.raises(InputError, match=r"retrain\.toml.*\n.*train\.epoch"):
        whole_config(form(tmp_path))


def test_deployments_repeat_nothing_of_the_presets() -> None:
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    (nightly,) = [one for one in deployments if one["name"] == "nightly"]
    assert "parameters" not in nightly
