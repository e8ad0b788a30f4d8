"""docs/document.md: what it names exists, and the values that it says are the document's are so."""

import re
from pathlib import Path
from typing import Any

import pytest

from flows.cli import _parser
from tasks.config import RetrainConfig
from tasks.convert import ConvertConfig
from tasks.gate import GateConfig
from tasks.prepare import PrepareConfig
from tasks.train import AugmentationConfig, TrainConfig

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs/document.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in TEXT.splitlines()
    if line.startswith("| ") and not line.startswith(("| the document", "|---"))
]


def test_every_statement_has_its_place_here() -> None:
    assert len(ROWS) > 60
    assert [row for row in ROWS if len(row) != 3 or not re.search(r"`[^`]+`", row[1])] == []


def test_every_file_in_a_place_exists() -> None:
    places = {name for row in ROWS for name in re.findall(r"`([\w./-]+/[\w./-]+)`", row[1])}
    assert len(places) > 20
    assert [name for name in sorted(places) if not (ROOT / name).exists()] == []


def test_every_command_and_option_exists() -> None:
    commands: dict[str, Any]
    (commands,) = [vars(a)["choices"] for a in _parser([])._actions if a.choices]
    for command, options in re.findall(r"`stress-vision (\w+)([^`]*)`", TEXT):
        known = {option for action in commands[command]._actions for option in action.option_strings}
        assert set(re.findall(r"--[\w-]+", options)) <= known, command


def test_the_presets_are_the_documents() -> None:
    rows = {
        "mobilenet_v3": ("mobilenet_v3_small", 160, 50, 32, 0.001, 0.3),
        "highest_speed": ("custom_light", 120, 50, 64, 0.004, 0.2),
    }
    for preset, (network, px, epochs, batch, rate, dropout) in rows.items():
        config = RetrainConfig.model_validate({"preset": preset})
        train, model = config.train, config.train.model
        assert (model.architecture, model.input_px, model.dropout) == (network, px, dropout)
        assert (train.epochs, train.batch_size, train.optimizer.learning_rate) == (epochs, batch, rate)
        assert train.augmentation.enabled and "int8" in config.convert.formats


def test_the_defaults_are_the_documents() -> None:
    train, prepare, augmentation = TrainConfig(), PrepareConfig(), AugmentationConfig()
    assert (train.epochs, train.batch_size, train.early_stopping_patience) == (50, 32, 10)
    assert (train.optimizer.name, train.optimizer.learning_rate, train.optimizer.plateau_factor) == (
        "adam",
        0.001,
        0.5,
    )
    model = train.model
    assert (model.architecture, model.input_px, model.trainable_layers) == ("mobilenet_v3_small", 160, 30)
    assert (model.dropout, model.head_dropout, model.l2) == (0.3, 0.2, 0.001)
    assert 10 <= augmentation.rotation_degrees <= 15 and augmentation.horizontal_flip
    assert (augmentation.shift_share, augmentation.zoom_share, augmentation.brightness_share) == (
        0.1,
        0.05,
        0.1,
    )
    assert (prepare.train_share, prepare.val_share, prepare.test_share) == (0.7, 0.15, 0.15)
    assert ConvertConfig().benchmark_runs == 100


@pytest.mark.parametrize(
    ("field", "value"), [("min_accuracy", 0.84), ("max_latency_ms", 200), ("max_model_mb", 10)]
)
def test_the_targets_are_the_documents(field: str, value: float) -> None:
    assert getattr(GateConfig(), field) == value
