"""Session-wide fixtures live in plugins, one noun a module."""

import os

import pytest
from hypothesis import settings

from tasks.tensorflow_start import prefer_onednn

pytest_plugins = [
    "tests.s3_server",
    "tests.ssh_devices",
    "tests.releases",
    "tests.prefect_server",
    "tests.wheel",
    "tests.tflite_runtime",
    "tests.ctrl_c",
]

# a developer's own store or fleet is no business of the tests
for name in ("STRESS_VISION_STORE", "STRESS_VISION_INVENTORY"):
    os.environ.pop(name, None)

# a module of tests may import TensorFlow before start_tensorflow does
prefer_onednn()

settings.register_profile("thorough", max_examples=10_000)

if "PYTEST_XDIST_WORKER" in os.environ:
    # one process a core: TensorFlow's and numpy's own threads would only get in each other's way
    for name in (
        "TF_NUM_INTRAOP_THREADS",
        "TF_NUM_INTEROP_THREADS",
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
    ):
        os.environ.setdefault(name, "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """For `-n`: a module's tests share what it made, and all that run flows share a Prefect server."""
    for item in items:
        flows = "prefect_server" in getattr(item, "fixturenames", ())
        item.add_marker(pytest.mark.xdist_group("flows" if flows else item.nodeid.split("::")[0]))
