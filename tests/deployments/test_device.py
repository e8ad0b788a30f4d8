"""The program on the device, run as a device runs it: as a process, killed where it hurts."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import deployments

PROGRAM = Path(deployments.__file__).parent / "pi" / "device.py"


@pytest.fixture
def root(tmp_path) -> Path:
    return tmp_path / "root"


def ask(root: Path, command: str, *words: object, program: tuple = (str(PROGRAM),)) -> dict:
    quick = () if command in ("check", "benchmark") else ("-S",)  # only these need site-packages
    line = [sys.executable, *quick, *program, "--root", str(root), command, *map(str, words)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
    return (
        json.loads(done.stdout.splitlines()[-1]) if done.stdout else {"ok": False, "status": done.returncode}
    )


def upload(root: Path, release: Path) -> str:
    shutil.copytree(release, root / "incoming" / release.name)
    return release.name


def stage(root: Path, release: Path) -> str:
    version = upload(root, release)
    assert ask(root, "stage", "--version", version)["ok"]
    return version


def run_release(root: Path, release: Path) -> str:
    """Stage, switch and confirm: the release that a device has run so far."""
    version = stage(root, release)
    answer = ask(root, "switch", "--version", version)
    assert ask(root, "confirm", "--token", answer["token"])["ok"]
    return version


def current(root: Path) -> str | None:
    link = root / "current"
    return link.readlink().name if link.is_symlink() else None


def wait_until(condition, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.05)


def test_a_confirmed_switch_stays_and_remembers_the_release_before(root, tiny_releases):
    old, new = (run_release(root, release) for release in tiny_releases)
    seen = ask(root, "inspect")
    assert (seen["current"], seen["previous"], seen["pending"]) == (new, old, None)
    assert ask(root, "check", "--version", new, "--current")["worst_lsb"] == 0


def test_an_unconfirmed_switch_goes_back_by_itself(root, tiny_releases):
    old = run_release(root, tiny_releases[0])
    new = stage(root, tiny_releases[1])
    assert ask(root, "switch", "--version", new, "--confirm-within-s", 0.5)["ok"]
    assert current(root) == new
    wait_until(lambda: current(root) == old)  # nobody speaks to the device meanwhile


def test_a_late_confirmation_is_refused(root, tiny_releases):
    old = run_release(root, tiny_releases[0])
    answer = ask(root, "switch", "--version", stage(root, tiny_releases[1]), "--confirm-within-s", 0)
    late = ask(root, "confirm", "--token", answer["token"])
    assert not late["ok"] and "not confirmed in time" in late["error"]
    assert current(root) == old


def test_a_reboot_before_the_confirmation_counts_as_not_confirmed(root, tiny_releases):
    old = run_release(root, tiny_releases[0])
    assert ask(root, "switch", "--version", stage(root, tiny_releases[1]))["ok"]
    state = json.loads((root / "state.json").read_text())
    state["pending"]["boot_id"] = "the boot before"
    (root / "state.json").write_text(json.dumps(state))
    settled = ask(root, "settle")
    assert settled["current"] == old and "rebooted" in settled["last_return"]["why"]


_KILL_AT_STEP = """
import os, runpy, signal, sys, pathlib
left, step = [int(sys.argv[1])], pathlib.Path.replace
def counted(function):
    def call(*args, **kwargs):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    return call
for owner, name in ((pathlib.Path, "replace"), (pathlib.Path, "symlink_to"), (os, "fsync")):
    setattr(owner, name, counted(getattr(owner, name)))
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_killed_at_any_step_of_a_switch_current_is_a_whole_release_and_ends_as_the_proven_one(
    root, tiny_releases
):
    old = run_release(root, tiny_releases[0])
    new = stage(root, tiny_releases[1])
    reached = []
    for step in range(1, 40):
        program = ("-c", _KILL_AT_STEP, str(step), str(PROGRAM))
        answer = ask(root, "switch", "--version", new, "--confirm-within-s", 0.1, program=program)
        reached.append(current(root))
        assert reached[-1] in (old, new)
        assert (root / "current" / "model_int8.tflite").is_file()
        time.sleep(0.15)
        assert ask(root, "inspect")["current"] == old
        if answer["ok"]:
            break
        assert answer["status"] == -signal.SIGKILL
    assert answer["ok"] and len(reached) > 6
    assert {old, new} == set(reached)


def test_an_upload_that_is_not_what_the_manifest_says_is_refused_and_named(root, tiny_releases):
    old = run_release(root, tiny_releases[0])
    version = upload(root, tiny_releases[1])
    model = root / "incoming" / version / "model_int8.tflite"
    model.write_bytes(model.read_bytes()[:-1] + b"?")
    assert ask(root, "need", "--version", version)["missing"] == ["model_int8.tflite"]
    refused = ask(root, "stage", "--version", version)
    assert refused["kind"] == "refused" and "model_int8.tflite" in refused["error"]
    assert current(root) == old and not (root / "releases" / version).exists()


def test_a_rotted_release_is_noticed_and_mended_by_a_new_upload(root, tiny_releases):
    version = run_release(root, tiny_releases[0])
    (root / "current" / "model_int8.tflite").write_bytes(b"rot")
    assert "model_int8.tflite" in ask(root, "check", "--version", version)["error"]
    upload(root, tiny_releases[0])
    assert ask(root, "stage", "--version", version)["mended"] == ["model_int8.tflite"]
    assert ask(root, "check", "--version", version, "--current")["ok"]


def test_outputs_that_differ_from_the_golden_set_are_refused(root, tiny_releases, tmp_path):
    foreign = tmp_path / tiny_releases[1].name
    shutil.copytree(tiny_releases[1], foreign)
    manifest = json.loads((foreign / "manifest.json").read_text())
    other = json.loads((tiny_releases[0] / "manifest.json").read_text())
    shutil.copy(tiny_releases[0] / "golden.npz", foreign)
    manifest["files"]["golden.npz"] = other["files"]["golden.npz"]
    (foreign / "manifest.json").write_text(json.dumps(manifest))
    refused = ask(root, "check", "--version", stage(root, foreign))
    assert (
        refused["kind"] == "refused" and "golden set" in refused["error"] and "0 allowed" in refused["error"]
    )


def test_a_switch_refuses_a_second_rollout_until_the_first_is_confirmed(root, tiny_releases):
    first = stage(root, tiny_releases[0])
    second = stage(root, tiny_releases[1])
    token = ask(root, "switch", "--version", first)["token"]
    assert ask(root, "switch", "--version", second)["kind"] == "busy"
    assert ask(root, "confirm", "--token", token)["ok"]
    assert current(root) == first


def test_one_command_at_a_time_has_the_device(root):
    import fcntl

    root.mkdir()
    with (root / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        line = [sys.executable, str(PROGRAM), "--root", str(root), "--lock-wait-s", "0.1", "inspect"]
        done = subprocess.run(line, capture_output=True, text=True, timeout=30, check=False)
    assert json.loads(done.stdout)["kind"] == "busy"


def test_only_current_and_previous_are_kept(root, tiny_releases, tmp_path):
    third = tmp_path / "20300101-000000-0123abcd"
    shutil.copytree(tiny_releases[0], third)
    manifest = json.loads((third / "manifest.json").read_text())
    (third / "manifest.json").write_text(json.dumps({**manifest, "version": third.name}))
    versions = [run_release(root, release) for release in (*tiny_releases, third)]
    assert sorted(path.name for path in (root / "releases").iterdir()) == sorted(versions[1:])


@pytest.mark.parametrize("version", ["../../etc", "20260101-000000-0123abcd/..", ""])
def test_a_version_that_leads_elsewhere_is_refused(root, version):
    assert ask(root, "stage", "--version", version)["kind"] == "refused"


def test_a_manifest_that_names_files_elsewhere_is_refused(root, tiny_releases):
    version = upload(root, tiny_releases[0])
    path = root / "incoming" / version / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"]["../../escaped"] = manifest["files"]["model_int8.tflite"]
    path.write_text(json.dumps({**manifest, "model": "../../escaped"}))
    assert "'../../escaped'" in ask(root, "need", "--version", version)["error"]


def test_a_release_that_does_not_fit_is_refused_before_it_is_sent(root, tiny_releases):
    version = upload(root, tiny_releases[0])
    path = root / "incoming" / version / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"]["model_int8.tflite"]["bytes"] = shutil.disk_usage(root).total
    path.write_text(json.dumps(manifest))
    assert "no room" in ask(root, "need", "--version", version)["error"]


def test_the_first_release_of_a_device_leaves_nothing_behind_when_it_fails(root, tiny_releases):
    version = stage(root, tiny_releases[0])
    assert ask(root, "switch", "--version", version)["previous"] is None
    assert ask(root, "revert", "--version", version, "--why", "too slow")["current"] is None
    assert ask(root, "inspect")["last_return"]["why"] == "too slow"


def test_the_program_needs_nothing_of_ours_and_no_runtime_to_switch(root):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    line = [sys.executable, "-I", "-S", str(PROGRAM), "--root", str(root), "inspect"]
    done = subprocess.run(
        line, capture_output=True, text=True, timeout=30, check=False, env=environment, cwd="/"
    )
    answer = json.loads(done.stdout)
    assert answer["ok"] and answer["machine"]["runtime"] is None
