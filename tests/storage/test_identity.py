"""A run knows the store that it began with again, and takes no other one for it."""

from pathlib import Path

import pytest

from storage import identity
from storage.errors import InputError, StoreError
from storage.identity import MARKER, confirm_identity, store_identity
from storage.objects import ObjectStore
from storage.opening import open_store


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "_SETTLE_S", 0.01)


@pytest.fixture(params=["directory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    (tmp_path / "store").mkdir()
    return open_store(
        tmp_path / "store" if request.param == "directory" else request.getfixturevalue("s3_uri")
    )


@pytest.mark.parametrize("key", ["datasets/fer2013/fer2013.csv", "models/champion.json"])
def test_a_store_with_data_or_releases_gets_an_identity_once_and_keeps_it(
    store: ObjectStore, key: str
) -> None:
    store.write(key, b"x")
    first = store_identity(store)
    assert len(first) == 32 and store_identity(store) == first
    confirm_identity(store, first)


def test_data_may_lie_in_folders_of_its_own(store: ObjectStore) -> None:
    store.write("faces/1.jpg", b"x")
    with pytest.raises(InputError, match=r"is it mounted.*datasets/ or models/"):
        store_identity(store)
    assert store_identity(store, ["pictures", "faces"])


@pytest.mark.parametrize("key", ["prepared/ab/metadata.json", "experiments/1/report.html", "fleet/pi.json"])
def test_what_runs_leave_behind_makes_no_store(store: ObjectStore, key: str) -> None:
    store.write(key, b"x")
    with pytest.raises(InputError, match=r"is it mounted.*datasets/fer2013/fer2013\.csv"):
        store_identity(store)
    assert [info.key for info in store.list()] == [key]


def test_an_empty_mount_point_gets_no_identity(store: ObjectStore) -> None:
    with pytest.raises(InputError, match="is it mounted"):
        store_identity(store)
    assert store.list() == []


def test_two_stores_differ(tmp_path: Path) -> None:
    found: set[str] = set()
    for name in ("a", "b"):
        (tmp_path / name / "datasets").mkdir(parents=True)
        (tmp_path / name / "datasets" / "1.jpg").write_bytes(b"x")
        found.add(store_identity(open_store(tmp_path / name)))
    assert len(found) == 2


def test_of_two_first_runs_at_once_both_go_by_the_marker_that_stays(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write("datasets/1.jpg", b"x")
    monkeypatch.setattr(identity.time, "sleep", lambda _s: store.write(MARKER, b'{"id": "the other\'s"}'))
    assert store_identity(store) == "the other's"


def test_a_store_without_its_marker_is_another_one(store: ObjectStore) -> None:
    store.write("datasets/1.jpg", b"x")
    taken = store_identity(store)
    store.delete(MARKER)
    with pytest.raises(StoreError, match=r"marker store\.json is gone.*unmounted.*nothing was written"):
        confirm_identity(store, taken)


def test_a_store_with_another_marker_is_another_one_and_both_are_named(store: ObjectStore) -> None:
    store.write(MARKER, b'{"id": "new"}')
    with pytest.raises(StoreError, match=r"says new, expected old"):
        confirm_identity(store, "old")


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"id": ""}', b'{"id": 7}', b"\xff"])
def test_a_marker_that_says_nothing_is_an_error_and_not_replaced(store: ObjectStore, content: bytes) -> None:
    store.write("datasets/1.jpg", b"x")
    store.write(MARKER, content)
    with pytest.raises(StoreError, match=r"store\.json can't be read.*restore it"):
        store_identity(store)
    assert store.read(MARKER) == content


def test_a_directory_that_is_not_there_is_not_made_anew(tmp_path: Path) -> None:
    gone = open_store(tmp_path / "gone")
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(StoreError, match=r"there is no directory .*gone; mount or move it back"):
        gone.write("models/champion.json", b"{}")
    with pytest.raises(StoreError, match="there is no directory"):
        gone.upload(tmp_path / "file", "models/a/report.html")
    with pytest.raises(InputError, match="is it mounted"):
        store_identity(gone)
    assert not (tmp_path / "gone").exists()
