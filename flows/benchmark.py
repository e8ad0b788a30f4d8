"""Measure the fleet: how fast what each device runs now is, without a rollout.

Requires: a store, and an inventory whose devices have pinned host keys. Run on a schedule or by hand; the
figures stand below fleet/benchmarks/ in the store, device by device and release by release.
"""

from prefect import flow
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from pydantic import BaseModel, Field

from flows.said import run_name
from flows.site import open_site
from storage.errors import FleetError
from storage.opening import open_store
from storage.registry import Registry
from tasks.fleet_benchmark import DeviceBenchmark, FleetBenchmarkConfig, benchmark_devices, draw_history
from tasks.report.formats import data_uri
from tasks.rollout import RolloutConfig

_ROWS = 200


class FleetBenchmarkRequest(BaseModel, frozen=True, extra="forbid", title="Benchmark of the fleet"):
    """Which devices, and how they are measured."""

    store: str = Field(
        default="",
        description="Object store: s3://bucket/prefix or a directory. Empty: STRESS_VISION_STORE.",
    )
    inventory: str = Field(default="", description="The fleet's TOML file. Empty: STRESS_VISION_INVENTORY.")
    group: str = Field(default="", description="Only the devices of this group; empty: all of them.")
    measuring: FleetBenchmarkConfig = Field(default=FleetBenchmarkConfig(), description="How.")


@flow(name="benchmark", flow_run_name=run_name)
def benchmark_fleet(config: FleetBenchmarkRequest = FleetBenchmarkRequest()) -> State:  # noqa: B008 (frozen)
    """Measure what each device of an inventory runs now, and keep it.

    Args:
        config: Which devices, and how.
    """
    site = open_site(config.store, "", RolloutConfig(inventory=config.inventory, group=config.group))
    if site.fleet is None:
        raise FleetError("no fleet to measure: name its inventory, or set STRESS_VISION_INVENTORY")
    found = benchmark_devices(site.store, site.fleet.devices, config.measuring)
    create_table_artifact([one.row() for one in found[:_ROWS]], key="fleet-latency", description="Per device")
    names = [device.name for device in site.fleet.devices]
    picture = draw_history(Registry(open_store(site.store)), names, site.work / "fleet-latency.png")
    if picture:
        create_markdown_artifact(f"![latency]({data_uri(picture)})", key="fleet-latency-history")
    return _state(found)


def _state(found: list[DeviceBenchmark]) -> State:
    measured = [one.first.p95_ms for one in found if one.first]
    others = [one for one in found if not one.first]
    message = f"{len(measured)} of {len(found)} devices measured"
    message += f", p95 up to {max(measured):.2f} ms" if measured else ""
    message += f"; {others[0].device}: {others[0].reason}" if others else ""
    return (Completed if measured else Failed)(
        name="Measured" if measured else "NotMeasured", message=message
    )
