"""docs/reference.md, written from the code.

python -m tests.reference        # after a field, a command or an artifact has changed
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from flows.cli import EXAMPLES, EXIT_STATUS, _parser
from flows.template import literal
from tasks.config import RetrainConfig
from tasks.report.artifacts import KEYS

PATH = Path(__file__).parents[1] / "docs/reference.md"
_HEAD = """\
# Reference

Every command, field and artifact, written from the code by `python -m tests.reference`. Elsewhere: variables
of the environment ([configuration.md](configuration.md)), files in the store ([layout.md](layout.md)), what a
run ends as ([nights.md](nights.md)).
"""
_SIGNS = {Ge: "≥ {0.ge}", Gt: "> {0.gt}", Le: "≤ {0.le}", Lt: "< {0.lt}"}


def reference() -> str:
    """The whole text."""
    return "\n".join(
        [
            _HEAD,
            *_commands(),
            *_fields(RetrainConfig.model_validate({"preset": "balanced"}), ""),
            *_artifacts(),
        ]
    )


def _commands() -> Iterator[str]:
    yield f"## Commands\n\n{EXIT_STATUS.capitalize()}.\n"
    (commands,) = (one for one in _parser([])._actions if isinstance(one, argparse._SubParsersAction))
    for told in commands._get_subactions():
        yield f"### {told.dest}\n\n{told.help}: `{EXAMPLES[told.dest]}`\n"
        yield from _options(commands.choices[told.dest])


def _options(command: argparse.ArgumentParser) -> Iterator[str]:
    """Of `run`, `prepare` and `train` without those of the fields."""
    options = [action for action in command._actions if action.dest != "help"]
    if options:
        yield from ("| option | meaning |", "|---|---|")
    for one in options:
        name = ", ".join(one.option_strings) or one.metavar or one.dest
        choices = f"{', '.join(map(str, one.choices))}" if one.choices else ""
        yield _row(f"`{name}`", "; ".join(filter(None, (one.help, choices))))
    if command.prog.split()[-1] in ("run", "prepare", "train"):
        yield "\nand an option for every field, as in `--train.epochs 30`."
    yield ""


def _fields(table: BaseModel, path: str) -> Iterator[str]:
    """A section a table, the tables inside of it after it."""
    fields = type(table).model_fields
    inner = {name: value for name in fields if isinstance(value := getattr(table, name), BaseModel)}
    yield f"## `[{path}]`\n" if path else "## Fields\n"
    yield from ("| field | `balanced` | may be | meaning |", "|---|---|---|---|")
    for name, field in fields.items():
        if name not in inner:
            value = getattr(table, name)
            shown = "none" if value is None else f"`{literal(value)}`"
            yield _row(f"`{name}`", shown, _allowed(field), field.description or "")
    yield ""
    for name, value in inner.items():
        yield from _fields(value, f"{path}.{name}".strip("."))


def _allowed(field: FieldInfo) -> str:
    bounds = [_SIGNS[type(one)].format(one) for one in field.metadata if type(one) in _SIGNS]
    words = [str(word) for word in get_args(field.annotation) if isinstance(word, str | int)]
    return ", ".join(bounds or words)


def _artifacts() -> Iterator[str]:
    yield "## Artifacts of a run in Prefect\n"
    yield from ("| key | shows |", "|---|---|")
    for key, shown in KEYS.items():
        yield _row(f"`{key}`", shown)
    yield ""


def _row(*cells: Any) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    PATH.write_text(reference(), encoding="utf-8")
