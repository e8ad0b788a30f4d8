"""One configuration from a preset, a file and options."""

import tomllib

import pytest

from flows.config import load_config, store_uri
from flows.template import config_template
from storage.errors import InputError
from tasks.config import RetrainConfig
from tasks.presets import PRESETS


def test_a_preset_fills_in_what_nobody_gave():
    config = load_config(None, {"preset": "highest_speed"})
    assert config.train.model.architecture == "custom_light"
    model = config.train.model
    assert (model.input_px, config.train.batch_size, model.dropout) == (120, 64, 0.2)


def test_another_architecture_than_the_presets_takes_none_of_its_sizes():
    given = {"train": {"model": {"architecture": "mobilenet_v3_small"}}}
    config = load_config(None, {"preset": "balanced", **given})
    assert config.train.model.filters == ()
    assert config.train.optimizer == load_config(None, {"preset": "balanced"}).train.optimizer
    with pytest.raises(InputError, match=r"train\.model"):
        load_config(None, {"train": {"model": "mobilenet_v3_small"}})


def test_the_file_wins_over_the_preset_and_an_option_over_the_file(tmp_path):
    path = tmp_path / "retrain.toml"
    path.write_text('preset = "highest_speed"\n[train]\nepochs = 7\nbatch_size = 16\n')
    config = load_config(path, {"train": {"epochs": "3"}})
    assert (config.train.epochs, config.train.batch_size) == (3, 16)
    assert config.train.model.architecture == "custom_light"


def test_a_preset_that_there_is_none_of_is_named_whatever_else_is_given():
    with pytest.raises(InputError, match=r"preset: Input should be .*got 'alanced'"):
        load_config(None, {"preset": "alanced", "train": {"model": {"architecture": "custom_light"}}})


def test_every_wrong_field_is_named_with_what_it_got(tmp_path):
    path = tmp_path / "retrain.toml"
    path.write_text("[train]\nepochs = 0\nepoch = 3\n")
    with pytest.raises(InputError) as error:
        load_config(path, {})
    message = str(error.value)
    assert "train.epochs" in message and "got 0" in message
    assert "train.epoch: there is no such field; did you mean epochs?" in message
    assert str(path) in message


def test_a_wrong_source_is_one_line_and_not_that_there_is_none() -> None:
    source = {"name": "a", "prefix": "b", "mapping": {"tired": "sleepy"}}
    with pytest.raises(InputError) as error:
        load_config(None, {"data": {"sources": [source]}})
    (_, line) = str(error.value).splitlines()
    assert "data.sources.0: " in line and "there is no class 'sleepy'" in line
    with pytest.raises(InputError, match=r"data\.sources: .*at least 1 item"):
        load_config(None, {"data": {"sources": []}})


@pytest.mark.parametrize("content", ["[train", "\udcff"])
def test_a_file_that_is_no_toml_is_named(tmp_path, content):
    path = tmp_path / "retrain.toml"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=r"retrain\.toml can't be read as TOML"):
        load_config(path, {})


def test_without_a_store_the_error_says_where_to_give_one(monkeypatch):
    monkeypatch.delenv("STRESS_VISION_STORE", raising=False)
    with pytest.raises(InputError, match="STRESS_VISION_STORE"):
        store_uri("")
    monkeypatch.setenv("STRESS_VISION_STORE", "s3://faces")
    assert store_uri("") == "s3://faces"
    assert store_uri("/data") == "/data"


@pytest.mark.parametrize("preset", PRESETS)
def test_the_template_reads_back_as_the_preset(tmp_path, preset):
    path = tmp_path / "retrain.toml"
    config = RetrainConfig.model_validate({"preset": preset})
    path.write_text(config_template(config), encoding="utf-8")
    assert load_config(path, {}) == config
    assert set(tomllib.loads(path.read_text(encoding="utf-8"))) == set(RetrainConfig.model_fields)


def test_names_of_a_mapping_stand_in_the_template_as_they_are(tmp_path):
    source = {"name": "a", "prefix": "b", "mapping": {"very sad": "sad", "müde": "fatigue", "3": ""}}
    config = RetrainConfig.model_validate({"data": {"sources": [source]}})
    (tmp_path / "retrain.toml").write_text(config_template(config), encoding="utf-8")
    assert load_config(tmp_path / "retrain.toml", {}) == config


def test_every_field_has_a_description():
    def undescribed(model, path=""):
        for name, field in model.model_fields.items():
            if not field.description:
                yield f"{path}{name}"
            if hasattr(field.annotation, "model_fields"):
                yield from undescribed(field.annotation, f"{path}{name}.")

    assert list(undescribed(RetrainConfig)) == []
