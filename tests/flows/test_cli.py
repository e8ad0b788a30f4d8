"""The command line as a person meets it: a process, its exit status and what it prints."""

import os
import subprocess
import sys

import pytest

from storage.opening import open_store
from storage.registry import Registry
from tests.ssh_devices import fleet_of


def stress_vision(*arguments, **environment) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "flows.cli", *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_wrong_field_is_one_error_without_a_traceback(tmp_path):
    path = tmp_path / "retrain.toml"
    path.write_text("[train]\nepochs = 0\n")
    done = stress_vision("run", "--config", path)
    assert done.returncode == 1
    assert "train.epochs" in done.stderr and "got 0" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_sweep_without_variants_is_one_error_without_a_traceback(tmp_path):
    path = tmp_path / "sweep.toml"
    path.write_text("[train]\nepochs = 3\n")
    done = stress_vision("sweep", path, "--store", tmp_path)
    assert done.returncode == 1
    assert "[[variant]]" in done.stderr and "Traceback" not in done.stderr


def test_an_unknown_option_is_wrong_usage():
    assert stress_vision("run", "--train.epoch", "3").returncode == 2


def test_the_printed_configuration_names_every_preset_value():
    done = stress_vision("config", "--preset", "highest_speed")
    assert done.returncode == 0
    assert 'architecture = "custom_light"' in done.stdout and "input_px = 120" in done.stdout


def test_the_demo_leaves_a_folder_alone_that_it_did_not_make(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    done = stress_vision("demo", "--home", tmp_path)
    assert done.returncode == 1 and "--home" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_fleet_shows_champion_and_devices_of_a_store(tmp_path, tiny_releases, ssh_devices):
    from tasks.rollout import RolloutConfig, record, roll_out

    registry = Registry(open_store(tmp_path))
    registry.promote(registry.publish(tiny_releases[0]))
    record(registry, roll_out(tiny_releases[0], fleet_of(ssh_devices(1)), RolloutConfig()))
    done = stress_vision("fleet", "--store", tmp_path, COLUMNS="120")
    assert done.returncode == 0
    assert tiny_releases[0].name in done.stdout
    assert "pi-1" in done.stdout and "updated" in done.stdout


@pytest.mark.parametrize("command", ["fleet", "rollout"])
def test_without_a_store_the_error_says_where_to_give_one(command, tmp_path):
    more = ["--inventory", tmp_path / "fleet.toml"] if command == "rollout" else []
    done = stress_vision(command, *more, STRESS_VISION_STORE="")
    assert done.returncode == 1 and "STRESS_VISION_STORE" in done.stderr
    assert "Traceback" not in done.stderr.split("error:")[-1]
