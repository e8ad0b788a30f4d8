"""One holder at a time, on whatever machine, whatever becomes of it; one process in a folder."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest

from storage.errors import InputError, StoreError
from storage.lease import Claim, Held, exclusively, lease
from storage.objects import ObjectStore
from storage.opening import open_store
from tests.waiting import wait_until

KEY = "leases/fleet.json"
HOLDER = """
import sys, time
from storage.errors import StoreError
from storage.lease import lease
from storage.opening import open_store
store, name, settle_s, wait_s, stay_s, ttl_s = open_store(sys.argv[1]), sys.argv[2], *map(float, sys.argv[3:])
print("ready", flush=True)
sys.stdin.readline()
try:
    with lease(store, "fleet", name, ttl_s=ttl_s, wait_s=wait_s, settle_s=settle_s) as held:
        print("in", time.time(), flush=True)
        time.sleep(stay_s)
        held.check()
        print("out", time.time(), flush=True)
except StoreError as error:
    print("refused", error, flush=True)
"""


@pytest.fixture(params=["directory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    (tmp_path / "store").mkdir()
    return open_store(
        tmp_path / "store" if request.param == "directory" else request.getfixturevalue("s3_uri")
    )


@pytest.fixture
def local(tmp_path: Path) -> ObjectStore:
    (tmp_path / "store").mkdir()
    return open_store(tmp_path / "store")


def process(
    store: ObjectStore, name: str, *, wait_s: float = 0.0, stay_s: float = 0.0, ttl_s: float = 20.0
) -> subprocess.Popen[str]:
    """A real process that takes the lease `fleet` when told to, stays, and gives it back."""
    numbers = [str(number) for number in (0.3, wait_s, stay_s, ttl_s)]
    command = [sys.executable, "-c", HOLDER, store.uri, name, *numbers]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def begin(*takers: subprocess.Popen[str]) -> None:
    """Tell all that they may, as soon as each has started: how long that takes is the machine's affair."""
    for taker in takers:
        assert taker.stdout and taker.stdout.readline() == "ready\n"
    for taker in takers:
        assert taker.stdin
        taker.stdin.write("\n")
        taker.stdin.flush()


def claim(age_s: float, ttl_s: float = 0.2, token: str = "another's") -> Claim:
    now = time.time()
    return Claim(
        token=token,
        holder="rollout on gpu-2",
        since=datetime.fromtimestamp(now - age_s, UTC),
        renewed_at=now - age_s,
        ttl_s=ttl_s,
    )


def put(store: ObjectStore, one: Claim) -> None:
    store.write(KEY, one.model_dump_json().encode())


def soon(store: ObjectStore, wait_s: float = 0.0, ttl_s: float = 2.0) -> AbstractContextManager[Held]:
    return lease(store, "fleet", "retrain on gpu-1", ttl_s=ttl_s, wait_s=wait_s, settle_s=0.1)


def test_a_lease_is_there_while_its_block_runs_and_says_whose_it_is(store: ObjectStore) -> None:
    with soon(store) as held:
        held.check()
        found = Claim.model_validate_json(store.read(KEY))
        assert (found.holder, found.token) == ("retrain on gpu-1", held.claim.token)
        assert abs(found.since.timestamp() - time.time()) < 5
    assert not store.exists(KEY)
    with soon(store):
        pass


def test_it_is_given_back_when_the_block_fails(local: ObjectStore) -> None:
    with pytest.raises(ZeroDivisionError), soon(local):
        raise ZeroDivisionError
    assert not local.exists(KEY)


def test_a_second_taker_is_told_who_has_it_and_since_when(store: ObjectStore) -> None:
    taken = claim(age_s=1, ttl_s=60)
    put(store, taken)
    since = taken.since.isoformat(sep=" ", timespec="seconds")
    began = time.monotonic()
    said = r"leases/fleet\.json: rollout on gpu-2 has this since " + since.replace("+", r"\+")
    with pytest.raises(StoreError, match=said + r".*within 60 s"), soon(store):
        pass
    assert time.monotonic() - began < 5
    assert store.read(KEY) == taken.model_dump_json().encode()


def test_leases_of_two_names_do_not_meet(local: ObjectStore) -> None:
    with soon(local), lease(local, "other", "retrain on gpu-1", settle_s=0.1):
        assert [info.key for info in local.list("leases")] == [KEY, "leases/other.json"]


def test_a_second_taker_may_wait_and_gets_it_when_the_first_has_ended(local: ObjectStore) -> None:
    put(local, claim(age_s=0, ttl_s=60))
    threading.Timer(0.3, lambda: local.delete(KEY)).start()
    began = time.monotonic()
    with soon(local, wait_s=20):
        assert 0.25 < time.monotonic() - began < 10


def test_who_waits_is_told_for_whom_and_how_long_at_most(local: ObjectStore) -> None:
    said: list[str] = []
    with (
        lease(local, "fleet", "first", settle_s=0.3),
        pytest.raises(StoreError),
        lease(local, "fleet", "second", settle_s=0.3, wait_s=0.1, on_wait=said.append),
    ):
        pass
    (once,) = said
    assert once.startswith("waiting for first, which has the fleet since 2") and "for 165 s at most" in once


def test_waiting_ends_at_its_deadline(local: ObjectStore) -> None:
    put(local, claim(age_s=0, ttl_s=60))
    began = time.monotonic()
    with pytest.raises(StoreError, match="rollout on gpu-2"), soon(local, wait_s=0.3):
        pass
    assert 0.3 <= time.monotonic() - began < 5


def test_a_dead_holders_lease_ends(store: ObjectStore) -> None:
    put(store, claim(age_s=1))
    with soon(store) as held:
        held.check()


def test_a_lease_that_only_looks_old_because_clocks_differ_is_not_taken(local: ObjectStore) -> None:
    """The holder's clock is an hour behind; that it renews tells that it lives."""
    put(local, claim(age_s=3600, ttl_s=2))
    beat = threading.Timer(0.1, lambda: put(local, claim(age_s=3599, ttl_s=2)))
    beat.start()
    with pytest.raises(StoreError, match="rollout on gpu-2"), soon(local):
        pass
    beat.join()


def test_a_holder_renews_for_as_long_as_it_works(local: ObjectStore) -> None:
    with soon(local, ttl_s=0.4) as held:
        taken = held.claim.renewed_at
        wait_until(lambda: Claim.model_validate_json(local.read(KEY)).renewed_at > taken + 1)
        held.check()


def test_a_holder_that_lost_its_lease_notices_and_leaves_it_to_the_other(store: ObjectStore) -> None:
    with soon(store, ttl_s=60) as held:
        other = claim(age_s=0, ttl_s=60)
        put(store, other)
        with pytest.raises(StoreError, match=r"gpu-1 has lost this lease: rollout on gpu-2 has it"):
            held.check()
        with pytest.raises(StoreError, match="lost this lease"):
            held.renew()
        assert store.read(KEY) == other.model_dump_json().encode()
    assert store.read(KEY) == other.model_dump_json().encode()


def test_a_lease_that_somebody_deleted_is_lost(local: ObjectStore) -> None:
    with soon(local, ttl_s=60) as held:
        local.delete(KEY)
        with pytest.raises(StoreError, match=r"lost this lease: it is gone"):
            held.renew()
        assert not local.exists(KEY)


def test_a_store_that_fails_for_a_while_does_not_end_a_lease(
    local: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with soon(local, ttl_s=0.4) as held:
        with monkeypatch.context() as broken:
            broken.setattr(local, "read", lambda _key: (_ for _ in ()).throw(StoreError("does not answer")))
            with pytest.raises(StoreError, match="does not answer"):
                held.check()
            time.sleep(0.3)  # some renewals, which fail
        before = held.claim.renewed_at
        wait_until(lambda: held.claim.renewed_at > before)
        held.check()


def test_a_store_that_vanished_makes_no_lease_and_nothing_else(local: ObjectStore, tmp_path: Path) -> None:
    with soon(local, ttl_s=60) as held:
        (tmp_path / "store").rename(tmp_path / "elsewhere")
        with pytest.raises(StoreError, match="lost this lease"):
            held.renew()
    with pytest.raises(StoreError, match="there is no directory"), soon(local):
        pass
    assert not (tmp_path / "store").exists()


def test_what_is_no_lease_is_named_and_left_alone(local: ObjectStore) -> None:
    local.write(KEY, b"{}")
    with pytest.raises(StoreError, match=r"leases/fleet\.json is no lease.*delete it"), soon(local):
        pass
    assert local.read(KEY) == b"{}"


def test_a_taker_that_was_held_up_gives_a_holder_the_time_to_show_itself(
    local: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It saw no lease, slept, and wrote over one taken meanwhile: that one renews, and stays."""
    first = soon(local, ttl_s=2)
    write, held = local.write, []

    def late(key: str, data: bytes) -> None:
        if not held:
            monkeypatch.setattr(local, "write", write)
            held.append(first.__enter__())
            time.sleep(0.1)
            write(key, data)
            # read before it was written over, and written after that
            threading.Timer(0.3, lambda: put(local, held[0].claim)).start()

    monkeypatch.setattr(local, "write", late)
    with pytest.raises(StoreError, match="has this since"), soon(local, ttl_s=2):
        pass
    held[0].check()
    first.__exit__(None, None, None)


def _times(said: str) -> Iterator[float]:
    return (float(line.split()[1]) for line in said.splitlines() if line.startswith(("in", "out")))


def test_of_real_processes_at_once_one_gets_it_and_the_other_is_told(store: ObjectStore) -> None:
    takers = [process(store, f"taker {number}", stay_s=4) for number in range(2)]
    begin(*takers)
    ends = sorted(taker.communicate(timeout=300)[0].splitlines()[-1] for taker in takers)
    assert [end.split()[0] for end in ends] == ["out", "refused"]
    # told so at once; or, where the other's write was held up and came over its own, before it did anything
    assert re.search(r"taker \d has (this since|lost this lease: taker \d has it)", ends[1])


def test_real_processes_that_wait_have_it_one_after_the_other(local: ObjectStore) -> None:
    takers = [process(local, f"taker {number}", wait_s=60, stay_s=0.3) for number in range(3)]
    begin(*takers)
    turns = sorted(tuple(_times(taker.communicate(timeout=300)[0])) for taker in takers)
    assert all(len(turn) == 2 for turn in turns)
    assert all(before[1] <= after[0] for before, after in pairwise(turns))


def test_a_holder_that_was_killed_is_followed_within_its_time(local: ObjectStore) -> None:
    killed = process(local, "killed", stay_s=60, ttl_s=2)
    begin(killed)
    assert killed.stdout and killed.stdout.readline().startswith("in")
    with pytest.raises(StoreError, match="killed has this since"), soon(local):
        pass
    killed.send_signal(signal.SIGKILL)
    killed.wait(10)
    killed.stdout.close()
    assert killed.stdin
    killed.stdin.close()
    with soon(local, wait_s=30):
        pass


IN_A_FOLDER = """
import pathlib, sys, time
from storage.lease import exclusively
with exclusively(pathlib.Path(sys.argv[1])):
    print("in", flush=True)
    time.sleep(60)
"""


def test_a_folder_belongs_to_one_process_and_the_other_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "experiment"
    command = [sys.executable, "-c", IN_A_FOLDER, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout and other.stdout.readline() == "in\n"
        with (
            pytest.raises(InputError, match=rf"{folder} is in use by process {other.pid} "),
            exclusively(folder),
        ):
            pass
        other.kill()
        other.wait(10)
        with exclusively(folder):
            assert (folder / ".lock").read_text() == f"{os.getpid()}\n"


def test_a_folder_is_free_again_after_the_block_and_not_taken_twice_in_one_process(tmp_path: Path) -> None:
    for _ in range(2):
        with exclusively(tmp_path):
            with pytest.raises(InputError, match=f"process {os.getpid()} "), exclusively(tmp_path):
                pass
            with exclusively(tmp_path / "another"):
                pass


def test_a_folder_that_can_not_be_made_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with (
        pytest.raises(StoreError, match=r"can't write .*file/folder"),
        exclusively(tmp_path / "file" / "folder"),
    ):
        pass
