"""Bring one registered release, usually the champion, to the fleet.

Requires: a store with at least one release, and an inventory whose devices have pinned host keys.
Run on a schedule with release = champion it also converges devices that were away: one that runs the
release already is only measured again.
"""

from prefect import flow
from prefect.states import State
from pydantic import BaseModel, Field

from flows.config import store_uri, work_path
from flows.outcome import fleet_state
from tasks.register import fetch_release
from tasks.report.publish import publish_fleet
from tasks.rollout import RolloutConfig, roll_out_release


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


@flow(name="rollout")
def rollout(config: RolloutRequest = RolloutRequest()) -> State:  # noqa: B008 (frozen)
    """Bring a registered release to the devices of an inventory.

    Args:
        config: Which release, and which devices.
    """
    store = store_uri(config.store)
    release = fetch_release(store, config.release, work_path(config.work_dir))
    fleet = roll_out_release(store, release, config.rollout)
    publish_fleet(fleet)
    return fleet_state(fleet)
