"""Each step alone, on drawn faces, a directory as store and a real Prefect server."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any
from unittest.mock import Mock
from uuid import UUID

import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State

import flows.retrain
from flows.cli import main
from flows.nightly import FormTraining
from flows.retrain import retrain
from flows.steps import (
    BenchmarkRequest,
    ConversionRequest,
    ExperimentRequest,
    StepForm,
    StepResult,
    alone,
    benchmark,
    convert,
    evaluate,
    prepare,
    report,
)
from storage.errors import FleetError, InputError
from storage.opening import open_store
from tasks.config import RetrainConfig
from tasks.experiment import NEWEST, data_of, find_experiment, list_experiments
from tasks.synthetic import write_dataset
from tests.flows.test_retrain import LENIENT, TINY, inventory
from tests.ports import free_port
from tests.ssh_devices import StartDevices, new_key

ROOT = Path(__file__).parents[2]


def result_of(state: State) -> StepResult:
    found: Any = state.result()
    assert isinstance(found, StepResult)
    return found


def place(home: Path) -> dict[str, Any]:
    return {"store": str(home / "store"), "work_dir": str(home / "work")}


def configured(home: Path) -> RetrainConfig:
    return RetrainConfig.model_validate({**place(home), **TINY, "targets": LENIENT})


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, prefect_server: None) -> Path:
    """Store and work directory after the step `train`."""
    home = tmp_path_factory.mktemp("steps")
    write_dataset(home / "store", per_class=60, seed=3)
    state = alone("train")(configured(home), return_state=True)
    assert state.name == "Trained" and "validation accuracy" in (state.message or "")
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(UUID(str(state.state_details.flow_run_id)))
    assert run.name == f"{run.expected_start_time:%Y-%m-%d %H:%M} train"
    return home


@pytest.fixture
def home(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained, tmp_path / "home")
    return tmp_path / "home"


def only_experiment(home: Path) -> Path:
    (directory,) = (home / "work/experiments").iterdir()
    return directory


@pytest.mark.slow
def test_steps_by_hand_end_in_a_report_and_a_run_goes_on_with_them_to_the_release(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = ExperimentRequest(**place(home))
    directory = only_experiment(home)
    assert not list(directory.glob("*.tflite"))
    (row,) = result_of(evaluate(here, return_state=True)).rows
    assert row["model"] == "float" and 0 <= row["accuracy"] <= 1 and row["AUC"]
    assert (directory / "float_confusion_matrix.png").exists()
    facts = json.loads((directory / "float_evaluation.json").read_text())
    assert facts["common_errors"] and facts["classification_report"]

    state = convert(ConversionRequest(**place(home), formats=("float16",)), return_state=True)
    rows = {row["model"]: row for row in result_of(state).rows}
    assert set(rows) == {"int8", "float16"}
    assert rows["int8"]["MB"] < rows["float16"]["MB"] and "within 10 MB" in (state.message or "")
    assert {"accuracy", "points lost", "mean ms", "std", "p50", "p95", "p99", "FPS"} <= set(rows["int8"])

    state = report(here, return_state=True)
    (page,) = result_of(state).files
    assert "every target reached" in (state.message or "") and "Checks" in page.read_text()
    assert (directory / "verdict.json").exists()
    kept = {info.key.split("/", 2)[2] for info in open_store(home / "store").list("experiments")}
    assert {"model_int8.tflite", "report.html", "int8_evaluation.json", "conversion.json"} <= kept

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("it trained again")

    monkeypatch.setattr(flows.retrain, "train_model", fail)
    assert retrain(configured(home), return_state=True).name == "Registered"
    assert only_experiment(home) == directory


@pytest.mark.slow
def test_an_experiment_and_its_data_come_back_from_the_store(home: Path) -> None:
    name = only_experiment(home).name
    shutil.rmtree(home / "work")
    (row,) = result_of(evaluate(ExperimentRequest(**place(home), experiment=name), return_state=True)).rows
    assert row["model"] == "float"


@pytest.mark.slow
def test_a_step_that_no_fleet_has_a_part_in_does_not_look_for_one(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STRESS_VISION_INVENTORY", str(home / "nowhere.toml"))
    (row,) = result_of(evaluate(ExperimentRequest(**place(home)), return_state=True)).rows
    assert row["model"] == "float"


@pytest.mark.slow
def test_the_data_set_alone_is_told_by_its_counts_and_made_once(home: Path) -> None:
    form = StepForm.model_validate({"data": {"store": str(home / "store")}})
    (home / "store/retrain.toml").write_text(f'work_dir = "{home / "work"}"')
    state = prepare(form, return_state=True)
    assert {row["split"] for row in result_of(state).rows} >= {"train", "val", "test"}
    assert "as it was" in (prepare(form, return_state=True).message or "")


@pytest.mark.slow
def test_a_file_is_timed_here_and_on_a_device_without_a_rollout(
    tmp_path: Path, tiny_releases: tuple[Path, Path], ssh_devices: StartDevices, prefect_server: None
) -> None:
    device, other = ssh_devices(2)
    fleet = inventory(tmp_path / "fleet.toml", [device.device, other.device])
    model = str(tiny_releases[0] / "model_int8.tflite")
    state = benchmark(BenchmarkRequest(file=model, runs=20), return_state=True)
    (row,) = result_of(state).rows
    assert row["on"] == "this machine" and row["runs"] == 20 and 0 < row["p50"] <= row["p99"]
    asked = BenchmarkRequest.model_validate({"file": model, "device": other.device.name, "runs": 20, **fleet})
    (row,) = result_of(benchmark(asked, return_state=True)).rows
    assert row["on"] == other.device.name and row["FPS"] > 0
    assert other.current is None and not list(other.root.glob("incoming/*"))
    assert not device.root.exists()

    with pytest.raises(FleetError, match="no device 'nowhere'"):
        benchmark(asked.model_copy(update={"device": "nowhere"}))
    with pytest.raises(InputError, match="no inventory"):
        benchmark(asked.model_copy(update={"inventory": ""}))


def test_a_form_gives_the_settings_of_the_store_and_its_own_over_them(tmp_path: Path) -> None:
    (tmp_path / "retrain.toml").write_text("[train]\nepochs = 3\nbatch_size = 16\n")
    form = StepForm.model_validate({"data": {"store": str(tmp_path)}, "training": {"preset": "smallest"}})
    config = form.config()
    assert (config.preset, config.train.epochs, config.train.batch_size) == ("smallest", 3, 16)
    again = form.model_copy(update={"training": FormTraining(epochs=7)}).config()
    assert (again.preset, again.train.epochs) == ("balanced", 7)


def test_every_step_has_a_deployment_with_a_short_form() -> None:
    from flows import steps

    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    entrypoints = {one["entrypoint"] for one in deployments}
    for name in ("prepare", "train", "evaluate", "convert", "benchmark", "report"):
        assert f"flows/steps.py:{name}" in entrypoints
        (form,) = getattr(steps, name).parameters.properties.values()
        fields = getattr(steps, name).parameters.definitions[form["$ref"].rpartition("/")[2]]["properties"]
        assert len(fields) <= 10


# ---------------------------------------------------------------- which experiment


def made(work: Path, name: str, *files: str) -> None:
    directory = work / "experiments" / name
    directory.mkdir(parents=True)
    for file in files:
        (directory / file).write_text("{}")


FINISHED = ("final_model.keras", "experiment_config.json")


def test_experiments_are_listed_the_newest_first_wherever_they_lie(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    store = open_store(tmp_path / "store")
    made(tmp_path, "20260101_000000", *FINISHED)
    made(tmp_path, "20260103_000000", "experiment_config.json")
    for name in FINISHED:
        store.write(f"experiments/20260102_000000/{name}", b"{}")
    found = list_experiments(store, tmp_path)
    assert [one.id[:8] for one in found] == ["20260103", "20260102", "20260101"]
    assert [one.finished for one in found] == [False, True, True]
    assert find_experiment(store, tmp_path, NEWEST).id == "20260102_000000"
    assert find_experiment(store, tmp_path, NEWEST, finished=False).id == "20260103_000000"


def test_an_unfinished_or_unknown_experiment_is_one_error_that_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    store = open_store(tmp_path / "store")
    with pytest.raises(InputError, match="`stress-vision train` makes one"):
        find_experiment(store, tmp_path, NEWEST)
    made(tmp_path, "20260103_000000", "experiment_config.json")
    with pytest.raises(
        InputError, match=r"unfinished: expected final_model\.keras .* goes on where it stopped"
    ):
        find_experiment(store, tmp_path, "20260103_000000")
    with pytest.raises(InputError, match=r"no experiment 'x'; there are: 20260103_000000"):
        find_experiment(store, tmp_path, "x")


# ---------------------------------------------------------------- the command line


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store and a work directory with two finished experiments, as the environment names them."""
    (tmp_path / "store").mkdir()
    for day in (1, 2):
        made(tmp_path / "work", f"2026010{day}_000000", *FINISHED)
    monkeypatch.setenv("STRESS_VISION_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("STRESS_VISION_WORK", str(tmp_path / "work"))
    return tmp_path


def test_without_a_name_a_person_chooses_from_a_list(
    shop: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[ExperimentRequest] = []
    facts = {
        "train": {"model": {"architecture": "mobilenet_v3_small"}},
        "data": {"label_set": "ferplus_votes"},
    }
    newest = shop / "work/experiments/20260102_000000"
    (newest / "experiment_config.json").write_text(json.dumps(facts))
    (newest / "training_history.json").write_text(json.dumps({"val_accuracy": [0.5, 0.812, 0.8]}))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("flows.step_commands._run", lambda step, config: asked.append(config) or 0)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    for answer in ("", "2", "20260101_000000"):
        monkeypatch.setattr("builtins.input", lambda prompt, answer=answer: answer)
        assert main(["evaluate"]) == 0
    assert [one.experiment[:8] for one in asked] == ["20260102", "20260101", "20260101"]
    listed = capsys.readouterr().out
    assert "mobilenet_v3_small" in listed and "ferplus_votes" in listed and "0.812" in listed
    assert listed.index("20260102_000000") < listed.index("20260101_000000")


@pytest.mark.parametrize("pressed", [EOFError, KeyboardInterrupt])
def test_whoever_chooses_none_is_let_go(
    shop: Path, monkeypatch: pytest.MonkeyPatch, pressed: type[BaseException]
) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr("builtins.input", Mock(side_effect=pressed))
    assert main(["report"]) == 130


def test_a_work_directory_that_prepare_and_train_were_given_is_given_to_the_other_steps(
    shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(shop / "elsewhere", "20260104_000000", *FINISHED)
    asked: list[ExperimentRequest] = []
    monkeypatch.setattr("flows.step_commands._run", lambda step, config: asked.append(config) or 0)
    for step in ("evaluate", "convert", "report"):
        assert main([step, "newest", "--work_dir", str(shop / "elsewhere")]) == 0
    assert {(one.experiment, one.work_dir) for one in asked} == {("20260104_000000", str(shop / "elsewhere"))}


def test_without_a_name_and_a_terminal_the_error_lists_what_there_is(
    shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["convert"]) == 1
    assert "the newest are 20260102_000000, 20260101_000000" in capsys.readouterr().err


def test_an_experiment_that_can_not_be_used_is_one_error_before_a_server_starts(
    shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made(shop / "work", "20260103_000000", "experiment_config.json")
    for name, why in (("20260103_000000", "is unfinished"), ("20200101_000000", "no experiment")):
        assert main(["evaluate", name]) == 1
        said = capsys.readouterr().err
        assert said.startswith("error:") and why in said and said.count("\n") == 1


@pytest.mark.parametrize("content", [None, b"", b"not a model at all"])
def test_a_file_that_is_no_tflite_is_one_error(
    tmp_path: Path, content: bytes | None, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.tflite"
    if content is not None:
        path.write_bytes(content)
    assert main(["benchmark", str(path)]) == 1
    said = capsys.readouterr().err
    assert str(path) in said and ("TFL3" in said or "can't be read" in said) and "Traceback" not in said


def test_a_pipe_is_no_tflite_and_not_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "model.tflite")
    # another end, so that what would wait for ever ends as well
    held = os.open(tmp_path / "model.tflite", os.O_RDWR)
    os.write(held, b"\0" * 8)
    assert main(["benchmark", str(tmp_path / "model.tflite")]) == 1
    assert "model.tflite is no file" in capsys.readouterr().err
    os.close(held)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--device", "pi-9", "--inventory", "fleet.toml"], "has no device 'pi-9'"),
        (["--device", "pi-9"], "no inventory is given"),
        (["--inventory", "fleet.toml"], "name one with --device"),
        (["--runs", "3"], "runs: Input should be greater than or equal to 10"),
    ],
)
def test_what_a_file_is_to_be_timed_on_is_looked_up_before_a_server_is_started(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    why: str,
) -> None:
    monkeypatch.setattr("flows.step_commands._run", lambda *_: pytest.fail("a server was started"))
    example = (ROOT / "deployments/fleet.example.toml").read_text()
    (tmp_path / "fleet.toml").write_text(example.replace("~/.ssh/stress_vision_ed25519", "key"))
    new_key(tmp_path / "key")
    (tmp_path / "model.tflite").write_bytes(b"1234TFL3")
    monkeypatch.chdir(tmp_path)
    assert main(["benchmark", "model.tflite", *options]) == 1
    assert why in capsys.readouterr().err


@pytest.mark.parametrize("content", ["[]", "null", '{"train": null, "data": 3}', "{"])
def test_an_experiment_whose_facts_are_spoilt_can_still_be_chosen(shop: Path, content: str) -> None:
    for name in ("experiment_config.json", "training_history.json"):
        (shop / "work/experiments/20260102_000000" / name).write_text(content)
    store = open_store(shop / "store")
    row = find_experiment(store, shop / "work", NEWEST).row(store, shop / "work")
    assert (row["experiment"], row["network"], row["val. acc."]) == ("20260102_000000", "", "")


@pytest.mark.parametrize("fingerprint", ["../../x", None, 3])
def test_an_experiment_that_names_no_data_set_is_one_error_that_says_where(
    shop: Path, fingerprint: object
) -> None:
    folder = shop / "work/experiments/20260102_000000"
    (folder / "experiment_config.json").write_text(json.dumps({"data": {"fingerprint": fingerprint}}))
    with pytest.raises(
        InputError, match=r"experiment_config\.json doesn't tell the data set.* 16 hex digits"
    ):
        data_of(open_store(shop / "store"), shop / "work", folder)


@pytest.mark.slow
def test_tensorboard_serves_an_experiments_logs(home: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "flows.cli", "tensorboard", "newest", "--port", str(port)]
    environment = os.environ | {
        "STRESS_VISION_STORE": str(home / "store"),
        "STRESS_VISION_WORK": str(home / "work"),
    }
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        try:
            runs = json.loads(answer(f"http://127.0.0.1:{port}/data/runs"))
        finally:
            process.terminate()
    assert {"train", "validation"} <= set(runs)


def answer(url: str, within_s: float = 120) -> bytes:
    deadline = time.monotonic() + within_s
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as response:
                return response.read()
        except (TimeoutError, OSError):
            assert time.monotonic() < deadline, f"no answer from {url}"
            time.sleep(0.5)


def test_an_option_that_is_no_value_is_one_error(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("run", "train"):
        assert main([command, "--train", "{bad"]) == 1
        assert "expected a value or JSON" in capsys.readouterr().err


def test_an_experiment_without_logs_is_one_error(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tensorboard", "newest"]) == 1
    assert "has no logs yet" in capsys.readouterr().err


def test_a_taken_port_is_one_error(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (shop / "work/experiments/20260102_000000/tensorboard").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["tensorboard", "newest", "--port", str(port)]) == 1
    assert f"port {port}" in capsys.readouterr().err
