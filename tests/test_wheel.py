"""The package without its checkout."""

import os
import subprocess
import sys
from pathlib import Path

from flows.up import ROOT
from tests.wheel import PACKAGES


def _files(root: Path) -> dict[str, bytes]:
    """What lies in the four packages, by path."""
    paths = [path for package in PACKAGES for path in (root / package).rglob("*") if path.is_file()]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths if path.suffix != ".pyc"}


def test_a_wheel_holds_every_file_of_the_packages_and_the_deployments(installed_wheel: Path) -> None:
    installed = _files(installed_wheel)
    assert installed == _files(ROOT)
    assert installed["flows/prefect.yaml"] == (ROOT / "prefect.yaml").read_bytes()


def test_an_installed_wheel_prints_its_configuration_anywhere(installed_wheel: Path, tmp_path: Path) -> None:
    program = "import flows.cli, sys; print(flows.cli.__file__); sys.exit(flows.cli.main(['config']))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed_wheel)},
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    where, *lines = done.stdout.splitlines()
    assert where == str(installed_wheel / "flows/cli.py")
    assert "[train]" in lines
