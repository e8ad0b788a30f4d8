"""A registered release to the inventory's devices, in a flow that is running."""

import logging
import os
from pathlib import Path

from prefect import get_run_logger
from prefect.runtime import flow_run

from deployments.fleet import Fleet, load_fleet
from deployments.ssh import private_key
from storage.errors import FleetError
from storage.opening import open_store
from storage.registry import Registry
from storage.signers import Signers
from tasks.config.rollout import RolloutConfig
from tasks.progress import Advanced, showing_progress
from tasks.register import Release
from tasks.rollout.ledger import Ledger
from tasks.rollout.outcome import DeviceOutcome, FleetOutcome
from tasks.rollout.payload import read_payload
from tasks.rollout.per_device import bring_with, serve_with, take_back_with
from tasks.rollout.waves import in_waves
from tasks.signing import current_order, order_rollback, sign_program


def check_fleet(config: RolloutConfig) -> Fleet | None:
    """The devices that configuration or environment mean, None without an inventory; no device is spoken to.

    Raises InputError or FleetError where the inventory, the group or a key file can't be used.
    """
    inventory = config.inventory or os.environ.get("STRESS_VISION_INVENTORY", "")
    if not inventory:
        return None
    fleet = load_fleet(Path(inventory).expanduser())
    if config.group:
        fleet = fleet.group(config.group)
    first_of = {device.key_file: device for device in reversed(fleet.devices)}
    for device in first_of.values():
        private_key(device)
    return fleet


class _Listener:
    """Logs and writes down what is heard of the devices, and shows how many are done."""

    def __init__(self, ledger: Ledger, release: str, devices: int, advanced: Advanced):
        self._ledger, self._release, self._log = ledger, release, get_run_logger()
        self._devices, self._advanced = devices, advanced
        self._done: set[str] = set()

    def switching(self, outcome: DeviceOutcome) -> None:
        """Not an outcome yet, but what the ledger has to say if none follows."""
        self._log.info("%s %s", outcome.device, outcome.reason)
        self._ledger.observe(outcome)

    def hear(self, outcome: DeviceOutcome) -> None:
        well = outcome.outcome == "updated" or outcome.returned
        self._log.log(logging.INFO if well else logging.WARNING, "%s", outcome.sentence(self._release))
        self._ledger.observe(outcome)
        self._done.add(outcome.device)
        self._advanced(len(self._done), self._devices)


def roll_out_release(store_uri: str, release: Release, config: RolloutConfig) -> FleetOutcome:
    """Roll a registered release out to the inventory's devices, each visit a task of the running flow.

    The ledger has what became of a device as soon as it is known. Raises StoreError where the store
    couldn't be written, FleetError without an inventory, InputError where the release has expired.
    """
    log, store = get_run_logger(), open_store(store_uri)
    registry = Registry(store)
    fleet = check_fleet(config)
    if fleet is None:
        raise FleetError(
            "no fleet to roll out to: name its inventory in rollout.inventory or STRESS_VISION_INVENTORY"
        )
    directory = registry.fetch(release.version, release.directory.parent)
    order, signers = current_order(registry, release.version), Signers(store).lists()
    payload = read_payload(directory, config, order, signers, sign_program())
    ledger = Ledger(registry, release.version, str(flow_run.get_id() or ""))
    with showing_progress("rollout", "devices") as advanced:
        listener = _Listener(ledger, release.version, len(fleet.devices), advanced)
        outcome = in_waves(
            fleet, payload, config, bring_with(fleet, payload, config, listener.switching),
            take_back_with(payload, config), listener.hear, serve_with(fleet), log.info,
        )  # fmt: skip
    if outcome.stopped:
        _let_devices_return(registry, release.version)
    ledger.close(outcome)
    return outcome


def _let_devices_return(registry: Registry, version: str) -> None:
    """Devices that were away when a rollout was stopped have a newer release than the champion: order it."""
    champion = registry.champion()
    if champion and champion.version != version:
        order_rollback(registry, champion.version)
