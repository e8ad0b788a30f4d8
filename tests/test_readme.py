"""What the README says is so."""

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from flows.cli import _EXIT, _parser
from tasks.classes import CLASSES, FER2013_EMOTIONS, TO_CLASS
from tasks.config import RetrainConfig
from tasks.presets import PRESETS
from tests.wheel import PACKAGES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TEXTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def _section(heading: str) -> str:
    return README.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]


def test_the_readme_is_read_in_one_sitting() -> None:
    assert len(README.splitlines()) <= 130


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_what_a_text_links_to_lies_there(path: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8"))
    assert [link for link in links if "://" not in link and not (path.parent / link).exists()] == []


def test_every_text_of_docs_is_linked_from_the_readme_or_another() -> None:
    linked = {name for path in TEXTS for name in re.findall(r"\]\((?:docs/)?([^)#/]+)\)", path.read_text())}
    assert {path.name for path in (ROOT / "docs").iterdir()} <= linked


def test_every_module_that_a_text_runs_exists() -> None:
    texts = "".join(path.read_text() for path in TEXTS)
    named = set(re.findall(r"python -m (tests\.\w+(?:\.\w+)*)", texts))
    files = [ROOT / name.replace(".", "/") for name in named]
    assert files and all(
        file.with_suffix(".py").exists() or (file / "__main__.py").exists() for file in files
    )


def test_every_environment_variable_of_ours_is_told_and_read() -> None:
    code = "".join(path.read_text() for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    told = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
    assert set(re.findall(r"STRESS_VISION_[A-Z_]+", told)) == set(re.findall(r"STRESS_VISION_[A-Z_]+", code))


def test_every_field_that_a_text_names_exists() -> None:
    fields = RetrainConfig.model_fields.items()
    tables = "|".join(name for name, field in fields if isinstance(field.default, BaseModel))
    texts = "".join(path.read_text() for path in TEXTS)
    named = set(re.findall(rf"`(?:--)?((?:{tables})(?:\.[a-z_]+)+)[ =`]", texts))
    assert named
    for name in named:
        model: Any = RetrainConfig
        for part in name.split("."):
            assert part in model.model_fields, name
            model = model.model_fields[part].annotation


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_every_command_line_of_a_text_is_right_usage(path: Path) -> None:
    blocks = re.findall(r"```bash\n(.*?)```", path.read_text(encoding="utf-8"), re.S)
    lines = re.findall(r"^(?:\w+=\S+ )*stress-vision (.*)$", "\n".join(blocks), re.M)
    for line in lines:
        words = shlex.split(re.split(r" [>|<] | && ", line)[0], comments=True)
        assert _parser(words).parse_args(words).command, line


def test_every_command_of_the_readme_exists() -> None:
    (steps,) = re.findall(r"^Each step alone: (.*)$", README, re.M)
    named = set(re.findall(r"stress-vision (\w+)", README)) | set(re.findall(r"`(\w+)`", steps))
    (commands,) = [a.choices for a in _parser([])._actions if hasattr(a, "choices") and a.choices]
    assert named == set(commands)


def test_the_two_lines_install_from_pins_and_stand_alone_under_their_headings() -> None:
    for heading in ("Run it", "Test it"):
        (block,) = re.findall(r"```bash\n(.*?)```", _section(heading), re.S)
        (line,) = block.splitlines()
        assert "-c constraints.txt" in line


def test_the_table_of_outcomes_has_the_exit_statuses_of_the_command_line() -> None:
    rows = re.findall(r"^\| ([A-Z][\w, ]+) \|.*\| (\d) \|$", _section("Outcomes"), re.M)
    told = {name: int(status) for names, status in rows for name in names.split(", ")}
    assert {name: status for name, status in told.items() if status} == _EXIT
    assert set(told) - set(_EXIT) == {"Deployed", "Registered", "Skipped", "Drifted"}


def test_presets_classes_and_schedule_are_those_of_the_code() -> None:
    assert all(f"`{preset}`" in README for preset in PRESETS)
    assert ", ".join(CLASSES) in README
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    (nightly,) = [one for one in deployments if one["name"] == "nightly"]
    assert nightly["schedules"][0]["cron"] == "15 2 * * *" and "02:15 UTC" in README


def test_the_mapping_of_fer2013_is_as_told() -> None:
    text = _section("Your data")
    assert {name for name in FER2013_EMOTIONS if TO_CLASS[name] == "stress"} == {"angry", "fear", "disgust"}
    assert "angry, fear and disgust → stress" in text
    assert {name for name in FER2013_EMOTIONS if TO_CLASS[name] == "neutral"} == {"neutral", "surprise"}


def test_every_dependency_is_pinned_and_no_pin_names_a_place() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    pins = (ROOT / "constraints.txt").read_text()
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in pins.splitlines()}
    assert {re.split(r"[<>=\[]", name)[0].lower() for name in wanted} <= pinned
    assert "://" not in pins and " @ " not in pins
