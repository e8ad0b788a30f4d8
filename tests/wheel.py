"""pytest plugin: the package as a user gets it who has no checkout, built and installed once a session."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flows.up import ROOT

PACKAGES = ("flows", "tasks", "storage", "deployments")
_SOURCES = (*PACKAGES, "prefect.yaml", "pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="session")
def installed_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the wheel's packages lie, without their dependencies; nothing is downloaded."""
    # the build leaves folders beside the sources
    sources, built = tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("wheel")
    for name in _SOURCES:
        _copy(ROOT / name, sources / name)
    _pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(built), str(sources))
    (wheel,) = built.glob("*.whl")
    site = tmp_path_factory.mktemp("site")
    _pip("install", "--no-deps", "--no-index", "--target", str(site), str(wheel))
    return site


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
