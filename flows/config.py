"""How files, options and the environment become one configuration.

Options on the command line win over the TOML file, the file wins over the preset, the preset over the
defaults of the fields.
"""

import difflib
import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from storage.errors import InputError
from storage.files import read_bounded
from tasks.config import RetrainConfig, merge

Parsed = TypeVar("Parsed", bound=BaseModel)


_PATHS = (
    "STRESS_VISION_STORE", "STRESS_VISION_WORK", "STRESS_VISION_INVENTORY", "STRESS_VISION_SIGNING_KEY",
    "PREFECT_HOME",
)  # fmt: skip
_SHOWN = 300
"""Characters of a wrong value in an error."""


def store_uri(given: str) -> str:
    """The store given, or the environment's. Raises InputError if neither says."""
    uri = given or os.environ.get("STRESS_VISION_STORE", "")
    if not uri:
        raise InputError(
            "no object store is given: set `store` to s3://bucket/prefix or a directory, "
            "or the environment variable STRESS_VISION_STORE"
        )
    return uri


def work_path(given: str) -> Path:
    """The directory for caches and unfinished work, absolute: given, or the environment's, or the default."""
    path = given or os.environ.get("STRESS_VISION_WORK", "") or "~/.cache/stress-vision"
    return Path(path).expanduser().absolute()


def environment_for_elsewhere() -> dict[str, str]:
    """The environment for a process in another folder: paths that count from this one are absolute."""
    named = {name: os.environ.get(name, "") for name in _PATHS}
    here = {name: str(Path(path).expanduser().absolute()) for name, path in named.items() if path}
    return {**os.environ, **{name: path for name, path in here.items() if "://" not in named[name]}}


def load_config(path: Path | None, options: Mapping[str, Any]) -> RetrainConfig:
    """Read the TOML file, if any, and lay the options over it. Raises InputError, naming each bad field."""
    where = f"{path} and the command line" if path else "the command line"
    return parse_config(RetrainConfig, merge(read_toml(path) if path else {}, options), where)


def parse_config(model: type[Parsed], given: Mapping[str, Any], where: str) -> Parsed:
    """`given` as a `model`. Raises InputError with `where` it came from, naming each bad field."""
    try:
        return model.model_validate(given)
    except ValidationError as error:
        found = error.errors()
        lines = [_describe(problem, model) for problem in found if not _follows(problem, found)]
        raise InputError(f"the configuration from {where} can't be used:\n" + "\n".join(lines)) from None


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file. Raises InputError where it is missing or no TOML."""
    try:
        content = read_bounded(path)
    except FileNotFoundError:
        raise InputError(f"there is no configuration file {path}") from None
    except OSError as error:
        raise InputError(f"{path} can't be read as TOML: {error}") from None
    return parse_toml(content, str(path))


def parse_toml(content: bytes, where: str) -> dict[str, Any]:
    """The tables of a TOML text. Raises InputError with `where` it came from, where it is none."""
    try:
        return tomllib.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits is a ValueError only
        raise InputError(f"{where} can't be read as TOML: {error}") from None


def _follows(problem: Any, problems: Sequence[Any]) -> bool:
    """Whether a list is only too short because items of it, named by themselves, are wrong."""
    place = problem["loc"]
    inside = (other["loc"][: len(place)] == place for other in problems if other is not problem)
    return problem["type"] == "too_short" and any(inside)


def _describe(problem: Any, model: type[BaseModel]) -> str:
    field = ".".join(str(part) for part in problem["loc"])
    said = problem["msg"]
    if problem["type"] == "extra_forbidden":
        said = f"there is no such field{_nearest(problem['loc'], model)}"
    return f"  {field}: {said} (got {_shown(problem['input'])})"


def _shown(value: object) -> str:
    """What was given, as far as a line has room for it."""
    try:
        shown = repr(value)
    except ValueError:
        return "more digits than can be shown"
    return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}…"


def _nearest(place: tuple[str | int, ...], model: type[BaseModel]) -> str:
    """Fields of like names at that place, as a question; empty where there are none."""
    fields = _fields(place[:-1], model)
    near = difflib.get_close_matches(str(place[-1]), fields, n=2)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _fields(place: tuple[str | int, ...], model: type[BaseModel]) -> list[str]:
    """Names of the fields of the table at that place."""
    for part in place:
        found = model.model_fields[part].annotation if part in model.model_fields else None
        if not (isinstance(found, type) and issubclass(found, BaseModel)):
            return []
        model = found
    return list(model.model_fields)
