"""Two evenings of a fleet as Prefect and `stress-vision fleet` tell them: a bad release, a killed rollout.

    python -m tests.benchmarks.evening [--pictures FOLDER]      # some minutes

Three devices are sshd servers of this machine; an `up` of its own runs the deployment rollout/release. First
a release hangs on one of them once the link leads to it, then a rollout is killed with -9 in its second wave.
Prints the sentences; exit status 1 where a device ends on another release than it has to, or unknown.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from storage.identity import store_identity
from storage.registry import Registry
from tests.benchmarks.screenshots import take
from tests.faults.__main__ import small_releases
from tests.faults.cases import ALWAYS, NEW, NEWER, OLD, Fault
from tests.faults.rig import inject, left_on, let_faults_happen
from tests.releases import make_champion, new_store
from tests.ssh_devices import make_device, new_key, write_inventory
from tests.up_process import Up, wait_for

_COMMAND_S, _CONFIRM_S = 20, 60
_SESSION_ENDS_S = 10
"""A device's end of a session ends after ours, and so after the run."""


class Evening:
    """A fleet of three that runs OLD, its store, and the `up` that rolls out to it."""

    def __init__(self, home: Path, releases: dict[str, Path], pictures: Path | None):
        self.releases, self.store, self.pictures = releases, new_store(home / "store"), pictures
        make_champion(self.store, releases[OLD])
        self.registry = Registry(self.store)
        for name in (NEW, NEWER):
            self.registry.publish(releases[name], store_id=store_identity(self.store))
        new_key(home / "key")
        self.devices = [
            make_device(home / f"pi-{number}", home / "key", f"pi-{number}") for number in (1, 2, 3)
        ]
        for device in self.devices:
            let_faults_happen(device)
            device.start()
        self.inventory = write_inventory(home / "fleet.toml", *(device.device for device in self.devices))
        self.up, self.right = Up(home), True

    def begin(self, name: str) -> str:
        fleet = {"inventory": self.inventory, "waves": [0.67, 1.0], "measure": False,
                 "command_timeout_s": _COMMAND_S, "confirm_within_s": _CONFIRM_S}  # fmt: skip
        return self.up.begin("release", {"config": {"release": self.releases[name].name, "rollout": fleet}})

    def tell(self, title: str, run: dict[str, Any], ends: str) -> None:
        """The run's state, its tasks', and the ledger as a person reads it; wrong where it ends otherwise."""
        self.right &= run["state_name"] == ends
        print(f"\n## {title}\n{run['state_name']}: {run['state']['message']}")
        tasks = self.up.ask("task_runs/filter", {"flow_runs": {"id": {"any_": [run["id"]]}}})
        print("; ".join(f"{task['name']}: {task['state_name']}" for task in tasks))
        print(self.fleet(), flush=True)
        if self.pictures:
            address = f"http://127.0.0.1:{self.up.port}/runs/flow-run/{run['id']}"
            take(address, self.pictures / f"{title.replace(' ', '-')}.png", height_px=900)

    def fleet(self) -> str:
        words = ["fleet", "--store", str(self.up.home / "store"), "--inventory", self.inventory]
        command = [sys.executable, "-m", "flows.cli", *words]
        environment = {**self.up.environment, "COLUMNS": "160"}
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300).stdout

    def expect(self, name: str, *devices: str) -> None:
        """That these devices run a release, and that the ledger says so."""
        for device in self.devices:
            told = (self.registry.device(device.device.name) or {}).get("running_release")
            ran = self.releases[name].name
            if device.device.name in devices and not device.current == told == ran:
                self.right = False
                print(f"WRONG: {device.device.name} runs {device.current}, told {told}, expected {ran}")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--pictures", type=Path, help="take pictures of the runs' pages, by chromium")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        evening = Evening(home, small_releases(home / "releases"), given.pictures)
        try:
            with evening.up.running():
                first = evening.up.ended(evening.begin(OLD))
                evening.tell("all is well", first, "Deployed")
                evening.expect(OLD, "pi-1", "pi-2", "pi-3")
                bad_release(evening)
                killed_rollout(evening)
        finally:
            for device in evening.devices:
                device.stop()
    return 0 if evening.right else 1


def bad_release(evening: Evening) -> None:
    """It hangs on the canary as soon as `current` leads to it."""
    canary = evening.devices[0]
    faults = (
        Fault("switch", "after", "nothing"),  # the next one waits for it
        Fault(f"model {evening.releases[NEW].name}", "before", "hangs", ALWAYS),
    )
    inject(canary, faults)
    run = evening.begin(NEW)
    wait_for(lambda: canary.current == evening.releases[NEW].name)
    switched = time.monotonic()
    wait_for(lambda: canary.current == evening.releases[OLD].name)
    away_s = time.monotonic() - switched
    evening.tell("a release hangs", evening.up.ended(run), "RolloutFailed")
    print(f"pi-1 ran it for {away_s:.1f} s, of at most {_CONFIRM_S} s")
    wait_for(lambda: not left_on(canary), _SESSION_ENDS_S)
    print("left there: no process")
    evening.expect(OLD, "pi-1", "pi-2", "pi-3")
    evening.right &= away_s < _CONFIRM_S
    inject(canary, ())


def killed_rollout(evening: Evening) -> None:
    """With -9, while the devices of the second wave are being switched, one of which takes its time."""
    inject(evening.devices[1], (Fault("prove current", "before", "hangs"),))
    run = evening.begin(NEW)
    wait_for(lambda: evening.devices[1].current == evening.releases[NEW].name)
    for process in evening.up.processes("prefect.engine"):
        os.kill(process, signal.SIGKILL)
    evening.tell("a rollout is killed", evening.up.ended(run), "Crashed")
    later = evening.begin(NEWER)
    evening.tell("the next rollout", evening.up.ended(later, within_s=600), "Deployed")
    evening.expect(NEWER, "pi-1", "pi-2", "pi-3")


if __name__ == "__main__":
    sys.exit(main())
