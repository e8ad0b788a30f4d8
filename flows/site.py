"""Where a run works. What could go wrong after hours of training is looked at in the first seconds."""

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from prefect import get_run_logger
from prefect.runtime import deployment, flow_run
from pydantic import BaseModel

from deployments.fleet import Fleet
from flows.config import store_uri, work_path
from flows.taken import end_crashed
from storage.errors import InputError, StoreError
from storage.files import explained
from storage.identity import store_identity
from storage.lease import Held, lease
from storage.opening import open_store
from storage.registry import Registry
from tasks.config import RetrainConfig
from tasks.convert import check_counter
from tasks.register import Release
from tasks.rollout import RolloutConfig
from tasks.rollout.release import check_fleet
from tasks.signing import check_signing_key

MIN_FREE_BYTES = 2_000_000_000
"""A night on FER-2013 leaves 0.2 GB of caches and some 0.1 GB of checkpoints and pictures."""
_SLOT_S = 900
"""How long a night waits for a rollout that somebody else has begun."""
_NIGHT_SETTLES_S = 1.0
"""Every night waits for it. A write of this lease that is slower than that costs it a minute, and no more."""
_DEAD_S = 300
"""How long a night waits for the lease of one that died to run out."""


class Site(BaseModel, frozen=True):
    """Proven to be there when a run began."""

    store: str
    store_id: str
    """The store's own mark: a directory that is another one by the time of the release is refused."""
    work: Path
    fleet: Fleet | None
    """The devices that the configuration names; None where it names no inventory."""


def open_site(
    store: str, work_dir: str, rollout: RolloutConfig | None, data: Iterable[str] = ("datasets",)
) -> Site:
    """Store, work directory and inventory; no device is contacted. Raises the error of the first amiss.

    `rollout` is None for work that no fleet has a part in: then a broken inventory is no obstacle.
    `data` are the folders of which one holds something, where the store is the right one.
    """
    uri, work = store_uri(store), work_path(work_dir)
    _check_disk(work)
    fleet = check_fleet(rollout) if rollout else None
    return Site(store=uri, store_id=store_identity(open_store(uri), data), work=work, fleet=fleet)


def preflight(config: RetrainConfig) -> Site:
    """The site, and all else that a night needs in the end: signing key and instruction counter."""
    check_signing_key()
    check_counter()
    folders = (source.prefix for source in config.data.sources)
    return open_site(config.store, config.work_dir, config.rollout, folders)


@contextmanager
def fleet_slot(site: Site, holder: str) -> Iterator[Held]:
    """The one slot for fleet and champion, whatever starts it; waits for another's rollout to end."""
    say = get_run_logger().info if flow_run.get_id() else print
    with lease(open_store(site.store), "fleet", holder=holder, wait_s=_SLOT_S, on_wait=say) as held:
        yield held


@contextmanager
def night_slot(site: Site) -> Iterator[None]:
    """The one slot for runs of a deployment: Prefect gives its own away when it takes a live run for dead.

    Whoever starts a run by hand answers for what else runs.
    """
    if not (name := deployment.name):
        yield
        return
    store, holder = open_store(site.store), str(flow_run.name)
    with lease(store, f"deployment-{name}", holder, wait_s=_DEAD_S, settle_s=_NIGHT_SETTLES_S):
        for frozen in end_crashed(UUID(deployment.id)):
            get_run_logger().warning("%s was taken for dead, and had a process here: it is ended", frozen)
        yield


def champion_of(site: Site) -> str | None:
    """The champion's version, or None before the first."""
    champion = Registry(open_store(site.store)).champion()
    return champion.version if champion else None


def expect_champion(site: Site, before: str | None, ours: Release | None) -> None:
    """StoreError where the champion is neither the one before nor ours: the comparison is an old one."""
    found = champion_of(site)
    if found == before or (ours and found == ours.version):
        return
    raise StoreError(
        f"{site.store}: the champion is {found or 'none'}, expected {before or 'none'}, which the candidate "
        "was compared with: another was promoted meanwhile. Run again, and the night is judged anew"
    )


def new_directory(parent: Path) -> Path:
    """A fresh directory named by the time; the second that is taken already is waited out by counting up."""
    second = int(datetime.now(UTC).timestamp())
    while True:
        directory = parent / datetime.fromtimestamp(second, UTC).strftime("%Y%m%d_%H%M%S")
        try:
            directory.mkdir(parents=True)
        except FileExistsError:
            second += 1
        else:
            return directory


def _check_disk(work: Path) -> None:
    with explained("write", work):
        work.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(work).free
    if free < MIN_FREE_BYTES:
        raise InputError(
            f"work directory {work}: {free / 1e9:.1f} GB are free, expected {MIN_FREE_BYTES / 1e9:.0f} GB; "
            "free some, or name another directory with work_dir or STRESS_VISION_WORK"
        )
