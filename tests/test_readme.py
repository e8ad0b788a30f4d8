"""What the README says is so."""

import re
import tomllib
from pathlib import Path

import yaml

from flows.cli import _EXIT, _parser
from tasks.classes import CLASSES, FER2013_EMOTIONS, TO_CLASS
from tasks.presets import PRESETS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def _section(heading: str) -> str:
    return README.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]


def test_every_command_of_the_readme_exists():
    named = set(re.findall(r"stress-vision (\w+)", README))
    (commands,) = [a.choices for a in _parser([])._actions if hasattr(a, "choices") and a.choices]
    assert named == set(commands)


def test_the_two_lines_install_from_pins_and_stand_alone_under_their_headings():
    for heading in ("Run it", "Test it"):
        (block,) = re.findall(r"```bash\n(.*?)```", _section(heading), re.S)
        (line,) = block.splitlines()
        assert "-c constraints.txt" in line


def test_the_table_of_outcomes_has_the_exit_statuses_of_the_command_line():
    rows = re.findall(r"^\| ([A-Z][\w, ]+) \|.*\| (\d) \|$", _section("Your data"), re.M)
    told = {name: int(status) for names, status in rows for name in names.split(", ")}
    assert {name: status for name, status in told.items() if status} == _EXIT
    assert set(told) - set(_EXIT) == {"Deployed", "Registered", "Skipped", "Drifted"}


def test_presets_classes_and_schedule_are_those_of_the_code():
    assert all(f"`{preset}`" in README for preset in PRESETS)
    assert ", ".join(CLASSES) in README
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    (nightly,) = [one for one in deployments if one["name"] == "nightly"]
    assert nightly["schedules"][0]["cron"] == "15 2 * * *" and "02:15 UTC" in README


def test_the_mapping_of_fer2013_is_as_told():
    text = _section("Your data")
    assert {name for name in FER2013_EMOTIONS if TO_CLASS[name] == "stress"} == {"angry", "fear", "disgust"}
    assert "angry, fear and disgust → stress" in text
    assert {name for name in FER2013_EMOTIONS if TO_CLASS[name] == "neutral"} == {"neutral", "surprise"}


def test_every_dependency_is_pinned_and_no_pin_names_a_place():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    pins = (ROOT / "constraints.txt").read_text()
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in pins.splitlines()}
    assert {re.split(r"[<>=\[]", name)[0].lower() for name in wanted} <= pinned
    assert "://" not in pins and " @ " not in pins
