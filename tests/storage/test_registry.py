"""The registry: a release is whole, never changes, and arrives as it left; the ledger says who runs what."""

import json
import shutil

import pytest

from storage.errors import InputError, MissingObject, StoreError
from storage.opening import open_store
from storage.registry import Registry


@pytest.fixture
def registry(tmp_path) -> Registry:
    return Registry(open_store(tmp_path / "store"))


def test_a_published_release_arrives_as_it_left(registry, tiny_releases, tmp_path):
    old, new = (registry.publish(release) for release in tiny_releases)
    assert registry.versions() == sorted([old, new])
    fetched = registry.fetch(new, tmp_path / "here")
    assert fetched.name == new
    for path in tiny_releases[1].iterdir():
        assert (fetched / path.name).read_bytes() == path.read_bytes()
    assert registry.manifest(new)["version"] == new


def test_publishing_again_changes_nothing_and_other_content_is_refused(registry, tiny_releases, tmp_path):
    registry.publish(tiny_releases[0])
    assert registry.publish(tiny_releases[0]) == tiny_releases[0].name
    other = tmp_path / tiny_releases[0].name
    shutil.copytree(tiny_releases[0], other)
    manifest = json.loads((other / "manifest.json").read_text())
    (other / "manifest.json").write_text(json.dumps({**manifest, "metrics": {"accuracy": 1.0}}))
    with pytest.raises(StoreError, match=r"never changes"):
        registry.publish(other)
    assert registry.manifest(other.name) == json.loads((tiny_releases[0] / "manifest.json").read_text())


def test_a_release_whose_upload_broke_off_is_not_there(registry, tiny_releases, tmp_path):
    half = tmp_path / "store" / "models" / tiny_releases[0].name
    half.mkdir(parents=True)
    shutil.copy(tiny_releases[0] / "model_int8.tflite", half)
    assert registry.versions() == []
    with pytest.raises(MissingObject, match=r"there is no release .*last ones: none"):
        registry.fetch(tiny_releases[0].name, tmp_path / "here")


def test_a_release_that_rotted_in_the_store_is_refused_and_leaves_nothing(registry, tiny_releases, tmp_path):
    version = registry.publish(tiny_releases[0])
    (tmp_path / "store/models" / version / "golden.npz").write_bytes(b"rot")
    with pytest.raises(StoreError, match=r"golden\.npz differ"):
        registry.fetch(version, tmp_path / "here")
    assert list((tmp_path / "here").iterdir()) == []


def test_a_copy_that_rotted_here_is_fetched_anew(registry, tiny_releases, tmp_path):
    version = registry.publish(tiny_releases[0])
    model = registry.fetch(version, tmp_path / "here") / "model_int8.tflite"
    model.write_bytes(b"rot")
    registry.fetch(version, tmp_path / "here")
    assert model.read_bytes() == (tiny_releases[0] / "model_int8.tflite").read_bytes()


def test_a_release_directory_that_contradicts_its_manifest_is_not_published(
    registry, tiny_releases, tmp_path
):
    broken = tmp_path / tiny_releases[0].name
    shutil.copytree(tiny_releases[0], broken)
    (broken / "golden.npz").unlink()
    with pytest.raises(InputError, match=r"golden\.npz differ"):
        registry.publish(broken)
    assert registry.versions() == []


def test_a_report_may_be_attached_but_no_part_of_the_release_replaced(registry, tiny_releases, tmp_path):
    version = registry.publish(tiny_releases[0])
    for name in ("report.html", "model_int8.tflite", "manifest.json"):
        (tmp_path / name).write_text("new")
    registry.attach(version, tmp_path / "report.html")
    assert (tmp_path / "store/models" / version / "report.html").read_text() == "new"
    for name in ("model_int8.tflite", "manifest.json"):
        with pytest.raises(InputError, match=r"never changes"):
            registry.attach(version, tmp_path / name)


def test_the_champion_is_what_was_promoted_last_and_knows_the_one_before(registry, tiny_releases):
    assert registry.champion() is None
    first, second = (registry.publish(release) for release in tiny_releases)
    registry.promote(first)
    registry.promote(second, "better")
    registry.promote(second, "again")
    champion = registry.champion()
    assert (champion["version"], champion["previous"], champion["reason"]) == (second, first, "better")
    with pytest.raises(MissingObject):
        registry.promote("20300101-000000-00000000")
    assert registry.champion() == champion


def test_the_ledger_has_the_last_word_on_each_device(registry):
    registry.record_device("pi-1", {"outcome": "failed"})
    registry.record_device("pi-1", {"outcome": "updated"})
    registry.record_device("pi-2", {"outcome": "unreachable"})
    registry.record_benchmark("20300101-000000-00000000", "pi-1", {"p95_ms": 1.5})
    assert registry.devices() == {"pi-1": {"outcome": "updated"}, "pi-2": {"outcome": "unreachable"}}


@pytest.mark.parametrize("version", ["../champion", "20260101-000000", "latest"])
def test_a_version_that_is_none_says_how_one_looks(registry, version):
    with pytest.raises(InputError, match=r"expected one like"):
        registry.manifest(version)
