"""What becomes of a night whose process, worker, server or machine dies in the middle of training.

    python -m tests.benchmarks.kills [ROW …]       # all of them: 20 minutes on two cores

Each row has a store of drawn faces and an `up` of its own, starts a night, kills, and starts the next one by
hand. It prints as what the first was marked and after how long, how the second ended, how many epochs were
trained in all, and how many releases there are, which has to be one.
"""

import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen

from storage.opening import open_store
from storage.registry import Registry
from tasks.synthetic import write_dataset
from tests.up_process import Up, wait_for

_EPOCHS, _KILLED_AFTER, _PATIENCE_S = 40, 4, 1800


def settings(epochs: int, more: str = "") -> str:
    """A TOML file for nights of seconds, whose model passes; `more` are lines of its own."""
    return f"""
{more}
preset = "highest_speed"
prepare.target_per_class = 0
convert.formats = ["int8"]

[train]
model = {{architecture = "custom_light", input_px = 48}}
epochs = {epochs}
batch_size = 32
early_stopping_patience = 1000

[targets]
min_accuracy = 0.0
champion_margin = 100
anchor_margin = 100
max_quantization_loss = 100
min_camera_accuracy = 0.0
max_camera_growth = 100
max_shortcut_added = 0.5
max_twin_share = 1
class_recall_floors = {{}}
"""


@dataclass
class Night:
    """A night under way, and the `up` that runs it."""

    up: Up
    process: Popen[str]
    run_id: str

    def kill(self, *words: str, by: signal.Signals = signal.SIGKILL) -> None:
        """Signal them; AssertionError where there are none."""
        found = self.up.processes(*words)
        assert found, f"no process of {words}"
        for one in found:
            os.kill(one, by)


def flow_killed(night: Night) -> None:
    night.kill("prefect.engine")


def worker_killed(night: Night) -> None:
    night.kill("worker start")


def server_killed(night: Night) -> None:
    night.kill("server start")


def cancelled(night: Night) -> None:
    state = {"type": "CANCELLING", "name": "Cancelling"}
    night.up.ask(f"flow_runs/{night.run_id}/set_state", {"state": state})


def machine_restarted(night: Night) -> None:
    """As a power cut: everything at once, the database stays; a minute later `up` is there again."""
    night.process.kill()
    night.process.wait()
    night.kill()
    time.sleep(20)
    night.process = night.up.start()
    night.up.await_ready(night.process)


def flow_frozen(night: Night) -> None:
    """It is alive but says nothing, as on a machine that swaps: it is taken for dead, and comes back."""
    night.kill("prefect.engine", by=signal.SIGSTOP)


ROWS: dict[str, Callable[[Night], None]] = {
    one.__name__: one
    for one in (flow_killed, worker_killed, server_killed, cancelled, machine_restarted, flow_frozen)
}


def main(names: list[str]) -> None:
    """Print a row each, as a Markdown table."""
    print("| killed | marked | after | said | next night | epochs trained in all | releases |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for name in names or ROWS:
        print(row(name, ROWS[name]), flush=True)


def row(name: str, kill: Callable[[Night], None]) -> str:
    """What one kill does."""
    with machine_of_nights(_EPOCHS) as night:
        up, home = night.up, night.up.home
        night.run_id = up.begin("nightly", {})
        wait_for(lambda: epochs_in_all(home) >= _KILLED_AFTER, within_s=_PATIENCE_S)
        began = time.monotonic()
        kill(night)
        first = up.ended(night.run_id, within_s=_PATIENCE_S)
        marked_s = time.monotonic() - began
        second = up.ended(up.begin("nightly", {}), within_s=_PATIENCE_S)
        releases = len(Registry(open_store(home / "store")).versions())
        said = (first["state"]["message"] or "")[:70]
        return (
            f"| {name} | {first['state_name']} | {marked_s:.0f} s | {said} | {second['state_name']} "
            f"{(second['state']['message'] or '')[:60]} | {epochs_in_all(home)} | {releases} |"
        )


@contextmanager
def machine_of_nights(epochs: int) -> Iterator[Night]:
    """A store of drawn faces and an `up` that is ready; whatever is left of it in the end is ended."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        write_dataset(home / "store", per_class=60, seed=3)
        (home / "store/retrain.toml").write_text(settings(epochs))
        up = Up(home)
        night = Night(up, up.start(), "")
        try:
            up.await_ready(night.process)
            yield night
        finally:
            night.process.send_signal(signal.SIGTERM)
            night.process.wait(60)
            for left in up.processes():
                os.kill(left, signal.SIGKILL)


def epochs_in_all(home: Path) -> int:
    """Epochs over all experiments: more than one night's where one began anew."""
    logs = home.glob("work/experiments/*/training_log.csv")
    return sum(len(log.read_text().splitlines()) - 1 for log in logs)


if __name__ == "__main__":
    main(sys.argv[1:])
