"""A manifest is what a release says of itself: read whole, or refused with what is wrong."""

import json
import shutil
from pathlib import Path

import pytest
from pydantic import ValidationError

from storage.errors import MissingObject, StoreError
from storage.manifest import FileFacts, Manifest


@pytest.fixture
def facts(tiny_releases: tuple[Path, Path]) -> dict[str, object]:
    return json.loads((tiny_releases[0] / "manifest.json").read_text())


def parse(facts: dict[str, object], **changes: object) -> Manifest:
    content = json.dumps({**facts, **changes}).encode()
    return Manifest.parse(content, "s3://b/models/x/manifest.json", str(facts["version"]))


def test_a_manifest_is_the_same_after_reading_and_writing(tiny_releases: tuple[Path, Path]) -> None:
    manifest = Manifest.read(tiny_releases[0])
    assert manifest.content() == (tiny_releases[0] / "manifest.json").read_bytes()
    assert json.loads(manifest.content())["schema"] == 1


def test_what_a_release_says_can_not_be_changed_by_a_reader(tiny_releases: tuple[Path, Path]) -> None:
    manifest = Manifest.read(tiny_releases[0])
    parts = (manifest.golden, manifest.input, manifest.files[manifest.model])
    for part, name in zip((manifest, *parts), ("version", "images", "scale", "bytes"), strict=True):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(part, name, 7)


def test_what_a_newer_version_adds_is_passed_over(facts: dict[str, object]) -> None:
    golden = {**dict(facts["golden"]), "drawn": True}  # type: ignore[arg-type]
    assert parse(facts, licence="Apache-2.0", golden=golden) == parse(facts)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"schema": 2}, r"schema: Input should be 1"),
        ({"version": "latest"}, r"version: "),
        ({"version": "20300101-000000-00000000\n"}, r"version: "),
        ({"model": "../../escaped"}, r"model: "),
        ({"model": ".hidden"}, r"model: "),
        ({"model": "other.tflite"}, r"other\.tflite is not one of its files"),
        ({"files": {}}, r"model_int8\.tflite is not one of its files"),
        ({"metrics": {"accuracy": "good"}}, r"metrics\.accuracy"),
        ({"max_latency_ms": None}, r"max_latency_ms: "),
        ({"experiment_id": None}, r"experiment_id: "),
    ],
)
def test_a_manifest_that_can_not_be_used_says_where_and_why(
    facts: dict[str, object], changes: dict[str, object], said: str
) -> None:
    with pytest.raises(
        StoreError, match=rf"s3://b/models/x/manifest\.json is no release's manifest: .*{said}"
    ):
        parse(facts, **changes)


@pytest.mark.parametrize("name", ["manifest.json", "manifest.sig", "a/b", "..", ""])
def test_a_file_may_not_be_named_like_the_manifest_or_lie_elsewhere(
    facts: dict[str, object], name: str
) -> None:
    files = {**dict(facts["files"]), name: {"sha256": "0" * 64, "bytes": 1}}  # type: ignore[arg-type]
    with pytest.raises(StoreError, match="is no release's manifest"):
        parse(facts, files=files)


@pytest.mark.parametrize("sha256", ["", "0" * 63, "0" * 65, "G" * 64])
def test_a_hash_that_is_none_is_refused(facts: dict[str, object], sha256: str) -> None:
    files = {**dict(facts["files"]), "golden.npz": {"sha256": sha256, "bytes": 1}}  # type: ignore[arg-type]
    with pytest.raises(StoreError, match=r"files\.golden\.npz\.sha256"):
        parse(facts, files=files)


def test_the_folder_must_be_named_by_the_version(tiny_releases: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.copytree(tiny_releases[0], tmp_path / "other")
    with pytest.raises(StoreError, match=rf"is the manifest of {tiny_releases[0].name}, expected other"):
        Manifest.read(tmp_path / "other")


def test_a_folder_without_a_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingObject, match=r"manifest\.json: there is no such object"):
        Manifest.read(tmp_path)


def test_files_that_are_absent_cut_off_or_changed_are_damaged(
    tiny_releases: tuple[Path, Path], tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_releases[0], copy)
    manifest = Manifest.read(tiny_releases[0])
    assert manifest.damaged(copy) == []
    golden, model = copy / "golden.npz", copy / "model_int8.tflite"
    content = model.read_bytes()
    model.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert manifest.damaged(copy) == ["model_int8.tflite"]
    model.write_bytes(content[:-1])
    golden.unlink()
    assert manifest.damaged(copy) == ["golden.npz", "model_int8.tflite"]
    golden.mkdir()
    model.write_bytes(content)
    assert manifest.damaged(copy) == ["golden.npz"]


def test_a_file_of_the_stated_hash_and_another_size_does_not_exist(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    facts = FileFacts.of(tmp_path / "a")
    assert facts.bytes == 3 and facts.fits(tmp_path / "a")
    assert facts.sha256 == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert not facts.model_copy(update={"bytes": 4}).fits(tmp_path / "a")
