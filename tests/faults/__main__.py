"""Try what a fleet does when things go wrong, each case on an sshd device of its own.

    python -m tests.faults [--list] [--only WORDS] [--jobs 6] [--releases FOLDER]

Prints a line a case, and a table of cases tried and ended well; exit status 1 where one hasn't.
"""

import argparse
import multiprocessing
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from tests.faults.cases import NEW, NEWER, OLD, Case, cases


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--list", action="store_true", help="print the cases, a line each")
    parser.add_argument("--only", default="", metavar="WORDS", help="cases whose line has these words")
    parser.add_argument("--jobs", type=int, default=6, help="cases at a time")
    parser.add_argument("--releases", type=Path, help="keep the three small releases here")
    given = parser.parse_args()
    chosen = [case for case in cases() if given.only in f"{case.group}: {case.name}"]
    if given.list:
        print("\n".join(f"{case.group}: {case.name}" for case in chosen))
        return 0
    return run(chosen, given.jobs, given.releases)


def run(chosen: list[Case], jobs: int, kept: Path | None) -> int:
    with tempfile.TemporaryDirectory() as scratch:
        releases = small_releases(kept or Path(scratch) / "releases")
        work = [(case, Path(scratch) / f"case-{number}", releases) for number, case in enumerate(chosen)]
        # a fork each: what Prefect and paramiko take to import is paid once
        with multiprocessing.get_context("fork").Pool(jobs, maxtasksperchild=1) as pool:
            ended = list(map(tell, pool.imap_unordered(try_case, work)))
    print_table(ended)
    return 0 if all(well for _, well in ended) else 1


def try_case(work: tuple[Case, Path, dict[str, Path]]) -> "tuple[str, str, tuple[str, ...], float, str]":
    from tests.faults.rig import Rig

    case, folder, releases = work
    multiprocessing.current_process().daemon = False  # its rollout is a process of its own
    ended = Rig(folder, releases, case).run()
    return case.group, case.name, ended.problems, ended.seconds, f"{ended.outcome} {ended.reason}"[:160]


def tell(ended: "tuple[str, str, tuple[str, ...], float, str]") -> tuple[str, bool]:
    group, name, problems, seconds, told = ended
    said = "well" if not problems else "NOT WELL: " + "; ".join(problems)
    print(f"{group}: {name}: {said} ({seconds:.1f} s) [{told}]", flush=True)
    return group, not problems


def print_table(ended: Iterable[tuple[str, bool]]) -> None:
    ended = list(ended)
    print("\n| group | tried | ended well |\n|---|---|---|")
    for group in dict.fromkeys(group for group, _ in ended):
        of_group = [well for name, well in ended if name == group]
        print(f"| {group} | {len(of_group)} | {sum(of_group)} |")
    print(f"| all | {len(ended)} | {sum(well for _, well in ended)} |")


def small_releases(folder: Path) -> dict[str, Path]:
    """OLD, NEW and NEWER: three real releases of tiny models, made once."""
    from tests.releases import tiny_release
    from tests.tasks.small_model import prepared_data

    names = (OLD, NEW, NEWER)
    found = sorted(path for path in folder.glob("2026*") if path.is_dir())
    if len(found) != len(names):
        folder.mkdir(parents=True, exist_ok=True)
        data = prepared_data(folder / "prepared", per_class=8)
        found = [tiny_release(folder, day, data) for day in range(1, len(names) + 1)]
    return dict(zip(names, found, strict=True))


if __name__ == "__main__":
    sys.exit(main())
