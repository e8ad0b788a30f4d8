"""The night under way: its record, where its files lie, and how it is taken up again.

One record a night (`tasks.night`), found by the key of its data, configuration and code, answers all of: is
anything new, was a night cut off, has its rollout come to an end, is its release registered already.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from prefect import get_run_logger

from flows.site import Site, champion_of, new_directory
from storage.lease import exclusively
from storage.opening import open_store
from storage.registry import Registry
from tasks.config import RetrainConfig
from tasks.night import Night, load_night, night_key, save_night
from tasks.report.publish import fetch_experiment
from tasks.train import name_start

Found = TypeVar("Found")


class RunningNight:
    """Tonight's record, to which each stage's result is added as soon as it is found."""

    def __init__(self, site: Site, record: Night):
        self.record = record
        self.directory = experiment_directory(site, record)
        self._site = site

    @property
    def report(self) -> Path:
        """Where the report lies, or will."""
        return self.directory / "report.html"

    def keep(self, field: str, found: Found) -> Found:
        """Add a result to the record, in the store too, and hand it on."""
        self.record = self.record.model_copy(update={field: found})
        save_night(open_store(self._site.store), self.record, self._site.work)
        return found


@contextmanager
def running_night(site: Site, config: RetrainConfig, data_fingerprint: str) -> Iterator[RunningNight]:
    """Tonight's record, taken up or begun, and held: two runs never work on one experiment.

    Raises InputError that names the other process where one is at it.
    """
    key = night_key(config, data_fingerprint)
    with exclusively(site.work / "nights" / key[:16]):
        night = take_up(site, config, key) or begin(site, config, key)
        start = f", training from {night.config.train.init_from}" if night.config.train.init_from else ""
        get_run_logger().info("experiment %s, begun %s%s", night.id, f"{night.started_at:%F %T %Z}", start)
        yield RunningNight(site, night)


def begin(site: Site, config: RetrainConfig, key: str) -> Night:
    """A new record under a new name, with the champion of this moment."""
    champion = champion_of(site)
    night = Night(
        id=new_directory(site.work / "experiments").name,
        key=key,
        started_at=datetime.now(UTC),
        config=from_champion(config, champion),
        champion=champion,
    )
    save_night(open_store(site.store), night, site.work)
    return night


def take_up(site: Site, config: RetrainConfig, key: str) -> Night | None:
    """The record of that key, its files here again; None where there is none left, or a new one is asked for.

    Where training starts from was settled at its beginning; the rest of `config` that is no part of the key,
    such as the inventory, may be new.
    """
    night = load_night(open_store(site.store), key, site.work)
    if night is None or (night.ended_at and config.force) or not _has_its_files(site, night):
        return None
    update: dict[str, Any] = {"config": config.model_copy(update={"train": night.config.train})}
    champion = champion_of(site)
    if _was_judged_by_another(night, champion):
        update |= {"champion": champion, "candidate": None, "verdict": None, "release": None, "fleet": None}
    return night.model_copy(update=update)


def nothing_left(site: Site, night: Night) -> str | None:
    """Why there is nothing to do tonight; None for a night that isn't over, or whose fleet is behind."""
    if not night.ended_at:
        return None
    champion, said = champion_of(site), f"experiment {night.id}, which ended as {night.outcome}"
    if night.release is None:
        return said
    version = night.release.version
    if champion not in (version, night.champion):
        return f"{said}; its release {version} has given way to champion {champion}"
    if champion != version or _devices_behind(site, version):
        return None
    fleet = ", and the fleet runs it" if site.fleet else ""
    return f"{said}; its release {version} is the champion{fleet}"


def experiment_directory(site: Site, night: Night) -> Path:
    """Where the experiment's files lie on this machine."""
    return site.work / "experiments" / night.id


def from_champion(config: RetrainConfig, champion: str | None) -> RetrainConfig:
    """The configuration with the champion's version where training starts from it; empty before the first."""
    return config.model_copy(update={"train": name_start(config.train, champion)})


def _devices_behind(site: Site, version: str) -> list[str]:
    """The inventory's devices that aren't known to run the release."""
    known = Registry(open_store(site.store)).devices()
    devices = site.fleet.devices if site.fleet else ()
    return [one.name for one in devices if known.get(one.name, {}).get("running_release") != version]


def _has_its_files(site: Site, night: Night) -> bool:
    """Whether what the record tells of lies on this machine, if need be after bringing it from the store.

    One that trains on another machine isn't shared with it.
    """
    directory = experiment_directory(site, night)
    if night.candidate is None:
        return directory.exists()
    if not night.candidate.model.path.exists():
        fetch_experiment(open_store(site.store), directory)
    return night.candidate.model.path.exists()


def _was_judged_by_another(night: Night, champion: str | None) -> bool:
    """Whether a night that isn't over was compared with a champion that another has replaced since."""
    ours = night.release.version if night.release else None
    return not night.ended_at and champion != night.champion and champion != ours
