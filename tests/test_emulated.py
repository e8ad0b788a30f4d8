"""What `python -m tests.benchmarks.emulated` says where it can't run; what it does takes minutes."""

import os

import pytest

from tests.benchmarks.emulated import install_packages


def test_a_machine_that_can_not_emulate_is_told_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr("shutil.which", lambda command, path="": None if command == "mmdebstrap" else command)
    said = install_packages()
    assert said.startswith("it needs Debian's packages mmdebstrap; as root: apt-get ")
    monkeypatch.setattr("shutil.which", lambda command, path="": command)
    assert install_packages() == ""
