"""The registry: a release is whole, never changes, and arrives as it left; the ledger says who runs what."""

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import ValidationError

from storage.errors import InputError, MissingObject, StoreError
from storage.manifest import Manifest
from storage.objects import ObjectStore
from storage.opening import open_store
from storage.registry import Registry
from tests.releases import new_store

ID = "0123456789abcdef"
"""The identity of `new_store`'s stores."""


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return new_store(tmp_path / "store")


@pytest.fixture
def registry(store: ObjectStore) -> Registry:
    return Registry(store)


@pytest.fixture
def published(registry: Registry, tiny_releases: tuple[Path, Path]) -> tuple[str, str]:
    first, second = (registry.publish(release, store_id=ID) for release in tiny_releases)
    return first, second


def changed(release: Path, folder: Path, **fields: object) -> Path:
    """A copy of a release whose manifest says something else."""
    other = folder / release.name
    shutil.copytree(release, other)
    manifest = json.loads((other / "manifest.json").read_text())
    (other / "manifest.json").write_text(json.dumps({**manifest, **fields}))
    return other


def test_a_published_release_arrives_as_it_left(
    registry: Registry, published: tuple[str, str], tiny_releases: tuple[Path, Path], tmp_path: Path
) -> None:
    assert registry.versions() == list(published)
    fetched = registry.fetch(published[1], tmp_path / "new" / "here")
    assert fetched == tmp_path / "new" / "here" / published[1]
    for path in tiny_releases[1].iterdir():
        assert (fetched / path.name).read_bytes() == path.read_bytes()
    assert registry.manifest(published[1]) == Manifest.read(tiny_releases[1])
    assert registry.uri(published[1]) == f"{tmp_path}/store/models/{published[1]}"


def test_a_signature_travels_with_its_release(
    registry: Registry, tiny_releases: tuple[Path, Path], tmp_path: Path
) -> None:
    signed = tmp_path / tiny_releases[0].name
    shutil.copytree(tiny_releases[0], signed)
    (signed / "manifest.sig").write_text("signed")
    (signed / "notes.txt").write_text("not named in the manifest")
    version = registry.publish(signed, store_id=ID)
    fetched = registry.fetch(version, tmp_path / "here")
    assert {path.name for path in fetched.iterdir()} == {
        "manifest.json", "manifest.sig", "model_int8.tflite", "golden.npz"
    }  # fmt: skip
    assert (fetched / "manifest.sig").read_text() == "signed"


def test_the_manifest_is_written_last_so_that_a_broken_upload_is_no_release(
    registry: Registry, store: ObjectStore, tiny_releases: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tiny_releases[0] / "manifest.sig").write_text("signed")
    order: list[str] = []
    upload = store.upload

    def noted(path: Path, key: str) -> None:
        order.append(path.name)
        upload(path, key)

    monkeypatch.setattr(store, "upload", noted)
    try:
        registry.publish(tiny_releases[0], store_id=ID)
    finally:
        (tiny_releases[0] / "manifest.sig").unlink()
    assert order[-2:] == ["manifest.sig", "manifest.json"] and len(order) == 4


def test_publishing_again_writes_nothing_and_other_content_is_refused(
    registry: Registry, tiny_releases: tuple[Path, Path], tmp_path: Path
) -> None:
    assert registry.publish(tiny_releases[0], store_id=ID) == tiny_releases[0].name
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*")}
    assert registry.publish(tiny_releases[0], store_id=ID) == tiny_releases[0].name
    other = changed(tiny_releases[0], tmp_path, metrics={"accuracy": 1.0})
    with pytest.raises(StoreError, match=rf"models/{other.name} exists with other content.*never changes"):
        registry.publish(other, store_id=ID)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*")} == before


def test_a_release_whose_upload_broke_off_is_not_there(
    registry: Registry, tiny_releases: tuple[Path, Path], tmp_path: Path
) -> None:
    half = tmp_path / "store" / "models" / tiny_releases[0].name
    half.mkdir(parents=True)
    shutil.copy(tiny_releases[0] / "model_int8.tflite", half)
    assert registry.versions() == []
    with pytest.raises(MissingObject, match=r"there is no release .*store; last ones: none"):
        registry.fetch(tiny_releases[0].name, tmp_path / "here")


def test_a_file_named_like_a_manifest_elsewhere_is_no_release(
    registry: Registry, store: ObjectStore, published: tuple[str, str]
) -> None:
    for key in ("models/manifest.json", f"models/{published[0]}/old/manifest.json", "models/x/other.json"):
        store.write(key, b"{}")
    assert registry.versions() == list(published)


def test_a_release_that_is_not_there_is_named_with_the_last_five(
    registry: Registry, store: ObjectStore, published: tuple[str, str]
) -> None:
    more = [f"2026030{day}-000000-00000000" for day in range(1, 5)]
    for version in more:
        store.write(f"models/{version}/manifest.json", b"{}")
    with pytest.raises(MissingObject) as caught:
        registry.manifest("20300101-000000-00000000")
    assert str(caught.value).endswith(f"last ones: {', '.join([published[1], *more])}")


def test_a_release_that_rotted_in_the_store_is_refused_and_leaves_nothing(
    registry: Registry, published: tuple[str, str], tmp_path: Path
) -> None:
    (tmp_path / "store/models" / published[0] / "golden.npz").write_bytes(b"rot")
    with pytest.raises(StoreError, match=rf"models/{published[0]}: golden\.npz differ from the manifest"):
        registry.fetch(published[0], tmp_path / "here")
    assert list((tmp_path / "here").iterdir()) == []


def test_a_release_that_rotted_in_the_store_leaves_the_copy_that_is_here(
    registry: Registry, published: tuple[str, str], tmp_path: Path
) -> None:
    here = registry.fetch(published[0], tmp_path / "here")
    (tmp_path / "store/models" / published[0] / "golden.npz").write_bytes(b"rot")
    assert registry.fetch(published[0], tmp_path / "here") == here
    (here / "model_int8.tflite").write_bytes(b"rot")
    with pytest.raises(StoreError, match="differ"):
        registry.fetch(published[0], tmp_path / "here")
    assert (here / "model_int8.tflite").read_bytes() == b"rot"


@pytest.mark.parametrize("name", ["model_int8.tflite", "manifest.json"])
def test_a_copy_that_rotted_here_is_fetched_anew_and_a_whole_one_is_kept(
    registry: Registry,
    published: tuple[str, str],
    tiny_releases: tuple[Path, Path],
    tmp_path: Path,
    name: str,
) -> None:
    file = registry.fetch(published[0], tmp_path / "here") / name
    inode = file.stat().st_ino
    registry.fetch(published[0], tmp_path / "here")
    assert file.stat().st_ino == inode
    file.write_bytes(b"rot")
    registry.fetch(published[0], tmp_path / "here")
    assert file.read_bytes() == (tiny_releases[0] / name).read_bytes()


def test_the_manifest_of_another_release_is_not_taken_for_it(
    registry: Registry, store: ObjectStore, published: tuple[str, str], tmp_path: Path
) -> None:
    first, second = published
    store.write(f"models/{first}/manifest.json", store.read(f"models/{second}/manifest.json"))
    said = rf"models/{first}/manifest\.json is the manifest of {second}, expected {first}"
    with pytest.raises(StoreError, match=said):
        registry.fetch(first, tmp_path / "here")
    with pytest.raises(StoreError, match=said):
        registry.promote(first, expected=None, store_id=ID)
    assert registry.champion() is None


def test_a_folder_with_the_manifest_of_another_release_is_not_published(
    registry: Registry, tiny_releases: tuple[Path, Path], tmp_path: Path
) -> None:
    other = changed(tiny_releases[0], tmp_path, version=tiny_releases[1].name)
    with pytest.raises(StoreError, match=rf"manifest of {tiny_releases[1].name}, expected {other.name}"):
        registry.publish(other, store_id=ID)
    assert registry.versions() == []


@pytest.mark.parametrize("content", [b"", b"{}", b"not JSON", b'{"schema": 2}'])
def test_garbage_in_the_place_of_a_manifest_is_one_clear_error(
    registry: Registry, store: ObjectStore, published: tuple[str, str], content: bytes
) -> None:
    store.write(f"models/{published[0]}/manifest.json", content)
    with pytest.raises(StoreError, match=r"manifest\.json is no release's manifest: .*publish it anew"):
        registry.manifest(published[0])


def test_a_release_directory_that_contradicts_its_manifest_is_not_published(
    registry: Registry, tiny_releases: tuple[Path, Path], tmp_path: Path
) -> None:
    broken = tmp_path / tiny_releases[0].name
    shutil.copytree(tiny_releases[0], broken)
    (broken / "golden.npz").unlink()
    with pytest.raises(InputError, match=r"golden\.npz differ"):
        registry.publish(broken, store_id=ID)
    assert registry.versions() == []


def test_a_report_may_be_attached_but_no_part_of_the_release_replaced(
    registry: Registry, published: tuple[str, str], tmp_path: Path
) -> None:
    parts = ("model_int8.tflite", "golden.npz", "manifest.json", "manifest.sig")
    for name in ("report.html", *parts):
        (tmp_path / name).write_text("new")
    registry.attach(published[0], tmp_path / "report.html")
    assert (tmp_path / "store/models" / published[0] / "report.html").read_text() == "new"
    for name in parts:
        with pytest.raises(InputError, match=rf"{name} is a part of .*never changes"):
            registry.attach(published[0], tmp_path / name)


def test_the_champion_is_what_was_promoted_last_and_knows_the_one_before(
    registry: Registry, published: tuple[str, str]
) -> None:
    first, second = published
    assert registry.champion() is None
    champion = registry.promote(first, expected=None, store_id=ID)
    assert registry.champion() == champion
    assert (champion.version, champion.previous, champion.anchor) == (first, None, first)
    assert champion.promoted_at.utcoffset() is not None and champion.promoted_at.microsecond == 0
    champion = registry.promote(second, expected=first, store_id=ID)
    assert registry.champion() == champion
    assert (champion.version, champion.previous, champion.anchor) == (second, first, first)


def test_promoting_the_champion_again_changes_nothing_whatever_was_expected(
    registry: Registry, store: ObjectStore, published: tuple[str, str]
) -> None:
    champion = registry.promote(published[0], expected=None, store_id=ID)
    before = store.load("models/champion.json")
    assert registry.promote(published[0], expected=None, store_id=ID) == champion
    assert registry.promote(published[0], expected=published[1], store_id=ID) == champion
    assert store.load("models/champion.json") == before


def test_the_best_release_may_be_another_one_than_before(
    registry: Registry, published: tuple[str, str]
) -> None:
    first, second = published
    registry.promote(first, expected=None, store_id=ID)
    with pytest.raises(MissingObject, match="there is no release 20300101"):
        registry.promote(second, expected=first, store_id=ID, anchor="20300101-000000-00000000")
    assert registry.promote(second, expected=first, store_id=ID, anchor=second).anchor == second


def test_a_release_that_is_not_there_does_not_become_champion(
    registry: Registry, published: tuple[str, str]
) -> None:
    with pytest.raises(MissingObject, match="there is no release"):
        registry.promote("20300101-000000-00000000", expected=None, store_id=ID)
    assert registry.champion() is None


def test_a_champion_that_another_run_made_meanwhile_is_not_replaced(
    registry: Registry, store: ObjectStore, published: tuple[str, str]
) -> None:
    first, second = published
    with pytest.raises(StoreError, match=rf"the champion is none, expected {second}: {first} was not pro"):
        registry.promote(first, expected=second, store_id=ID)
    assert registry.champion() is None
    registry.promote(first, expected=None, store_id=ID)
    before = store.load("models/champion.json")
    with pytest.raises(StoreError, match=rf"the champion is {first}, expected none: {second} was not promo"):
        registry.promote(second, expected=None, store_id=ID)
    assert store.load("models/champion.json") == before


def test_of_two_promotions_at_once_the_loser_says_so(
    registry: Registry, store: ObjectStore, published: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = published
    write = store.write

    def with_a_rival(key: str, data: bytes) -> None:
        write(key, data)
        write(key, data.replace(first.encode(), second.encode()))

    monkeypatch.setattr(store, "write", with_a_rival)
    with pytest.raises(
        StoreError, match=rf"the champion is {second}, expected {first}: another run promoted"
    ):
        registry.promote(first, expected=None, store_id=ID)


def test_a_champion_of_older_versions_of_the_code_is_read(
    registry: Registry, store: ObjectStore, published: tuple[str, str]
) -> None:
    old = {"version": published[0], "promoted_at": "2026-01-01T00:00:00+00:00", "reason": "better"}
    store.write("models/champion.json", json.dumps(old).encode())
    champion = registry.champion()
    assert champion and (champion.version, champion.previous, champion.anchor) == (published[0], None, None)
    with pytest.raises(ValidationError, match="frozen"):
        champion.version = published[1]  # pyright: ignore[reportAttributeAccessIssue]
    assert registry.promote(published[1], expected=published[0], store_id=ID).anchor == published[1]


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"version": "../x", "promoted_at": "2026-01-01"}'])
def test_garbage_in_the_place_of_the_champion_is_one_clear_error(
    registry: Registry, store: ObjectStore, content: bytes
) -> None:
    store.write("models/champion.json", content)
    with pytest.raises(StoreError, match=r"models/champion\.json names no champion: .*restore it"):
        registry.champion()


def test_a_store_that_was_renamed_during_a_run_gets_no_release_and_no_champion_and_nothing_is_made(
    registry: Registry, published: tuple[str, str], tiny_releases: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "store").rename(tmp_path / "elsewhere")
    with pytest.raises(
        StoreError, match=r"not the store that this run began with.*marker store\.json is gone"
    ):
        registry.publish(tiny_releases[0], store_id=ID)
    with pytest.raises(StoreError, match=r"not the store that this run began with"):
        registry.promote(published[0], expected=None, store_id=ID)
    with pytest.raises(StoreError, match=r"there is no directory"):
        registry.record_device("pi-1", {"outcome": "failed"})
    assert not (tmp_path / "store").exists()
    (tmp_path / "elsewhere").rename(tmp_path / "store")
    assert registry.promote(published[0], expected=None, store_id=ID).version == published[0]


def test_another_store_in_the_same_place_gets_no_release_and_no_champion(
    registry: Registry, published: tuple[str, str], tiny_releases: tuple[Path, Path], tmp_path: Path
) -> None:
    for release in tiny_releases:
        with pytest.raises(StoreError, match=r"not the store that this run began with.*expected another"):
            registry.publish(release, store_id="another")
        with pytest.raises(StoreError, match=r"not the store that this run began with"):
            registry.promote(release.name, expected=None, store_id="another")
    assert registry.champion() is None
    other = open_store(new_store(tmp_path / "other").uri)
    with pytest.raises(StoreError, match="expected another"):
        Registry(other).publish(tiny_releases[0], store_id="another")
    assert [info.key for info in other.list()] == ["store.json"]


def test_the_ledger_has_the_last_word_on_each_device(registry: Registry, store: ObjectStore) -> None:
    registry.record_device("pi-1", {"outcome": "failed"})
    registry.record_device("pi-1", {"outcome": "updated"})
    registry.record_device("pi-2", {"outcome": "unreachable"})
    at = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
    registry.record_benchmark("20300101-000000-00000000", "pi-1", at, {"p95_ms": 1.5})
    assert registry.devices() == {"pi-1": {"outcome": "updated"}, "pi-2": {"outcome": "unreachable"}}
    assert registry.device("pi-1") == {"outcome": "updated"} and registry.device("pi-3") is None
    figures = json.loads(store.read("fleet/benchmarks/pi-1/20300101-000000-00000000/20300102-030405.json"))
    assert figures == {"p95_ms": 1.5}


def test_figures_that_are_no_numbers_are_not_written(registry: Registry, store: ObjectStore) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        registry.record_device("pi-1", {"p95_ms": float("nan")})
    assert store.list("fleet") == []


@pytest.mark.parametrize("content", [b"", b"7", b"half of {"])
def test_garbage_in_the_ledger_is_one_clear_error(
    registry: Registry, store: ObjectStore, content: bytes
) -> None:
    store.write("fleet/pi-1.json", content)
    with pytest.raises(StoreError, match=r"fleet/pi-1\.json can't be read.*delete it"):
        registry.device("pi-1")
    assert registry.devices() == {"pi-1": {}}, "and hides no other device"


@pytest.mark.parametrize(
    "version",
    ["../champion", "20260101-000000", "latest", "20300101-000000-00000000\n", "x20300101-000000-00000000"],
)
def test_a_version_that_is_none_says_how_one_looks(registry: Registry, version: str) -> None:
    for ask in (
        registry.manifest,
        lambda name: registry.record_benchmark(name, "pi-1", datetime.now(UTC), {}),
    ):
        with pytest.raises(InputError, match=r"expected one like"):
            ask(version)
