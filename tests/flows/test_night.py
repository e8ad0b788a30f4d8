"""A night is taken up, gone on with, or left alone by its record; nothing is trained here."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from prefect.logging import disable_run_logger

from deployments.fleet import Fleet
from flows import site as site_module
from flows.night import begin, nothing_left, running_night, take_up
from flows.site import Site, fleet_slot, night_slot
from storage.errors import InputError, StoreError
from storage.identity import store_identity
from storage.opening import open_store
from storage.registry import Registry
from tasks import night as night_module
from tasks.config import RetrainConfig
from tasks.gate import GateConfig, judge
from tasks.night import Night, load_night, night_key, save_night
from tasks.register import Release
from tests.tasks.small_run import small_night

LENIENT = {"targets": {"min_accuracy": 0.0, "max_leaked_pairs": 9}}
ENDED = {"ended_at": datetime(2026, 11, 22, 4, 0, tzinfo=UTC)}


@pytest.fixture
def registry(site) -> Registry:
    return Registry(open_store(site.store))


@pytest.fixture
def site(tmp_path) -> Site:
    (tmp_path / "store/datasets").mkdir(parents=True)
    (tmp_path / "store/datasets/list.csv").touch()
    store = str(tmp_path / "store")
    return Site(store=store, store_id=store_identity(open_store(store)), work=tmp_path / "work", fleet=None)


@pytest.fixture
def released(site, tiny_releases, tmp_path) -> Night:
    """A night whose release is registered; nobody made it champion yet."""
    night = small_night(site.work / "experiments/20261122_031500")
    night.made.model.path.touch()
    passed = judge(night.made, GateConfig()).model_copy(update={"passed": True})
    version = Registry(open_store(site.store)).publish(tiny_releases[0], store_id=site.store_id)
    release = Release(version=version, uri="models/v", manifest_sha256="ab", directory=tiny_releases[0])
    return night.model_copy(update={"verdict": passed, "release": release, "config": RetrainConfig()})


def saved(site: Site, night: Night, **update: Any) -> Night:
    """The record as it lies in the store, under the key of its own configuration."""
    night = night.model_copy(update={"key": night_key(night.config, "data"), **update})
    save_night(open_store(site.store), night, site.work)
    return night


def taken_up(site: Site, config: RetrainConfig | None = None) -> Night | None:
    config = config or RetrainConfig()
    return take_up(site, config, night_key(config, "data"))


def test_a_record_comes_back_from_the_store_as_it_went_in(site, released):
    night = saved(site, released)
    assert load_night(open_store(site.store), night.key, site.work) == night


def test_a_record_names_no_path_of_the_machine_that_wrote_it(site, released):
    night = saved(site, released)
    text = open_store(site.store).read(f"nights/{night.key}.json").decode()
    assert str(site.work) not in text
    elsewhere = load_night(open_store(site.store), night.key, Path("/other"))
    assert elsewhere and elsewhere.made.model.path == Path("/other") / night.made.model.path.relative_to(
        site.work
    )


def test_a_record_that_can_not_be_read_is_no_record(site, released):
    night = saved(site, released)
    open_store(site.store).write(f"nights/{night.key}.json", b"{}")
    assert load_night(open_store(site.store), night.key, site.work) is None


def test_a_night_that_was_cut_off_is_taken_up_under_its_own_name(site):
    key = night_key(RetrainConfig(), "data")
    begun = begin(site, RetrainConfig(), key)
    again = taken_up(site)
    assert again and again.id == begun.id
    assert taken_up(site, RetrainConfig.model_validate({"train": {"epochs": 3}})) is None


def test_only_what_can_change_the_outcome_makes_another_night(monkeypatch):
    config = RetrainConfig(store="/data")
    other_rollout = RetrainConfig.model_validate(
        {"store": "/elsewhere", "rollout": {"canaries": 3}, "force": True}
    )
    other_training = RetrainConfig.model_validate({"store": "/data", "train": {"epochs": 3}})
    key = night_key(config, "1")
    assert key == night_key(other_rollout, "1")
    assert len({key, night_key(config, "2"), night_key(other_training, "1")}) == 3
    monkeypatch.setattr(night_module, "code_version", lambda: "after an upgrade")
    assert night_key(config, "1") != key


def test_a_night_that_ended_is_over_and_one_that_did_not_is_not(site, released):
    rejected = released.model_copy(update={"release": None, "verdict": small_verdict(released)})
    assert nothing_left(site, saved(site, rejected)) is None
    said = nothing_left(site, saved(site, rejected, **ENDED))
    assert said and "ended as Rejected" in said


def small_verdict(night: Night):
    return judge(night.made, GateConfig(min_accuracy=1.0))


def test_a_release_that_never_became_champion_is_gone_on_with(site, registry, released):
    """As after NotDeployed and RolloutFailed, where the release is good and no device has it."""
    assert nothing_left(site, saved(site, released, **ENDED)) is None


def test_a_night_is_over_when_its_release_is_champion_and_every_device_runs_it(
    site, registry, released, ssh_device
):
    version = promote(site, registry, released)
    fleet = Fleet(devices=(ssh_device.device,))
    there = site.model_copy(update={"fleet": fleet})
    night = saved(site, released, **ENDED)
    said = nothing_left(site, night)
    assert said and f"its release {version} is the champion" in said
    assert nothing_left(there, night) is None
    registry.record_device(ssh_device.device.name, {"running_release": version})
    said = nothing_left(there, night)
    assert said and "the fleet runs it" in said


def promote(site: Site, registry: Registry, night: Night, version: str = "") -> str:
    assert night.release
    version = version or night.release.version
    champion = registry.champion()
    registry.promote(version, expected=champion.version if champion else None, store_id=site.store_id)
    return version


def test_a_release_that_another_has_replaced_is_never_brought_back(site, registry, released, tiny_releases):
    other = promote(site, registry, released, registry.publish(tiny_releases[1], store_id=site.store_id))
    said = nothing_left(site, saved(site, released, **ENDED))
    assert said and f"has given way to champion {other}" in said


def test_a_candidate_is_judged_anew_when_the_champion_has_changed_in_between(
    site, registry, released, tiny_releases
):
    saved(site, released)
    kept = taken_up(site)
    assert kept and kept.release == released.release
    other = promote(site, registry, released, registry.publish(tiny_releases[1], store_id=site.store_id))
    again = taken_up(site)
    assert again and (again.champion, again.candidate, again.verdict, again.release) == (
        other,
        None,
        None,
        None,
    )
    assert again.id == released.id


def test_a_night_whose_own_release_is_champion_keeps_what_it_found(site, registry, released):
    promote(site, registry, released)
    saved(site, released)
    again = taken_up(site)
    assert again and again.candidate == released.candidate


def test_another_machine_gets_the_experiment_from_the_store(site, released, tmp_path):
    night = saved(site, released)
    model = night.made.model.path.relative_to(site.work).as_posix()
    open_store(site.store).write(model, b"INT8")
    elsewhere = site.model_copy(update={"work": tmp_path / "elsewhere"})
    again = taken_up(elsewhere)
    assert again and again.made.model.path.read_bytes() == b"INT8"


def test_what_is_lost_is_made_again_under_a_new_name(site, released):
    saved(site, released).made.model.path.unlink()
    assert taken_up(site) is None


def test_a_night_that_another_machine_is_training_is_not_shared_with_it(site, tmp_path):
    begin(site, RetrainConfig(), night_key(RetrainConfig(), "data"))
    assert taken_up(site.model_copy(update={"work": tmp_path / "elsewhere"})) is None


def test_force_begins_a_night_that_ended_anew_and_takes_up_one_that_did_not(site, released):
    forced = RetrainConfig(force=True)
    saved(site, released)
    assert taken_up(site, forced)
    saved(site, released, **ENDED)
    assert taken_up(site, forced) is None


def test_an_inventory_that_is_given_later_counts_for_a_night_that_is_known(site, released):
    saved(site, released, **ENDED)
    later = RetrainConfig.model_validate({"rollout": {"inventory": "fleet.toml"}})
    again = taken_up(site, later)
    assert again and again.config.rollout.inventory == "fleet.toml"


def test_two_runs_at_once_never_work_on_one_experiment(site):
    with disable_run_logger(), running_night(site, RetrainConfig(), "data") as night:
        with (
            pytest.raises(InputError, match="in use by process"),
            running_night(site, RetrainConfig(), "data"),
        ):
            pass
        other = RetrainConfig.model_validate({"train": {"epochs": 3}})
        with running_night(site, other, "data") as beside:
            assert beside.record.id != night.record.id


@pytest.mark.usefixtures("prefect_server")
def test_a_deployment_s_nights_are_one_at_a_time_even_where_prefect_has_lost_count_of_them(site, monkeypatch):
    monkeypatch.setattr(site_module, "_DEAD_S", 0.0)
    with night_slot(site), night_slot(site):
        pass  # by hand, beside each other
    monkeypatch.setenv("PREFECT__RUNTIME__DEPLOYMENT__ID", str(uuid4()))
    monkeypatch.setenv("PREFECT__RUNTIME__DEPLOYMENT__NAME", "nightly")
    monkeypatch.setenv("PREFECT__RUNTIME__FLOW_RUN__NAME", "2026-11-24 02:15 balanced")
    with (
        night_slot(site),
        pytest.raises(StoreError, match="2026-11-24 02:15 balanced has this since"),
        night_slot(site),
    ):
        pass


def test_two_rollouts_at_once_are_refused_whatever_began_them(site, monkeypatch):
    monkeypatch.setattr(site_module, "_SLOT_S", 0.0)
    with (
        fleet_slot(site, "retrain nightly"),
        pytest.raises(StoreError, match="retrain nightly has this since"),
        fleet_slot(site, "rollout"),
    ):
        pass
