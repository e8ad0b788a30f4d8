"""The program on the device, command by command: what it takes and refuses, and where `current` leads."""

import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from deployments.pi import device
from tests.deployments.device_program import (
    NEW,
    NEWER,
    OLD,
    Answer,
    Clock,
    ask,
    current,
    fault,
    refusal,
    run_release,
    stage,
    state,
    switch,
    upload,
)
from tests.ssh_devices import new_key


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(device, "time", clock)
    return clock


@pytest.fixture(autouse=True)
def watchdogs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str | None, bool]]:
    """At each start of a watchdog: where `current` leads, and whether the note lies there."""
    seen: list[tuple[str | None, bool]] = []

    def start(root: Path) -> None:
        seen.append((current(root), state(root)["pending"] is not None))

    monkeypatch.setattr(device, "start_watchdog", start)
    return seen


# ---------------------------------------------------------------- uploads


def test_a_new_device_runs_nothing_and_says_so(root: Path) -> None:
    seen = ask(root, "inspect")
    assert [seen[name] for name in ("current", "previous", "pending", "last_return")] == [None] * 4
    assert seen["signed_only"] is False and seen["disk_free_bytes"] > 0
    assert seen["machine"]["cpus"] and "load_per_core" in seen["health"]


def test_a_device_names_the_files_that_it_lacks(root: Path) -> None:
    incoming = upload(root, NEW)
    assert ask(root, "need", "--version", NEW)["missing"] == []
    (incoming / "golden.npz").unlink()
    (incoming / "model_int8.tflite").write_bytes(b"other")  # as long as it should be
    assert ask(root, "need", "--version", NEW)["missing"] == ["model_int8.tflite", "golden.npz"]


def test_files_of_a_release_that_is_there_are_not_sent_again(root: Path) -> None:
    incoming, release = upload(root, NEW), root / "releases" / NEW
    shutil.copytree(incoming, release)
    for name in ("model_int8.tflite", "golden.npz"):
        (incoming / name).unlink()
    (release / "golden.npz").write_bytes(b"rot")
    assert ask(root, "need", "--version", NEW)["missing"] == ["golden.npz"]


def test_a_file_of_another_length_is_missing_before_it_is_hashed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    incoming = upload(root, NEW)
    (incoming / "golden.npz").write_bytes(b"golden and more")
    monkeypatch.setattr(device, "sha256", lambda path: json.loads((incoming / "manifest.json").read_text())
                        ["files"][path.name]["sha256"])  # fmt: skip
    assert ask(root, "need", "--version", NEW)["missing"] == ["golden.npz"]


@pytest.mark.parametrize(("short_of", "refused"), [(1, True), (0, False)])
def test_an_upload_needs_its_bytes_and_the_reserve_on_disk(
    root: Path, monkeypatch: pytest.MonkeyPatch, short_of: int, refused: bool
) -> None:
    incoming = upload(root, NEW)
    (incoming / "model_int8.tflite").unlink()
    free = len(b"model") + device.DISK_RESERVE_BYTES - short_of
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    answer = ask(root, "need", "--version", NEW)
    assert answer["ok"] is not refused
    if refused:
        assert f"no room for {NEW}: 17 MB free under {root}, 17 MB needed" in answer["error"]


def test_a_full_disk_is_no_obstacle_where_nothing_is_missing(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(root, NEW)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    assert ask(root, "need", "--version", NEW)["missing"] == []


def test_a_whole_upload_becomes_a_release_in_one_rename(root: Path) -> None:
    upload(root, NEW)
    assert ask(root, "stage", "--version", NEW)["mended"] == []
    assert (root / "releases" / NEW / "manifest.json").is_file()
    assert list((root / "incoming").iterdir()) == []


def test_an_upload_that_is_not_what_its_manifest_says_stays_an_upload(root: Path) -> None:
    (upload(root, NEW) / "golden.npz").write_bytes(b"?")
    said = fault(root, "stage", "--version", NEW)
    assert said == f"upload of {NEW} is not what its manifest says: golden.npz"
    assert not (root / "releases").exists()


def test_a_rotted_release_is_mended_by_what_it_lacks(root: Path) -> None:
    release = stage(root, NEW)
    (release / "golden.npz").write_bytes(b"rot")
    (upload(root, NEW) / "model_int8.tflite").unlink()
    assert ask(root, "stage", "--version", NEW)["mended"] == ["golden.npz"]
    assert (release / "golden.npz").read_bytes() == b"golden"
    assert not (root / "incoming" / NEW).exists()


def test_nothing_is_uploaded_while_a_switch_waits_for_its_confirmation(root: Path) -> None:
    switch(root, NEW)
    upload(root, NEWER)
    for command in ("need", "stage"):
        answer = ask(root, command, "--version", NEWER)
        assert answer["kind"] == "busy"
        assert answer["error"].endswith(f"the switch to {NEW} waits for its confirmation for another 120 s")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": OLD}, f"of version '{OLD}'"),
        ({"version": "../2"}, r"of version '\.\./2'"),
        ({"model": "../model"}, r"'\.\./model' is not one of its files"),
        ({"model": "absent"}, "'absent' is not one of its files"),
        ({"golden": {"file": ".hidden"}}, r"'\.hidden' is not one of its files"),
    ],
)
def test_a_manifest_that_leads_elsewhere_is_refused(root: Path, change: Answer, said: str) -> None:
    folder = upload(root, NEW)
    manifest = json.loads((folder / "manifest.json").read_text()) | change
    for name in (manifest["model"], manifest["golden"]["file"]):
        if name != "absent":
            manifest["files"][name] = {"bytes": 0, "sha256": ""}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(device.Refused, match=said):
        device.read_manifest(folder)


def test_a_folder_without_a_manifest_is_refused_with_the_remedy(root: Path) -> None:
    assert "send it first" in fault(root, "need", "--version", NEW)


@pytest.mark.parametrize("command", ["need", "stage", "check", "benchmark", "switch", "revert"])
def test_a_version_that_is_none_is_refused_before_anything_is_touched(root: Path, command: str) -> None:
    assert refusal(root, command, "--version", "../../etc") == "'../../etc' is not a release's version"
    assert not root.exists()


# ---------------------------------------------------------------- signatures


@pytest.fixture
def signed(root: Path, tmp_path: Path) -> Path:
    """An upload, signed, on a device that takes signed releases only."""
    public = new_key(tmp_path / "signing_key")
    folder = upload(root, NEW)
    (root / "allowed_signers").write_text(f"{device.SIGNER} {public}\n")
    command = ["ssh-keygen", "-Y", "sign", "-f", tmp_path / "signing_key", "-n", device.RELEASE]
    manifest = (folder / "manifest.json").read_bytes()
    done = subprocess.run(command, input=manifest, capture_output=True, check=True, timeout=30)
    (folder / "manifest.sig").write_bytes(done.stdout)
    return folder


def test_a_device_with_signers_takes_what_they_signed(root: Path, signed: Path) -> None:
    assert ask(root, "inspect")["signed_only"] is True
    assert ask(root, "need", "--version", NEW)["ok"] and ask(root, "stage", "--version", NEW)["ok"]


@pytest.mark.parametrize("command", ["need", "stage"])
def test_a_device_with_signers_refuses_what_they_did_not_sign(root: Path, signed: Path, command: str) -> None:
    (signed / "manifest.json").write_text((signed / "manifest.json").read_text() + " ")
    said = refusal(root, command, "--version", NEW)
    assert said.startswith(f"the signature of {NEW} (manifest) doesn't hold: ") and "verif" in said
    (signed / "manifest.sig").unlink()
    assert "has no signature, and this device takes signed ones only" in refusal(
        root, command, "--version", NEW
    )


# ---------------------------------------------------------------- switch, confirm, go back


def test_a_switch_leaves_its_note_and_its_watchdog_before_the_link_moves(
    root: Path, watchdogs: list[tuple[str | None, bool]]
) -> None:
    run_release(root, OLD)
    answer = switch(root, NEW, "--confirm-within-s", 7)
    assert (answer["version"], answer["previous"], current(root)) == (NEW, OLD, NEW)
    assert watchdogs == [(None, True), (OLD, True)]
    pending = state(root)["pending"]
    assert pending == {
        "version": NEW,
        "previous": OLD,
        "token": answer["token"],
        "boot_id": device.boot_id(),
        "deadline": 1007.0,
    }


def test_tokens_can_not_be_guessed(root: Path) -> None:
    first = switch(root, NEW)["token"]
    ask(root, "revert", "--version", NEW)
    second = switch(root, NEW)["token"]
    assert len(first) == 32 and first != second


def test_only_a_whole_release_is_switched_to(root: Path) -> None:
    assert "has not been staged" in fault(root, "switch", "--version", NEW)
    (stage(root, NEW) / "golden.npz").write_bytes(b"rot")
    assert "has rotted on this device: stage it again" in fault(root, "switch", "--version", NEW)
    assert current(root) is None


def test_a_second_switch_waits_for_the_first(root: Path, clock: Clock) -> None:
    switch(root, NEW, "--confirm-within-s", 9)
    clock.now += 4
    answer = ask(root, "switch", "--version", NEW)
    assert answer["kind"] == "busy" and answer["error"].endswith("for another 5 s")


def test_a_confirmed_release_stays_and_the_one_before_is_kept(root: Path) -> None:
    for version in (OLD, NEW, NEWER):
        run_release(root, version)
    assert current(root) == NEWER
    assert state(root) == {"previous": NEW, "pending": None, "last_return": None, "sequence": 0}
    assert sorted(path.name for path in (root / "releases").iterdir()) == [NEW, NEWER]


def test_a_confirmation_clears_what_was_left_behind_and_nothing_else(
    root: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    programs = root / "program"
    programs.mkdir(parents=True)
    mine, older, other = (programs / name for name in ("device-b.py", "device-a.py", "notes.py"))
    for path in (mine, older, other):
        path.touch()
    monkeypatch.setattr(device, "__file__", str(mine))
    token = switch(root, NEW)["token"]
    for version, age_s in ((OLD, 1), (NEWER, -1)):
        folder, changed = upload(root, version), clock.wall - device.YOUNG_S - age_s
        os.utime(folder, (changed, changed))
    (root / ".state.json.7.part").touch()
    assert ask(root, "confirm", "--token", token) == {"ok": True, "version": NEW, "previous": None}
    assert [mine.exists(), older.exists(), other.exists()] == [True, False, True]
    assert [path.name for path in (root / "incoming").iterdir()] == [NEWER], "it may still be sent"
    assert list(root.glob(".*.part")) == []
    assert (root / "device.py").resolve() == mine.resolve(), "what a timer starts is the program sent last"
    assert (root / "state.json").exists()


def test_what_is_confirmed_counts_as_proven_until_a_file_or_the_runtime_changes(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = switch(root, OLD)["token"]
    assert device.proven_since(root) is None
    assert ask(root, "confirm", "--token", token)["ok"]
    assert device.proven_since(root) == (root / "releases" / OLD / ".proven").stat().st_mtime
    with monkeypatch.context() as patch:
        patch.setattr(device, "installed_runtime", lambda: ("ai-edge-litert", "0.0.1"))
        assert device.proven_since(root) is None
        device.renew_mark(root, OLD)
        assert device.proven_since(root) is not None
    assert device.proven_since(root) is None
    device.renew_mark(root, OLD)
    (root / "releases" / OLD / "model_int8.tflite").write_bytes(b"rotte")
    assert device.proven_since(root) is None


def test_a_foreign_token_confirms_nothing(root: Path) -> None:
    switch(root, NEW)
    assert (
        refusal(root, "confirm", "--token", "x") == f"nothing to confirm: current is {NEW} (never switched)"
    )
    assert state(root)["pending"]


def test_a_switch_whose_link_was_moved_meanwhile_is_not_confirmed(root: Path) -> None:
    stage(root, OLD)
    token = switch(root, NEW)["token"]
    device.point_current(root, OLD)
    assert f"current is {OLD}" in refusal(root, "confirm", "--token", token)


def test_nothing_is_confirmed_twice(root: Path) -> None:
    token = switch(root, NEW)["token"]
    assert ask(root, "confirm", "--token", token)["ok"]
    assert "nothing to confirm" in refusal(root, "confirm", "--token", token)


@pytest.mark.parametrize(("after_s", "left"), [(6.9, NEW), (7, OLD)])
def test_any_command_after_the_deadline_goes_back_first(
    root: Path, clock: Clock, after_s: float, left: str
) -> None:
    run_release(root, OLD)
    switch(root, NEW, "--confirm-within-s", 7)
    clock.now += after_s
    assert ask(root, "settle")["current"] == left
    if left == OLD:
        returned = {"from": NEW, "to": OLD, "why": "not confirmed in time"}
        assert state(root) == {"previous": None, "pending": None, "last_return": returned, "sequence": 0}


def test_a_late_confirmation_says_why_it_is_late(root: Path, clock: Clock) -> None:
    token = switch(root, NEW, "--confirm-within-s", 7)["token"]
    clock.now += 8
    said = refusal(root, "confirm", "--token", token)
    assert said == "nothing to confirm: current is None (not confirmed in time)"
    assert not (root / "current").is_symlink()


def test_another_boot_counts_as_not_confirmed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_release(root, OLD)
    switch(root, NEW)
    monkeypatch.setattr(device, "boot_id", lambda: "the next boot")
    seen = ask(root, "inspect")
    assert (seen["current"], seen["last_return"]["why"]) == (OLD, "rebooted before it was confirmed")


def test_boots_differ_by_what_the_kernel_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert device.boot_id() == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    monkeypatch.setattr(device, "Path", lambda name: tmp_path / "none")
    assert device.boot_id() == ""


def test_asked_to_a_device_leaves_a_pending_or_a_confirmed_release_for_the_one_before(root: Path) -> None:
    run_release(root, OLD)
    switch(root, NEW)
    assert ask(root, "revert", "--version", NEW, "--why", "too slow")["current"] == OLD
    assert state(root)["last_return"] == {"from": NEW, "to": OLD, "why": "too slow"}
    run_release(root, NEW)
    assert ask(root, "revert", "--version", NEW)["current"] == OLD
    assert state(root)["last_return"]["why"] == "asked to"


def test_a_device_that_runs_another_release_goes_nowhere(root: Path) -> None:
    run_release(root, OLD)
    run_release(root, NEW)
    assert ask(root, "revert", "--version", OLD)["current"] == NEW
    switch(root, NEWER)
    assert ask(root, "revert", "--version", NEW)["current"] == NEWER
    assert state(root)["pending"]


def test_without_a_release_before_there_is_no_way_back(root: Path) -> None:
    run_release(root, NEW)
    assert refusal(root, "revert", "--version", NEW) == f"there is no release before {NEW} to return to"
    assert current(root) == NEW


# ---------------------------------------------------------------- watchdog


def test_a_watchdog_looks_each_second_and_at_the_deadline(root: Path, clock: Clock) -> None:
    run_release(root, OLD)
    switch(root, NEW, "--confirm-within-s", 2.5)
    assert device.watch(root, 0) == {}
    assert clock.slept == [1.0, 1.0, 0.5, 0.05] and current(root) == OLD


def test_a_watchdog_ends_with_the_confirmation(root: Path, clock: Clock) -> None:
    run_release(root, NEW)
    assert device.watch(root, 0) == {} and clock.slept == []
    assert current(root) == NEW


def test_a_watchdog_waits_for_whoever_has_the_device(root: Path, clock: Clock) -> None:
    run_release(root, OLD)
    switch(root, NEW, "--confirm-within-s", 0)
    with (root / "lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        clock.sleep = lambda seconds: fcntl.flock(other, fcntl.LOCK_UN)
        assert device.main(["--root", str(root), "--lock-wait-s", "-1", "watch"]) == 0
    assert current(root) == OLD


def test_the_lock_is_waited_for_as_long_as_asked(root: Path, clock: Clock) -> None:
    root.mkdir()
    with (root / "lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        said = r"another command has had this device for 0\.2 s"
        with pytest.raises(device.Busy, match=said), device.locked(root, 0.2):
            pass
    assert clock.slept == pytest.approx([0.05] * len(clock.slept)) and 4 <= len(clock.slept) <= 5


def test_the_lock_is_free_again_after_a_command(root: Path) -> None:
    stage(root, NEW)
    with (root / "lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert ask(root, "switch", "--version", NEW)["kind"] == "busy"
        assert ask(root, "inspect")["ok"], "who only looks needs no lock"


# ---------------------------------------------------------------- power


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What was renamed and what was synced, in order."""
    done: list[tuple[str, str]] = []
    replace, rename, fsync = Path.replace, Path.rename, os.fsync

    def noted(move: Callable[[Path, Path], Path]) -> Callable[[Path, Path], Path]:
        def call(path: Path, target: Path) -> Path:
            done.append(("rename", str(target)))
            return move(path, target)

        return call

    def noted_fsync(handle: int) -> None:
        done.append(("sync", str(Path(f"/proc/self/fd/{handle}").readlink())))
        fsync(handle)

    monkeypatch.setattr(Path, "replace", noted(replace))
    monkeypatch.setattr(Path, "rename", noted(rename))
    monkeypatch.setattr(os, "fsync", noted_fsync)
    return done


@pytest.mark.parametrize("command", ["stage", "switch", "revert", "confirm"])
def test_every_rename_is_on_disk_before_the_next_step_and_so_is_what_was_renamed(
    root: Path, disk: list[tuple[str, str]], command: str
) -> None:
    run_release(root, OLD)
    words: tuple[object, ...] = ("--version", NEW)
    if command == "stage":
        upload(root, NEW)
    else:
        stage(root, NEW)
    if command in ("revert", "confirm"):
        token = ask(root, "switch", "--version", NEW)["token"]
        words = ("--token", token) if command == "confirm" else words
    disk.clear()
    assert ask(root, command, *words)["ok"]
    renames = [number for number, (what, _) in enumerate(disk) if what == "rename"]
    assert renames
    for number in renames:
        target = Path(disk[number][1])
        synced = [path for what, path in disk[number + 1 :] if what == "sync"]
        assert str(target.parent) in synced, f"{target} may be gone after a power cut"
        if target.name == "state.json":
            assert disk[number - 1][1].endswith(".part"), "its content is on disk before its name"


def test_the_first_release_that_is_taken_back_is_gone_after_a_power_cut_too(
    root: Path, disk: list[tuple[str, str]]
) -> None:
    switch(root, NEW)
    disk.clear()
    assert ask(root, "revert", "--version", NEW)["current"] is None
    assert disk[0] == ("sync", str(root))


# ---------------------------------------------------------------- what else may happen


def test_what_nobody_thought_of_is_an_answer_too(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def surprise(root: Path, args: object) -> Answer:
        raise ZeroDivisionError("nobody thought of it")

    monkeypatch.setitem(device.COMMANDS, "inspect", surprise)
    answer = ask(root, "inspect")
    assert answer["kind"] == "error" and answer["error"].startswith("inspect: ZeroDivisionError: ")


def test_a_sick_disk_is_the_devices_fault_and_named(root: Path) -> None:
    (root / "lock").mkdir(parents=True)
    assert fault(root, "stage", "--version", NEW) == f"stage: Is a directory: {root / 'lock'}"


# ---------------------------------------------------------------- state that nobody repairs


SENSELESS = ["", "{", "[1]", '{"previous": 3}', '{"pending": {"version": 1}}', '{"sequence": "x"}',
             '{"pending": {"version": "V", "previous": null, "token": "", "boot_id": "", "deadline": 1e999}}',
             '{"previous": "../../etc"}']  # fmt: skip


@pytest.mark.parametrize("content", SENSELESS)
def test_a_state_that_can_not_be_read_is_rebuilt_from_what_the_device_runs(root: Path, content: str) -> None:
    run_release(root, OLD)
    run_release(root, NEW)
    (root / "state.json").write_text(content.replace('"V"', f'"{NEW}"'))
    seen = ask(root, "inspect")
    assert (seen["current"], seen["previous"], seen["pending"]) == (NEW, OLD, None)
    assert seen["repaired"].startswith("state.json could not be read")
    assert ask(root, "revert", "--version", NEW)["current"] == OLD
    assert ask(root, "inspect")["repaired"] is None


def test_a_state_of_the_program_before_is_understood(root: Path) -> None:
    run_release(root, NEW)
    (root / "state.json").write_text(json.dumps({"previous": OLD, "pending": None, "last_return": None}))
    seen = ask(root, "inspect")
    assert (seen["previous"], seen["sequence"], seen["repaired"]) == (OLD, 0, None)


def test_a_switch_on_probation_returns_though_its_note_became_unreadable(root: Path, clock: Clock) -> None:
    run_release(root, OLD)
    switch(root, NEW, "--confirm-within-s", 2)
    sleep = clock.sleep

    def meanwhile(seconds: float) -> None:
        if current(root) == NEW:
            (root / "state.json").write_text("{")
        sleep(seconds)

    clock.sleep = meanwhile
    assert device.watch(root, 0) == {}
    assert current(root) == OLD and state(root)["last_return"]["why"] == "not confirmed in time"


def test_a_release_that_rotted_is_nothing_to_go_back_to(root: Path) -> None:
    run_release(root, OLD)
    run_release(root, NEW)
    (root / "releases" / OLD / "model_int8.tflite").write_bytes(b"rot")
    said = fault(root, "revert", "--version", NEW, "--why", "too slow")
    assert said == f"still on {NEW}: too slow; {OLD} is no longer whole on this device"
    assert current(root) == NEW


def test_where_the_release_before_is_gone_another_proven_one_is_gone_back_to(root: Path) -> None:
    for version in (OLD, NEW):
        run_release(root, version)
    switch(root, NEWER)
    shutil.rmtree(root / "releases" / NEW)
    assert ask(root, "revert", "--version", NEWER)["current"] == OLD


def test_what_a_device_runs_is_what_current_opens(root: Path) -> None:
    run_release(root, NEW)
    (root / "elsewhere").mkdir()
    (root / "releases" / NEW).rename(root / "elsewhere" / NEW)
    assert ask(root, "inspect")["current"] is None
    (root / "current").unlink()
    (root / "current").symlink_to(f"elsewhere/{NEW}")
    assert ask(root, "inspect")["current"] is None


def test_things_in_the_way_of_a_release_or_of_the_link_are_put_aside(root: Path) -> None:
    (root / "current").mkdir(parents=True)
    (root / "releases").mkdir()
    (root / "releases" / NEW).write_text("in the way")
    switch(root, NEW)
    assert current(root) == NEW
    assert [path.is_dir() for path in root.glob("current.found.*")] == [True]


def test_a_disk_that_takes_nothing_does_not_end_the_watchdog(
    root: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_release(root, OLD)
    switch(root, NEW, "--confirm-within-s", 1)
    write, sick = device.write_state, [3]

    def write_state(root: Path, **changes: object) -> None:
        sick[0] -= 1
        if sick[0] >= 0:
            raise OSError(30, "Read-only file system")
        write(root, **changes)

    monkeypatch.setattr(device, "write_state", write_state)
    assert device.watch(root, 0) == {}
    assert current(root) == OLD and sick[0] < 0


def test_what_can_not_be_pruned_does_not_fail_a_confirmation(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in (OLD, NEW):
        run_release(root, version)
    token = switch(root, NEWER)["token"]

    def sick(path: Path) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(shutil, "rmtree", sick)
    assert ask(root, "confirm", "--token", token)["ok"]
    assert current(root) == NEWER and (root / "releases" / OLD).exists()


def test_releases_that_failed_long_ago_are_cleared_when_the_next_arrives(root: Path, clock: Clock) -> None:
    run_release(root, OLD)
    failed = stage(root, NEW)
    changed = clock.wall - device.YOUNG_S - 1
    os.utime(failed, (changed, changed))
    stage(root, NEWER)
    assert sorted(path.name for path in (root / "releases").iterdir()) == [OLD, NEWER]


# ---------------------------------------------------------------- older releases, and orders to go back


def order(root: Path, version: str, up_to: int) -> None:
    content = json.dumps({"release": version, "up_to": up_to})
    (root / "incoming" / version / device.ORDER).write_text(content)


def test_a_release_from_before_the_one_proven_last_needs_an_order(root: Path) -> None:
    upload(root, NEW, sequence=7)
    run_staged(root, NEW)
    upload(root, OLD, sequence=6)
    said = refusal(root, "need", "--version", OLD)
    assert said.startswith(
        f"{OLD} is number 6, and this device has proven number 7: going back needs an order"
    )
    assert refusal(root, "stage", "--version", OLD) == said
    order(root, OLD, up_to=6)
    assert refusal(root, "stage", "--version", OLD) == said, "an order from before number 7"
    order(root, OLD, up_to=7)
    run_staged(root, OLD)
    assert current(root) == OLD and state(root)["sequence"] == 7
    upload(root, OLD, sequence=6)
    assert ask(root, "need", "--version", OLD)["ok"], "it runs this one"


def run_staged(root: Path, version: str) -> None:
    assert ask(root, "stage", "--version", version)["ok"]
    token = ask(root, "switch", "--version", version)["token"]
    assert ask(root, "confirm", "--token", token)["ok"]


def test_an_order_on_a_device_with_signers_is_signed_for_this_purpose(
    root: Path, signed: Path, tmp_path: Path
) -> None:
    device.write_state(root, sequence=3)
    order(root, NEW, up_to=3)
    assert "rollback" in refusal(root, "need", "--version", NEW)
    content = signed / device.ORDER
    for purpose, holds in ((device.RELEASE, False), (device.ROLLBACK, True)):
        command = ["ssh-keygen", "-Y", "sign", "-f", tmp_path / "signing_key", "-n", purpose]
        done = subprocess.run(
            command, input=content.read_bytes(), capture_output=True, check=True, timeout=30
        )
        (signed / "rollback.sig").write_bytes(done.stdout)
        assert ask(root, "need", "--version", NEW)["ok"] is holds


@pytest.mark.parametrize("version", ["19999999-031500-", "20260101-251500-"])
def test_a_version_is_a_time_and_the_hash_of_its_model(root: Path, version: str) -> None:
    digest = OLD[-8:]
    upload(root, version + digest)
    assert "no such time" in refusal(root, "need", "--version", version + digest)
    upload(root, OLD, model=b"another model")
    assert f"{OLD} is not the version of its model" in refusal(root, "need", "--version", OLD)


def test_a_list_of_signers_that_leads_nowhere_is_no_permission(root: Path) -> None:
    upload(root, NEW)
    (root / "allowed_signers").symlink_to("gone")
    assert ask(root, "inspect")["signed_only"] is True
    assert fault(root, "need", "--version", NEW).endswith("can't be read: it leads nowhere")


@pytest.mark.parametrize("words", [[], ["confirm"], ["need"], ["check"], ["switch"], ["revert"]])
def test_a_command_without_what_it_needs_is_wrong_usage(root: Path, words: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        device.main(["--root", str(root), *words])
    assert not root.exists()


def test_files_appear_whole_and_leave_nothing_beside_them(tmp_path: Path) -> None:
    path = tmp_path / "file"
    device.write_atomically(path, "one")
    device.write_atomically(path, "two")
    device.link_atomically(tmp_path / "link", "one")
    (tmp_path / f".link.{os.getpid()}.part").symlink_to("left behind")
    device.link_atomically(tmp_path / "link", "two")
    assert path.read_text() == "two" and (tmp_path / "link").readlink() == Path("two")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "link"]


def test_hashes_are_of_the_whole_file(tmp_path: Path) -> None:
    import hashlib

    content = bytes(range(256)) * 5000  # more than a block
    (tmp_path / "file").write_bytes(content)
    assert device.sha256(tmp_path / "file") == hashlib.sha256(content).hexdigest()
