"""The command line as a person meets it: a process, its exit status and what it prints."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from deployments.fleet import load_fleet
from flows.cli import EXAMPLES, _parser, main
from storage.registry import Registry
from tests.releases import make_champion, new_store
from tests.ssh_devices import fleet_of
from tests.tasks.small_run import latency


def stress_vision(*arguments, **environment) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "flows.cli", *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
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


def test_a_prefect_server_that_is_dead_is_one_error_that_names_it(tmp_path):
    (tmp_path / "datasets/fer2013").mkdir(parents=True)
    (tmp_path / "datasets/fer2013/fer2013.csv").touch()
    done = stress_vision(
        "run", "--store", tmp_path, "--work_dir", tmp_path / "work", PREFECT_API_URL="http://127.0.0.1:1/api"
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "http://127.0.0.1:1/api" in done.stderr and "PREFECT_API_URL" in done.stderr


def test_a_prefect_server_that_does_not_start_in_time_is_one_error(tmp_path):
    new_store(tmp_path / "store")
    done = stress_vision(
        "prepare", "--store", tmp_path / "store", PREFECT_API_URL="", PREFECT_HOME=tmp_path,
        PREFECT_SERVER_ALLOW_EPHEMERAL_MODE="true", PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS="1",
    )  # fmt: skip
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "did not answer in time" in done.stderr


def test_each_command_has_an_example_that_is_right_usage():
    parser = _parser([])
    (commands,) = [action.choices for action in parser._actions if isinstance(action.choices, dict)]
    assert set(commands) == set(EXAMPLES)
    for name, example in EXAMPLES.items():
        assert example in " ".join(commands[name].format_help().split())
        words = shlex.split(re.split(r" [|><] |\)", example)[0])
        (start,) = [place for place, word in enumerate(words) if word.endswith("stress-vision")]
        arguments = words[start + 1 :]
        assert _parser(arguments).parse_args(arguments).command


def test_an_unknown_option_is_wrong_usage():
    assert stress_vision("run", "--train.epoch", "3").returncode == 2


def test_the_printed_configuration_names_every_preset_value():
    done = stress_vision("config", "--preset", "highest_speed")
    assert done.returncode == 0
    assert 'architecture = "custom_light"' in done.stdout and "input_px = 120" in done.stdout


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (["fl"], {"fleet"}),
        (["fleet", "--j"], {"--json"}),
        (["run", "--train.ep"], {"--train.epochs"}),
        (["config", "--preset", "s"], {"smallest"}),
        (["evaluate", "2026"], set()),
    ],
)
def test_bash_completes_commands_options_and_choices(typed: list[str], offered: set[str]) -> None:
    script = stress_vision("completion", "bash").stdout
    ask = f"COMP_WORDS=(stress-vision {shlex.join(typed)}); COMP_CWORD={len(typed)}; _shtab_stress_vision"
    show = 'printf "%s\\n" "${COMPREPLY[@]}"'
    command = ["bash", "-c", f"{script}\n{ask}\n{show}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    assert set(done.stdout.split()) == offered


@pytest.mark.parametrize(
    "command", ["config", "run --help", "prepare --help", "fleet --store .", "history --store ."]
)
def test_a_command_that_only_tells_starts_no_heavy_library(command: str, tmp_path: Path) -> None:
    (tmp_path / "store.json").write_text('{"id": "ab"}')
    script = (
        "import sys; from flows.cli import main\ntry: main()\nfinally: print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *command.split()],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        cwd=tmp_path, capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    assert done.stdout
    assert not {"prefect", "tensorflow", "numpy", "paramiko", "boto3"} & set(done.stderr.split())


def test_the_demo_leaves_a_folder_alone_that_it_did_not_make(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    done = stress_vision("demo", "--home", tmp_path)
    assert done.returncode == 1 and "--home" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_fleet_shows_champion_and_devices_of_a_store(tmp_path, tiny_releases, ssh_devices):
    from tasks.rollout import RolloutConfig
    from tests.rollouts import record, roll_out

    store = new_store(tmp_path)
    make_champion(store, tiny_releases[0])
    record(Registry(store), roll_out(tiny_releases[0], fleet_of(ssh_devices(1)), RolloutConfig()))
    done = stress_vision("fleet", "--store", tmp_path)
    assert done.returncode == 0
    assert tiny_releases[0].name in done.stdout
    assert "pi-1" in done.stdout and "updated" in done.stdout
    told = json.loads(stress_vision("fleet", "--store", tmp_path, "--json").stdout)
    assert (told["device"], told["outcome"]) == ("pi-1", "updated")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["up", "--port", "99999"], "port 99999: expected one from 1 to 65534"),
        (["up", "--port", "-1"], "port -1: expected"),
        (["demo", "--home", "/dev/null/x"], "can't write /dev/null/x"),
    ],
)
def test_a_port_or_a_folder_that_can_not_be_is_one_error(command, said, capsys):
    assert main(command) == 1
    assert said in capsys.readouterr().err


def test_fleet_prints_an_inventory_to_start_from_without_a_store(tmp_path):
    (tmp_path / "fleet.toml").write_text(stress_vision("fleet", "--example").stdout)
    (tmp_path / "key").touch()
    text = (tmp_path / "fleet.toml").read_text().replace("~/.ssh/stress_vision_ed25519", "key")
    (tmp_path / "fleet.toml").write_text(text)
    assert load_fleet(tmp_path / "fleet.toml").devices


@pytest.mark.parametrize("step", ["prepare", "train"])
def test_a_step_finds_an_empty_store_before_it_starts_a_server(step, tmp_path):
    done = stress_vision(step, "--store", tmp_path / "none")
    assert done.returncode == 1 and done.stderr.startswith("error: ")
    assert "server" not in done.stderr


def test_fleet_prints_what_a_device_answers_as_it_is_in_a_table_that_fits(tmp_path, capsys, monkeypatch):
    hostile = "[/bold] \x1b[2J[red]no space left on device[/red]\r\x9b"
    device = {"device": "pi-1", "outcome": "failed", "reason": hostile, "seen_at": "2026-01-31T03:15:00Z"}
    slow = {**device, "device": "canteen-north-12", "running_release": "20260131-031500-0a1b2c3d"}
    registry = Registry(new_store(tmp_path))
    for facts in (device, {**slow, "benchmark": latency(150).model_dump(mode="json")}):
        registry.record_device(facts["device"], facts)
    monkeypatch.setenv("COLUMNS", "100")
    assert main(["fleet", "--store", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "pi-1: failed, [/bold] [red]no space left on device[/red]\n" in printed
    assert not any(character in printed for character in "\x1b\r\x9b")
    table = printed.partition("canteen-north-12: failed")[0].splitlines()
    assert max(map(len, table)) <= 100
    columns = "canteen-north-12 20260131-031500-0a1b2c3d failed 2026-01-31 03:15 150.0 180.0 225.0 6.7"
    assert table[2].split() == columns.split()


def test_fleet_tells_a_name_that_the_inventory_has_no_more(tmp_path, capsys, monkeypatch):
    registry = Registry(new_store(tmp_path / "store"))
    for name in ("pi-1", "pi-2"):
        registry.record_device(name, {"device": name, "outcome": "updated", "reason": "proven"})
    (tmp_path / "key").touch()
    pin = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8g"
    device = f'name = "pi-2"\nhost = "h"\nuser = "pi"\nkey_file = "key"\nhost_key = "{pin}"\n'
    (tmp_path / "fleet.toml").write_text(f"[[devices]]\n{device}")
    command = ["fleet", "--store", str(tmp_path / "store")]
    forget = f"pi-1: not in the inventory; delete {tmp_path}/store/fleet/pi-1.json to forget it"
    assert main(command) == 0 and "not in the inventory" not in capsys.readouterr().out
    monkeypatch.setenv("STRESS_VISION_INVENTORY", str(tmp_path / "fleet.toml"))
    assert main(command) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[2].split() == ["pi-2", "updated"] and "not in the inventory" in printed[3]
    assert printed[4:] == [forget]
    (tmp_path / "store/fleet/pi-1.json").unlink()
    assert main(command) == 0 and "pi-1" not in capsys.readouterr().out


@pytest.mark.parametrize("command", ["fleet", "history"])
def test_what_is_asked_of_a_store_that_is_not_there_is_an_error(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "--store", str(tmp_path / "unmounted")]) == 1
    assert "Is it mounted, and the URI right?" in capsys.readouterr().err
    (tmp_path / "store.json").write_text('{"id": "ab"}')
    assert main([command, "--store", str(tmp_path)]) == 0


@pytest.mark.parametrize("command", ["fleet", "rollout"])
def test_without_a_store_the_error_says_where_to_give_one(command, tmp_path):
    more = ["--inventory", tmp_path / "fleet.toml"] if command == "rollout" else []
    done = stress_vision(command, *more, STRESS_VISION_STORE="")
    assert done.returncode == 1 and "STRESS_VISION_STORE" in done.stderr
    assert "Traceback" not in done.stderr.split("error:")[-1]
