"""A week of nights, minutes apart, as the schedule starts them: what each is told as in the morning.

    python -m tests.benchmarks.nights [PICTURE.png]   # mostly waiting; a picture needs Chromium

One `up` on drawn faces. The second night has new images, and the machine restarts in its middle; the third
goes on with it. The next two are due while the machine is off, and one makes up for both. Then one has new
images again, and takes longer than its time limit, which is longer than it is to the one after it.
AssertionError where one ends otherwise than expected; nights that come between on a slow machine find nothing
new, and say so.
"""

import signal
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from PIL import Image

from storage.opening import open_store
from storage.registry import Registry
from tasks.classes import CLASSES
from tasks.synthetic import draw_faces
from tests.benchmarks.kills import Night, epochs_in_all, machine_of_nights, machine_restarted, settings
from tests.benchmarks.screenshots import take
from tests.up_process import Up, wait_for

_APART_S, _HANGS_S, _PATIENCE_S = 150, 180, 900
_EPOCHS, _KILLED_AFTER = 24, 4
_EXPECTED = ["Registered", "Crashed", "Registered", "TimedOut", "Registered"]
_NOTHING_NEW = "Skipped"


def main(picture: Path | None) -> None:
    """Print the nights as a Markdown table."""
    with machine_of_nights(_EPOCHS) as night:
        week(night)
        tell(night.up)
        if picture:
            nightly = night.up.deployment("nightly")["id"]
            take(
                f"http://127.0.0.1:{night.up.port}/deployments/deployment/{nightly}", picture, height_px=1100
            )


def week(night: Night) -> None:
    """Let them come, and do to each what is to happen to it."""
    up, home = night.up, night.up.home
    first = schedule(up)
    await_ends(up, 1)

    new_images(home, seed=11)
    trained(home, epochs_in_all(home) + _KILLED_AFTER)
    machine_restarted(night)
    await_ends(up, 3)

    on_again = switched_off_for_two(night, first)
    wait_for(lambda: skipped_after(up, on_again), _PATIENCE_S)

    settings_of(home, settings(1000, f"time_limit_h = {_HANGS_S / 3600}"))
    new_images(home, seed=12)
    trained(home, epochs_in_all(home) + 1)
    settings_of(home, settings(_EPOCHS))
    await_ends(up, 5)


def tell(up: Up) -> None:
    """What the server says of each; AssertionError where it is not what happened."""
    # by when they began: of several that waited, a later one may begin first
    nights = sorted((run for run in runs(up) if run["end_time"]), key=lambda run: run["start_time"])
    print("| due | began | ended | as | said |\n|---|---|---|---|---|")
    for one in nights:
        times = (one["expected_start_time"], one["start_time"], one["end_time"])
        due, began, over = (f"{datetime.fromisoformat(at):%H:%M:%S}" for at in times)
        print(f"| {due} | {began} | {over} | {one['state_name']} | {one['state']['message']} |")
    releases = len(Registry(open_store(up.home / "store")).versions())
    print(f"{releases} releases, {epochs_in_all(up.home)} epochs trained in all", flush=True)
    names = [one["state_name"] for one in nights]
    assert [name for name in names if name != _NOTHING_NEW] == _EXPECTED and _NOTHING_NEW in names


def schedule(up: Up) -> datetime:
    """Nights every few minutes in place of those at 02:15; when the first is due."""
    nightly = up.deployment("nightly")
    first = datetime.now(UTC) + timedelta(seconds=15)
    every = {"interval": _APART_S, "anchor_date": first.isoformat(), "timezone": "UTC"}
    up.ask(
        f"deployments/{nightly['id']}/schedules/{nightly['schedules'][0]['id']}", {"active": False}, "PATCH"
    )
    up.ask(f"deployments/{nightly['id']}/schedules", [{"schedule": every, "active": True}])
    return first


def runs(up: Up) -> Iterator[dict[str, Any]]:
    """The nights that began, or should have, by when they were due."""
    mine = {"deployments": {"id": {"any_": [up.deployment("nightly")["id"]]}}}
    for run in up.ask("flow_runs/filter", {**mine, "sort": "EXPECTED_START_TIME_ASC"}):
        if datetime.fromisoformat(run["expected_start_time"]) < datetime.now(UTC):
            yield run


def await_ends(up: Up, number: int) -> None:
    """Wait until so many nights have ended that had something new."""

    def done() -> bool:
        ends = [one["state_name"] for one in runs(up) if one["end_time"]]
        return sum(name != _NOTHING_NEW for name in ends) >= number

    wait_for(done, _PATIENCE_S)


def skipped_after(up: Up, at: datetime) -> bool:
    """Whether a night that began then or later found nothing new."""
    return any(
        one["state_name"] == _NOTHING_NEW and datetime.fromisoformat(one["start_time"]) >= at
        for one in runs(up)
    )


def trained(home: Path, epochs: int) -> None:
    """Wait until so many epochs are trained in all."""
    wait_for(lambda: epochs_in_all(home) >= epochs, _PATIENCE_S)


def switched_off_for_two(night: Night, first: datetime) -> datetime:
    """Stop `up` as on shutdown, and start it again when two more nights were due; when that was."""
    night.process.send_signal(signal.SIGTERM)
    night.process.wait(60)
    due = (datetime.now(UTC) - first) // timedelta(seconds=_APART_S)
    sleep_until(first + timedelta(seconds=_APART_S * (due + 2) + 10))
    on_again = datetime.now(UTC)
    night.process = night.up.start()
    night.up.await_ready(night.process)
    return on_again


def settings_of(home: Path, content: str) -> None:
    (home / "store/retrain.toml").write_text(content)


def new_images(home: Path, seed: int) -> None:
    """A few more of one class."""
    faces, labels = draw_faces(8, seed)
    for number, face in enumerate(faces[labels == CLASSES.index("fatigue")]):
        Image.fromarray(face[..., 0]).save(home / f"store/datasets/custom/fatigue/{seed}_{number}.png")


def sleep_until(at: datetime) -> None:
    time.sleep(max(0.0, (at - datetime.now(UTC)).total_seconds()))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else None)
