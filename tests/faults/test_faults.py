"""A share of the fault cases, quick enough for every change; `python -m tests.faults` has all of them."""

from collections import Counter
from pathlib import Path

import pytest

from tasks.prepare import PreparedData
from tests.faults.cases import NEW, NEWER, OLD, Case, cases
from tests.faults.rig import Rig
from tests.releases import tiny_release

QUICK = (
    "session lost after switch",
    "program killed before confirm",
    "power cut after switch",
    "pusher killed after confirm",
    f"hangs before model {NEW}, each time",
    "outputs differ before model *, each time",
    "state.json is no JSON",
    "the program is rotten",
    "no Python",
)


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory, tiny_data: PreparedData) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("three")
    return {name: tiny_release(folder, day, tiny_data) for day, name in enumerate((OLD, NEW, NEWER), start=1)}


def test_there_are_many_cases_and_each_has_a_name_of_its_own() -> None:
    names = Counter(case.name for case in cases())
    assert len(names) >= 200 and set(names.values()) == {1}
    assert set(QUICK) <= set(names)


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in cases() if case.name in QUICK], ids=str)
def test_a_fault_ends_well(case: Case, releases: dict[str, Path], tmp_path: Path) -> None:
    ended = Rig(tmp_path / "case", releases, case).run()
    assert ended.problems == (), f"{ended.outcome}: {ended.reason}"
