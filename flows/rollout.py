"""Bring one registered release, usually the champion, to the fleet.

Requires: a store with at least one release, and an inventory whose devices have pinned host keys.
Run on a schedule with release = champion it also converges devices that were away: one that runs the
release already is only measured again.
"""

from prefect import flow
from prefect.client.schemas.objects import State
from pydantic import BaseModel, Field

from flows.logs import log_our_errors_in_one_line
from flows.outcome import fleet_state
from flows.said import run_name
from flows.site import fleet_slot, open_site
from tasks.register import fetch_release
from tasks.report.publish import publish_fleet
from tasks.rollout import RolloutConfig
from tasks.rollout.release import roll_out_release


class RolloutRequest(BaseModel, frozen=True, extra="forbid", title="Rollout of a release"):
    """Which release goes to which devices."""

    store: str = Field(
        default="",
        description="Object store with the releases: s3://bucket/prefix or a directory. "
        "Empty: the environment variable STRESS_VISION_STORE.",
    )
    release: str = Field(default="champion", description="Version of a registered release, or champion.")
    rollout: RolloutConfig = Field(default=RolloutConfig(), title="Rollout", description="Devices and waves.")
    work_dir: str = Field(
        default="", description="Directory for caches. Empty: STRESS_VISION_WORK or the default."
    )


@flow(name="rollout", flow_run_name=run_name)
def rollout(config: RolloutRequest = RolloutRequest()) -> State:  # noqa: B008 (frozen)
    """Bring a registered release to the devices of an inventory.

    Args:
        config: Which release, and which devices.
    """
    log_our_errors_in_one_line()
    site = open_site(config.store, config.work_dir, config.rollout)
    with fleet_slot(site, f"rollout of {config.release}"):
        release = fetch_release(site.store, config.release, site.work)
        fleet = roll_out_release(site.store, release, config.rollout)
    publish_fleet(fleet)
    return fleet_state(fleet)
