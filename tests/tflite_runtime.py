"""pytest plugin: an environment like that of a device with tflite-runtime, made once a session."""

import subprocess
import sys
from pathlib import Path

import pytest

REQUIREMENTS = Path(__file__).parents[1] / "deployments/pi/requirements-tflite-runtime.txt"
NEWEST_PYTHON = (3, 11)
"""tflite-runtime 2.14, its last version, has no wheel for a newer one."""


@pytest.fixture(scope="session")
def tflite_runtime_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with what the device's requirements pin, and nothing else. Skipped where pip can't have it."""
    if sys.version_info[:2] > NEWEST_PYTHON:
        pytest.skip("tflite-runtime has no wheel for this Python; 3.11 is the newest")
    folder = tmp_path_factory.mktemp("device") / "venv"
    _run(sys.executable, "-m", "venv", str(folder))
    python = folder / "bin/python"
    installed = _run(str(python), "-m", "pip", "install", "--quiet", "-r", str(REQUIREMENTS), check=False)
    if installed.returncode:
        pytest.skip(f"pip can't install {REQUIREMENTS.name} here: {installed.stderr.strip()[-200:]}")
    return python


def _run(*command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert not check or done.returncode == 0, done.stderr
    return done
