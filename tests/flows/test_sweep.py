"""A sweep on drawn faces: what it reads, what it keeps, what it does when a variant can't be trained."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from prefect.client.schemas.objects import State
from prefect.task_runners import ThreadPoolTaskRunner

from flows.config import load_config
from flows.outcome import ended_of
from flows.retrain import retrain
from flows.sweep import Compared, run_sweep, sweep
from flows.variants import SweepConfig, load_sweep
from storage.errors import InputError, ModelError
from storage.opening import open_store
from storage.registry import Registry
from tasks.sweep import Failed, Finished
from tasks.synthetic import write_dataset

SWEEP = """
store = "{store}"
work_dir = "{work}"
[prepare]
target_per_class = 0
[train]
epochs = 1
model = {{architecture = "custom_light", input_px = 48}}
[convert]
formats = ["int8"]
[targets]
min_accuracy = 0.0
max_quantization_loss = 100
min_camera_accuracy = 0.0
max_camera_growth = 100
class_recall_floors = {{}}

[[variant]]
name = "plain"

[[variant]]
name = "narrow"
train.model.filters = [4, 8, 8, 8]
"""
BROKEN = """
[[variant]]
name = "broken"
train.model = {architecture = "mobilenet_v3_small", weights = "/nowhere/weights.h5"}
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    directory = tmp_path_factory.mktemp("store")
    write_dataset(directory, per_class=40, seed=3)
    return directory


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("work")


@pytest.fixture
def write(tmp_path, store, work):
    """Write a sweep's file with more lines at its end."""

    def written(more: str = "", content: str = SWEEP):
        path = tmp_path / "sweep.toml"
        path.write_text(content.format(store=store, work=work) + more)
        return path

    return written


@pytest.fixture(scope="module")
def opened():
    """Names of the files that were opened since the fixture was cleared last."""
    names: list[str] = []
    sys.addaudithook(lambda event, arguments: names.append(str(arguments[0])) if event == "open" else None)
    return names


def _compared(state: State) -> Compared:
    found = state.result()
    assert isinstance(found, Compared)
    return found


def _report(night: State) -> Path:
    found = ended_of(night)
    assert found and found.report
    return found.report


def in_threads(config: SweepConfig) -> State:
    """The flow in this process, so that the test can watch it."""
    options: dict[str, Any] = {"task_runner": ThreadPoolTaskRunner(max_workers=1)}
    return sweep.with_options(**options)(config, return_state=True)


def test_a_variant_holds_what_it_changes_and_the_base_for_the_rest(write):
    config = load_sweep(write())
    plain, narrow = (variant.config for variant in config.variants)
    assert plain.train.model.filters == () and narrow.train.model.filters == (4, 8, 8, 8)
    assert narrow.train.epochs == plain.train.epochs == 1
    assert config.parallel == 1


def test_variants_may_be_presets(tmp_path):
    path = tmp_path / "sweep.toml"
    path.write_text(
        "".join(f'[[variant]]\nname="{p}"\npreset="{p}"\n' for p in ("balanced", "highest_speed"))
    )
    config = load_sweep(path, "/data")
    assert [v.config for v in config.variants] == [
        load_config(None, {"preset": v.name, "store": "/data"}) for v in config.variants
    ]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("[[variant]]\nname='x'\ntrain.epoch = 3\n", "variant x.*\n.*train.epoch:"),
        ("[[variant]]\nname='x'\ntargets.min_accuracy = 0.5\n", "variant x changes targets; it may change"),
        ("[[variant]]\nname='plain'\ntrain.epochs = 3\n", "two variants are named plain"),
        ("[[variant]]\nname='same'\n", "plain and same are the same"),
        ("[[variant]]\nname='a/b'\ntrain.epochs = 3\n", "name"),
    ],
)
def test_a_variant_that_makes_no_sense_is_named(write, more, said):
    with pytest.raises(InputError, match=said):
        load_sweep(write(more))


def test_a_file_without_variants_says_what_is_missing(write):
    with pytest.raises(InputError, match=r"\[\[variant\]\]"):
        load_sweep(write(content=SWEEP.split("[[variant]]")[0]))


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_a_sweep_compares_on_validation_never_opens_the_test_split_and_survives_a_broken_variant(
    write, store, work, opened
):
    config = load_sweep(write())
    first = in_threads(config.model_copy(update={"variants": config.variants[:1]}))
    assert first.name == "Compared"
    opened.clear()
    state = in_threads(load_sweep(write(BROKEN)))
    assert not [name for name in opened if "test_data" in name]
    assert [name for name in opened if "val_data" in name]

    plain, narrow, broken = _compared(state).outcomes
    assert isinstance(broken, Failed) and "/nowhere/weights.h5" in broken.error
    assert isinstance(plain, Finished) and isinstance(narrow, Finished)
    assert plain.figures.bytes > narrow.figures.bytes
    # the very experiment of before: what is finished is not trained again
    assert plain == _compared(first).outcomes[0]
    directory = _compared(state).directory
    assert {path.name for path in directory.iterdir()} == {"sweep.json", "accuracy_cost.png", "winner.toml"}
    told = json.loads(open_store(store).read(f"sweeps/{directory.name}/sweep.json"))
    assert told["split"] == "val" and told["winner"] in ("plain", "narrow")
    assert "broken failed" in (state.message or "")
    assert Registry(open_store(store)).versions() == []


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_a_night_with_the_winners_configuration_goes_on_with_its_training(write, store, work):
    state = in_threads(load_sweep(write()))
    directory = _compared(state).directory
    winner = json.loads((directory / "sweep.json").read_text())["winner"]
    trained = next(one for one in _compared(state).outcomes if one.name == winner)
    assert isinstance(trained, Finished)
    before = (work / "experiments" / trained.figures.experiment_id / "checkpoints/best_model.keras").stat()
    night = retrain(load_config(directory / "winner.toml", {}), return_state=True)
    assert night.name == "Registered"
    assert _report(night).parent.name == trained.figures.experiment_id
    assert (_report(night).parent / "checkpoints/best_model.keras").stat() == before


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_variants_are_trained_in_processes_of_their_own_and_none_finished_is_an_error(write):
    path = write(BROKEN, SWEEP.split("[[variant]]")[0])
    with pytest.raises(ModelError, match=r"No variant finished.*broken failed.*nowhere"):
        run_sweep(load_sweep(path)).result()
