"""How files, options and the environment become one configuration.

Options on the command line win over the TOML file, the file wins over the preset, the preset over the
defaults of the fields.
"""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from storage.errors import InputError
from tasks.config import RetrainConfig, merge

Parsed = TypeVar("Parsed", bound=BaseModel)


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


def load_config(path: Path | None, options: Mapping[str, Any]) -> RetrainConfig:
    """Read the TOML file, if any, and lay the options over it. Raises InputError, naming each bad field."""
    where = f"{path} and the command line" if path else "the command line"
    return parse_config(RetrainConfig, merge(read_toml(path) if path else {}, options), where)


def parse_config(model: type[Parsed], given: Mapping[str, Any], where: str) -> Parsed:
    """`given` as a `model`. Raises InputError with `where` it came from, naming each bad field."""
    try:
        return model.model_validate(given)
    except ValidationError as error:
        lines = [_describe(problem) for problem in error.errors()]
        raise InputError(f"the configuration from {where} can't be used:\n" + "\n".join(lines)) from None


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file. Raises InputError where it is missing or no TOML."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"there is no configuration file {path}") from None
    except OSError as error:
        raise InputError(f"{path} can't be read as TOML: {error}") from None
    return parse_toml(content, str(path))


def parse_toml(content: bytes, where: str) -> dict[str, Any]:
    """The tables of a TOML text. Raises InputError with `where` it came from, where it is none."""
    try:
        return tomllib.loads(content.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{where} can't be read as TOML: {error}") from None


def _describe(problem: Any) -> str:
    field = ".".join(str(part) for part in problem["loc"])
    return f"  {field}: {problem['msg']} (got {problem['input']!r})"
