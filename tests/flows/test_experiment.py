"""An experiment that was cut off is taken up again; one that ended is remembered."""

from flows.config import RetrainConfig
from flows.experiment import close_experiment, ended_experiment, experiment_key, open_experiment
from tests.releases import new_store


def test_an_experiment_that_was_cut_off_is_taken_up_under_its_own_name(tmp_path):
    first = open_experiment(tmp_path, "a")
    assert open_experiment(tmp_path, "a") == first
    assert open_experiment(tmp_path, "b").id != first.id


def test_an_experiment_goes_on_with_the_champion_of_its_beginning(tmp_path):
    open_experiment(tmp_path, "a", "20261121-031500-0a1b2c3d")
    assert open_experiment(tmp_path, "a", "20261122-031500-4e5f6a7b").champion == "20261121-031500-0a1b2c3d"


def test_one_that_ended_is_remembered_and_never_taken_up_again(tmp_path):
    store, first = new_store(tmp_path / "store"), open_experiment(tmp_path, "a")
    assert ended_experiment(store, "a") is None
    close_experiment(store, first, "Rejected")
    assert ended_experiment(store, "a")["outcome"] == "Rejected"
    assert ended_experiment(store, "b") is None
    assert open_experiment(tmp_path, "a").id != first.id


def test_only_what_can_change_the_outcome_makes_another_experiment():
    config = RetrainConfig(store="/data")
    other_rollout = RetrainConfig(store="/elsewhere", rollout={"canaries": 3}, force=True)
    other_training = RetrainConfig(store="/data", train={"epochs": 3})
    assert experiment_key(config, "1") == experiment_key(other_rollout, "1")
    assert experiment_key(config, "1") != experiment_key(config, "2")
    assert experiment_key(config, "1") != experiment_key(other_training, "1")
