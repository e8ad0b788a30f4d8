"""Everything that a release may meet, on the devices of an inventory: real ones, or emulated Raspberry Pis.

    python -m tests.benchmarks.cycle INVENTORY RELEASES

RELEASES holds three, as `python -m tests.faults --releases RELEASES` leaves them; the devices must not
serve anybody else. Prints a line a step and device; exit status 1 where a step ends otherwise than it must.
"""

import argparse
import hashlib
import io
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import starmap
from pathlib import Path

import numpy as np

from deployments.fleet import Fleet, load_fleet
from tasks.benchmark import BenchmarkConfig
from tasks.rollout import DeviceOutcome, RolloutConfig
from tasks.rollout.visit import return_device
from tests.rollouts import roll_out

CONFIG = RolloutConfig(
    canaries=1,
    measure=False,
    connect_timeout_s=60,
    command_timeout_s=180,
    visit_timeout_s=900,
    confirm_within_s=300,
    max_latency_ms=10_000,
    benchmark=BenchmarkConfig(runs=20, min_s=0, warmup=2, warmup_s=0, min_cpu_share=0),
)
"""Patient: emulated time means nothing."""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("inventory", type=Path)
    parser.add_argument("releases", type=Path)
    given = parser.parse_args()
    releases = sorted(path for path in given.releases.glob("2*") if path.is_dir())
    return cycle(load_fleet(given.inventory), releases)


def cycle(fleet: Fleet, releases: Sequence[Path]) -> int:
    """The fleet through all steps, with three releases from old to new; 1 where a step ends wrongly."""
    first, second, third = releases
    hasty = CONFIG.model_copy(update={"max_latency_ms": 0.001})
    with tempfile.TemporaryDirectory() as scratch:
        wrong = with_other_answers(third, Path(scratch))
        steps: list[tuple[str, Callable[[], Iterable[DeviceOutcome]], str]] = [
            ("first release", lambda: roll_out(first, fleet, CONFIG).devices, "updated"),
            ("next release", lambda: roll_out(second, fleet, CONFIG).devices, "updated"),
            ("it is there already", lambda: roll_out(second, fleet, CONFIG).devices, "updated"),
            ("it answers otherwise", lambda: roll_out(wrong, fleet, CONFIG).devices[:1], "failed"),
            ("no release is fast enough", lambda: roll_out(third, fleet, hasty).devices[:1], "faulty"),
            ("taken back", lambda: [return_device(one, second.name, CONFIG, "asked to")
                                    for one in fleet.devices], "failed"),
        ]  # fmt: skip
        return 0 if all(list(starmap(tell, steps))) else 1


def tell(step: str, work: Callable[[], Iterable[DeviceOutcome]], expected: str) -> bool:
    started, outcomes = time.monotonic(), list(work())
    for one in outcomes:
        said = f"{one.device}: {one.outcome}, runs {one.running_release}, {one.reason}"
        print(f"{step}: {said} ({time.monotonic() - started:.0f} s)", flush=True)
        if one.benchmark:
            print(f"    {one.benchmark.runtime} {one.benchmark.delegate} on {one.benchmark.machine.model}, "
                  f"{one.benchmark.machine.architecture}, Python {one.benchmark.machine.python}")  # fmt: skip
    return all(one.outcome == expected for one in outcomes)


def with_other_answers(release: Path, folder: Path) -> Path:
    """A copy whose golden outputs are those of another model."""
    copy = folder / release.name
    shutil.copytree(release, copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    name = manifest["golden"]["file"]
    with np.load(copy / name) as golden:
        inputs, outputs = golden["inputs"], golden["outputs"]
    packed = io.BytesIO()
    np.savez(packed, inputs=inputs, outputs=np.roll(outputs, 1, axis=1))
    content = packed.getvalue()
    (copy / name).write_bytes(content)
    manifest["files"][name] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    (copy / "manifest.json").write_text(json.dumps(manifest))
    return copy


if __name__ == "__main__":
    sys.exit(main())
