"""The whole configuration as a TOML file to start from, written from the fields' own descriptions."""

import json
import re
import textwrap
from typing import Any

from pydantic import BaseModel

from tasks.config import RetrainConfig

_WIDTH = 100


def config_template(config: RetrainConfig) -> str:
    """Every field with its description and its value in `config`, as TOML that `run --config` accepts."""
    return "\n".join(_table(config, ())).strip() + "\n"


def _table(config: BaseModel, path: tuple[str, ...]) -> list[str]:
    lines = [f"\n[{'.'.join(path)}]"] if path else []
    nested = []
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        if isinstance(value, BaseModel):
            nested += _table(value, (*path, name))
        else:
            lines += [*_comment(field.description or ""), _assignment(name, value)]
    return lines + nested


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent="# ", subsequent_indent="# ", break_long_words=False)


def _assignment(name: str, value: Any) -> str:
    # TOML knows no null: an optional field that is not set stands as a comment
    return f"# {name} =" if value is None else f"{name} = {literal(value)}"


def literal(value: Any) -> str:
    """A TOML literal; JSON's strings, numbers and booleans are TOML's."""
    if isinstance(value, BaseModel):
        value = value.model_dump()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(key)} = {literal(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(literal(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[\w-]+", name, re.ASCII) else json.dumps(name, ensure_ascii=False)
