"""A week of nights, minutes apart, as the schedule starts them: what each is told as in the morning.

    python -m tests.benchmarks.nights [PICTURE.png]   # half an hour, mostly waiting; a picture needs Chromium

One `up` on drawn faces. The second night has new images, and the machine restarts in its middle. The fourth
and the fifth are due while the machine is off, and one makes up for both. The sixth has new images again, and
takes longer than its time limit, which is longer than it is to the seventh. AssertionError where one ends
otherwise than expected.
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

_APART_S, _HANGS_S = 240, 270
_EPOCHS, _KILLED_AFTER = 40, 4
_EXPECTED = ["Registered", "Crashed", "Registered", "Skipped", "TimedOut", "Registered"]


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
    """Let seven come, and do to each what is to happen to it."""
    up, home = night.up, night.up.home
    first = schedule(up)
    due = [first + timedelta(seconds=_APART_S * number) for number in range(7)]
    ended(up, due[0])

    new_images(home, seed=11)
    before = epochs_in_all(home)
    wait_for(lambda: epochs_in_all(home) >= before + _KILLED_AFTER, within_s=2 * _APART_S)
    machine_restarted(night)
    ended(up, due[2])

    switched_off_until(night, due[4] + timedelta(seconds=10))
    ended(up, due[4])

    new_images(home, seed=12)
    (home / "store/retrain.toml").write_text(settings(1000, f"time_limit_h = {_HANGS_S / 3600}"))
    sleep_until(due[6] - timedelta(seconds=10))
    (home / "store/retrain.toml").write_text(settings(_EPOCHS))
    ended(up, due[6])


def tell(up: Up) -> None:
    """What the server says of each; AssertionError where it is not what happened."""
    nights = [run for run in runs(up) if run["end_time"]]
    print("| due | began | ended | as | said |\n|---|---|---|---|---|")
    for one in nights:
        times = (one["expected_start_time"], one["start_time"], one["end_time"])
        due, began, over = (f"{datetime.fromisoformat(at):%H:%M:%S}" for at in times)
        print(f"| {due} | {began} | {over} | {one['state_name']} | {one['state']['message']} |")
    releases = len(Registry(open_store(up.home / "store")).versions())
    print(f"{releases} releases, {epochs_in_all(up.home)} epochs trained in all", flush=True)
    assert [one["state_name"] for one in nights] == _EXPECTED


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


def ended(up: Up, due: datetime) -> None:
    """Wait until it is due, and then until it has ended."""
    sleep_until(due + timedelta(seconds=1))
    found = min(runs(up), key=lambda run: abs(datetime.fromisoformat(run["expected_start_time"]) - due))
    up.ended(found["id"], within_s=3 * _APART_S)


def switched_off_until(night: Night, end: datetime) -> None:
    """Stop `up` as a machine does that is shut down, and start it again then."""
    night.process.send_signal(signal.SIGTERM)
    night.process.wait(60)
    sleep_until(end)
    night.process = night.up.start()
    night.up.await_ready(night.process)


def new_images(home: Path, seed: int) -> None:
    """A few more of one class."""
    faces, labels = draw_faces(8, seed)
    for number, face in enumerate(faces[labels == CLASSES.index("fatigue")]):
        Image.fromarray(face[..., 0]).save(home / f"store/datasets/custom/fatigue/{seed}_{number}.png")


def sleep_until(at: datetime) -> None:
    time.sleep(max(0.0, (at - datetime.now(UTC)).total_seconds()))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else None)
