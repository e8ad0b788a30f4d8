"""A night whose stages do nothing, as `up` runs it: where its seconds go.

    python -m tests.benchmarks.idle [NIGHTS]       # five by default, two minutes

`up` runs a copy of the code whose stages are replaced by tasks that give what a stage gives. Prints, as a
Markdown table, for each night: until the worker takes it, until its process has begun it, until it has ended.
"""

import pickle
import shutil
import statistics
import sys
import tempfile
from datetime import datetime
from itertools import pairwise
from pathlib import Path

from flows.up import ROOT
from tests.flows.test_orchestration import stage_results
from tests.up_process import Up

_REPLACED = """
import pickle
from pathlib import Path
from tests.flows.test_orchestration import does_nothing

for name, result in pickle.loads(Path({results!r}).read_bytes()).items():
    globals()[name] = does_nothing(name, result)
"""


def main(nights: int) -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        up = Up(home, code_without_stages(home))
        (home / "store/datasets/fer2013").mkdir(parents=True)
        (home / "store/datasets/fer2013/fer2013.csv").touch()
        print("| | taken | begun | ended | in all |\n|---|---|---|---|---|")
        with up.running():
            rows = [seconds(up) for _ in range(nights)]
        for number, row in enumerate(rows, start=1):
            print_row(str(number), row)
        print_row("median", [statistics.median(column) for column in zip(*rows, strict=True)])


def code_without_stages(home: Path) -> Path:
    """A copy of the code in which each stage of a night is a task that does nothing."""
    code, results = home / "code", home / "results"
    shutil.copytree(ROOT, code, ignore=shutil.ignore_patterns(".*"))
    results.write_bytes(pickle.dumps(stage_results(home)))
    with (code / "flows/retrain.py").open("a") as source:
        source.write(_REPLACED.format(results=str(results)))
    return code


def seconds(up: Up) -> list[float]:
    """One night's parts, and their sum. AssertionError where it doesn't end as Registered."""
    run = up.begin("nightly", {"tonight": {"force": True}})
    assert up.ended(run)["state_name"] == "Registered"
    states = up.ask(f"flow_run_states/?flow_run_id={run}")
    at = {state["type"]: datetime.fromisoformat(state["timestamp"]) for state in reversed(states)}
    times = [at[name] for name in ("SCHEDULED", "PENDING", "RUNNING", "COMPLETED")]
    parts = [(later - earlier).total_seconds() for earlier, later in pairwise(times)]
    return [*parts, sum(parts)]


def print_row(name: str, row: list[float]) -> None:
    print(f"| {name} | {' | '.join(f'{one:.1f} s' for one in row)} |", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 5)
