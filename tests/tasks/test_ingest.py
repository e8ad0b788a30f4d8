"""Ingest over both backends: what is data, what is fetched, and what a change, a kill or rot leads to."""

import io
import itertools
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import unicodedata
from pathlib import Path

import pytest
from pydantic import ValidationError

import storage.local
from storage.errors import InputError, StoreError
from storage.local import LocalStore
from storage.objects import ObjectStore
from storage.opening import open_store
from tasks.ingest import IngestConfig, Source, blob_path, fetch, ingest
from tests.releases import new_store

CUSTOM = Source(name="custom", prefix="datasets/custom")
FER = Source(name="fer2013", prefix="datasets/fer2013")
CSV = b"emotion,pixels,Usage\n0,1 2 3,Training\n"


@pytest.fixture(params=["directory", "s3"])
def store(request, tmp_path) -> ObjectStore:
    directory = request.param == "directory"
    return new_store(tmp_path / "store") if directory else open_store(request.getfixturevalue("s3_uri"))


@pytest.fixture
def local(tmp_path: Path) -> ObjectStore:
    return new_store(tmp_path / "store")


def config(*sources: Source, **settings) -> IngestConfig:
    return IngestConfig(sources=sources or (CUSTOM,), **settings)


def fill(store: ObjectStore, count: int = 6) -> None:
    for number in range(count):
        folder = ("happy", "sad")[number % 2]
        store.write(f"datasets/custom/{folder}/{number:03}.jpg", b"image %d" % number)


def contents(ingested) -> dict[str, bytes]:
    """Key to bytes over all sources, as the next stage reads them."""
    return {
        file.key: blob_path(ingested.blobs, file.sha256).read_bytes()
        for source in ingested.sources
        for file in source.files()
    }


def test_every_object_of_every_source_is_in_the_cache_under_its_hash(store, tmp_path):
    store.write("datasets/fer2013/fer2013.csv", CSV)
    store.write("datasets/fer2013/FER2013new.csv", b"votes")
    fill(store, 2)
    ingested = ingest(store, config(FER, CUSTOM), tmp_path)
    assert contents(ingested) == {
        "fer2013.csv": CSV,
        "FER2013new.csv": b"votes",
        "happy/000.jpg": b"image 0",
        "sad/001.jpg": b"image 1",
    }
    assert [source.format for source in ingested.sources] == ["fer2013_csv", "class_folders"]
    assert [source.votes for source in ingested.sources] == [True, False]
    assert ingested.sources[1].bytes == len(b"image 0image 1")


def test_a_second_run_fetches_nothing_and_has_the_same_fingerprint(store, tmp_path):
    fill(store)
    first = ingest(store, config(), tmp_path)
    second = ingest(store, config(), tmp_path)
    assert (first.sources[0].fetched, second.sources[0].fetched) == (6, 0)
    assert second.sources[0].reused == 6
    assert first.fingerprint == second.fingerprint


def test_only_new_and_changed_objects_are_fetched(store, tmp_path):
    fill(store)
    first = ingest(store, config(), tmp_path)
    store.write("datasets/custom/happy/000.jpg", b"IMAGE 0")
    store.write("datasets/custom/fatigue/new.png", b"new")
    store.delete("datasets/custom/sad/001.jpg")
    second = ingest(store, config(), tmp_path)
    assert second.sources[0].fetched == 2
    assert second.fingerprint != first.fingerprint
    found = contents(second)
    assert found["happy/000.jpg"] == b"IMAGE 0" and found["fatigue/new.png"] == b"new"
    assert "sad/001.jpg" not in found
    assert ingest(store, config(), tmp_path).fingerprint == second.fingerprint


def test_the_fingerprint_depends_on_content_and_names_not_on_the_store(store, tmp_path):
    fill(store)
    other = new_store(tmp_path / "elsewhere")
    fill(other)
    assert (
        ingest(store, config(), tmp_path / "a").fingerprint
        == ingest(other, config(), tmp_path / "b").fingerprint
    )
    other.write("datasets/custom/sad/twin.jpg", b"image 0")
    assert (
        ingest(store, config(), tmp_path / "a").fingerprint
        != ingest(other, config(), tmp_path / "b").fingerprint
    )


def test_another_store_under_the_same_source_name_is_fetched_anew(local, tmp_path):
    fill(local)
    other = new_store(tmp_path / "other")
    fill(other, 4)
    ingest(local, config(), tmp_path)
    assert ingest(other, config(), tmp_path).sources[0].fetched == 4


@pytest.mark.parametrize(
    "name", ["fer2013.csv", "fer2013.csv.gz", "FER2013.csv.xz", "icml_face_data.csv.zip"]
)
def test_a_fer2013_csv_is_recognised_packed_or_not(local, tmp_path, name):
    local.write(f"datasets/fer2013/{name}", CSV)
    (source,) = ingest(local, config(FER), tmp_path).sources
    assert source.format == "fer2013_csv"
    assert [file.key for file in source.files()] == [name]


@pytest.mark.parametrize(
    "key",
    [
        "happy/a.jpg",
        "train/Angry/a.JPEG",
        "test/surprise/deep/er/a.png",
        "FATIGUE/ü b.jpg",
        "Training/sad /a.jpg",
    ],
)
def test_class_folders_are_recognised_with_or_without_splits_in_any_case(local, tmp_path, key):
    local.write(f"datasets/custom/{key}", b"x")
    (source,) = ingest(local, config(), tmp_path).sources
    assert source.format == "class_folders"
    assert [file.key for file in source.files()] == [key]


def test_what_is_no_data_is_left_and_listed(local, tmp_path):
    fill(local, 1)
    strangers = [
        ".hidden.jpg", "happy/.DS_Store", "__MACOSX/sad/0.jpg", "happy/Thumbs.db", "README.md", "sad/a.txt",
    ]  # fmt: skip
    for key in strangers:
        local.write(f"datasets/custom/{key}", b"x")
    (source,) = ingest(local, config(), tmp_path).sources
    assert [file.key for file in source.files()] == ["happy/000.jpg"]
    assert sorted(source.ignored) == sorted(strangers) and source.ignored_count == len(strangers)


def test_an_image_that_is_a_link_to_nothing_or_a_pipe_is_one_without_content_until_it_is_mended(
    local, tmp_path
):
    fill(local, 1)
    sad = tmp_path / "store/datasets/custom/sad"
    sad.mkdir()
    (sad / "link.jpg").symlink_to(tmp_path / "moved.jpg")
    os.mkfifo(sad / "pipe.jpg")
    assert [info.key for info in local.list("datasets")] == ["datasets/custom/happy/000.jpg"]
    found = contents(ingest(local, config(), tmp_path))
    assert found == {"happy/000.jpg": b"image 0", "sad/link.jpg": b"", "sad/pipe.jpg": b""}
    (tmp_path / "moved.jpg").write_bytes(b"image")
    assert contents(ingest(local, config(), tmp_path))["sad/link.jpg"] == b"image"


@pytest.mark.parametrize("key", ["groups.csv", "more.tar"])
def test_what_is_no_image_is_refused_where_it_is_a_link_to_nothing(local, tmp_path, key):
    fill(local, 1)
    (tmp_path / "store/datasets/custom" / key).symlink_to(tmp_path / "moved")
    with pytest.raises(StoreError, match=rf"custom/{key}: expected a file, got a link to nothing"):
        ingest(local, config(), tmp_path)


def test_groups_csv_is_carried_along(local, tmp_path):
    fill(local, 1)
    local.write("datasets/custom/groups.csv", b"happy/000.jpg,person-1\n")
    assert contents(ingest(local, config(), tmp_path))["groups.csv"] == b"happy/000.jpg,person-1\n"


def test_an_image_in_an_unknown_class_folder_is_refused_with_the_known_ones(local, tmp_path):
    fill(local)
    local.write("datasets/custom/contempt/1.jpg", b"x")
    local.write("datasets/custom/bored/1.jpg", b"x")
    with pytest.raises(
        InputError, match=r"'bored' \(images: 1\), 'contempt' \(images: 1\); .*map each .*fatigue"
    ):
        ingest(local, config(), tmp_path)
    assert not (tmp_path / "manifests").exists()
    mapped = CUSTOM.model_copy(update={"mapping": {"Bored": "fatigue", "contempt": ""}})
    (source,) = ingest(local, config(mapped), tmp_path).sources
    assert "bored/1.jpg" in contents(ingest(local, config(mapped), tmp_path))
    assert source.left_out == 1 and source.vocabulary["bored"] == "fatigue"
    assert not any(file.key.startswith("contempt/") for file in source.files())


def test_a_folder_that_a_mac_wrote_with_its_accents_apart_is_the_one_that_is_mapped(local, tmp_path):
    local.write(f"datasets/custom/{unicodedata.normalize('NFD', 'tensão')}/1.jpg", b"x")
    mapped = CUSTOM.model_copy(update={"mapping": {unicodedata.normalize("NFC", "Tensão"): "stress"}})
    assert len(ingest(local, config(mapped), tmp_path).sources[0].files()) == 1


@pytest.mark.parametrize("above", ["fer2013", "archive/DATASET", "fer2013/train"])
def test_classes_that_lie_deeper_are_pointed_at(local, tmp_path, above):
    local.write(f"datasets/custom/{above}/happy/1.jpg", b"x")
    with pytest.raises(InputError, match=rf"end the source's prefix with '{above.removesuffix('/train')}'"):
        ingest(local, config(), tmp_path)


def test_a_folder_of_images_without_known_classes_may_have_a_list(local, tmp_path):
    local.write("datasets/custom/images/1.jpg", b"x")
    with pytest.raises(InputError, match=r"'images' \(images: 1\); name the files .*\(lists\), or map each"):
        ingest(local, config(), tmp_path)


@pytest.mark.parametrize("change", [{"mapping": {"surprise": "stress"}}, {"numbers": "raf_db"}])
def test_other_names_for_the_emotions_of_fer2013_csv_are_one_clear_error(local, tmp_path, change):
    local.write("datasets/fer2013/fer2013.csv", CSV)
    changed = FER.model_copy(update=change)
    with pytest.raises(InputError, match=r"'fer2013' has (a mapping|numbers = 'raf_db').* folders or a list"):
        ingest(local, config(changed), tmp_path)


def test_a_mapping_that_leaves_all_images_out_is_one_clear_error(local, tmp_path):
    local.write("datasets/custom/bored/1.jpg", b"x")
    mapped = CUSTOM.model_copy(update={"mapping": {"bored": ""}})
    with pytest.raises(InputError, match="all 1 images are of classes that source 'custom' leaves out"):
        ingest(local, config(mapped), tmp_path)


def test_photos_in_formats_that_are_not_read_are_named(local, tmp_path):
    fill(local, 2)
    for key in ("fatigue/1.HEIC", "fatigue/2.heic", "sad/3.webp"):
        local.write(f"datasets/custom/{key}", b"x")
    (source,) = ingest(local, config(), tmp_path).sources
    assert source.unread_photos == {".heic": 2, ".webp": 1}
    assert source.unread_note == "photos that are not read (2 .heic, 1 .webp): save them as JPEG or PNG"


def test_an_optional_source_of_nothing_but_such_photos_is_not_left_out_in_silence(local, tmp_path):
    local.write("datasets/fer2013/fer2013.csv", CSV)
    local.write("datasets/custom/fatigue/1.heic", b"x")
    optional = CUSTOM.model_copy(update={"required": False})
    with pytest.raises(InputError, match=r"custom.*got 'fatigue/1\.heic': save photos as JPEG or PNG"):
        ingest(local, config(FER, optional), tmp_path)


def test_images_in_no_folder_are_refused_with_the_way_to_list_them(local, tmp_path):
    local.write("datasets/custom/1.jpg", b"x")
    with pytest.raises(InputError, match=r"1 images lie in no class folder, e\.g\. '1\.jpg'.*\(lists\)"):
        ingest(local, config(), tmp_path)


@pytest.mark.parametrize(
    ("numbers", "folder", "name"),
    [("fer2013", "6", "neutral"), ("affectnet", "train/3", "surprise"), ("raf_db", "test/2", "fear")],
)
def test_numbered_folders_are_read_by_the_numbers_of_their_set(local, tmp_path, numbers, folder, name):
    local.write(f"datasets/custom/{folder}/a.jpg", b"x")
    with pytest.raises(InputError, match=r"say whose numbers they are with numbers = \"affectnet\""):
        ingest(local, config(), tmp_path)
    numbered = CUSTOM.model_copy(update={"numbers": numbers})
    (source,) = ingest(local, config(numbered), tmp_path).sources
    assert source.vocabulary[folder.split("/")[-1]] == name and len(source.files()) == 1


def test_contempt_of_affectnet_is_left_out(local, tmp_path):
    local.write("datasets/custom/0/a.jpg", b"x")
    local.write("datasets/custom/7/b.jpg", b"x")
    numbered = CUSTOM.model_copy(update={"numbers": "affectnet"})
    (source,) = ingest(local, config(numbered), tmp_path).sources
    assert [file.key for file in source.files()] == ["0/a.jpg"] and source.left_out == 1


def test_a_folder_with_two_naming_schemes_is_refused(local, tmp_path):
    local.write("datasets/custom/3/a.jpg", b"x")
    local.write("datasets/custom/happy/b.jpg", b"x")
    numbered = CUSTOM.model_copy(update={"numbers": "raf_db"})
    with pytest.raises(InputError, match=r"by number \(3\) and by word \(happy\); expected one way"):
        ingest(local, config(numbered), tmp_path)


def test_a_mapping_to_a_class_that_does_not_exist_is_refused_before_anything_is_read():
    with pytest.raises(ValidationError, match=r"there is no class 'sleepy'; expected one of .*fatigue"):
        Source(name="custom", prefix="datasets/custom", mapping={"tired": "sleepy"})


def test_lists_are_fetched_with_their_images_and_their_absence_is_told(local, tmp_path):
    local.write("datasets/custom/images/1.jpg", b"x")
    local.write("datasets/custom/labels.csv", b"image,label\n1.jpg,happy\n")
    listed = CUSTOM.model_copy(update={"lists": ("label.csv",)})
    with pytest.raises(InputError, match=r"no label\.csv, which source 'custom' .*among \['labels\.csv'\]"):
        ingest(local, config(listed), tmp_path)
    listed = CUSTOM.model_copy(update={"lists": ("labels.csv",)})
    (source,) = ingest(local, config(listed), tmp_path).sources
    assert source.format == "image_lists"
    assert [file.key for file in source.files()] == ["images/1.jpg", "labels.csv"]
    with pytest.raises(ValidationError, match="lists: expected with format = 'auto' only"):
        Source(name="custom", prefix="datasets/custom", format="class_folders", lists=("labels.csv",))


def test_what_labels_mean_and_what_a_source_is_for_are_part_of_the_fingerprint(local, tmp_path):
    fill(local)
    changes = [{}, {"mapping": {"sad": "fatigue"}}, {"use": "evaluate"}]
    sources = [CUSTOM.model_copy(update=change) for change in changes]
    extra = Source(name="again", prefix="datasets/custom")
    prints = [ingest(local, config(source, extra), tmp_path).fingerprint for source in sources]
    assert len(set(prints)) == 3


def test_a_required_source_without_files_names_the_uri_and_the_layout(store, tmp_path):
    with pytest.raises(InputError, match=r"datasets/fer2013.*fer2013\.csv.*<class>.*got no file"):
        ingest(store, config(FER), tmp_path)
    store.write("datasets/fer2013/fer2013.zip", b"PK")
    with pytest.raises(InputError, match=r"got 'fer2013\.zip': lay the data itself, unpacked"):
        ingest(store, config(FER), tmp_path)


def test_an_optional_source_without_files_is_left_out_but_not_all_of_them(local, tmp_path):
    optional = Source(name="custom", prefix="datasets/custom", required=False)
    local.write("datasets/fer2013/fer2013.csv", CSV)
    assert [source.name for source in ingest(local, config(FER, optional), tmp_path).sources] == ["fer2013"]
    with pytest.raises(InputError, match="no source holds any data"):
        ingest(local, config(optional), tmp_path)


def test_two_sources_of_one_name_are_refused():
    with pytest.raises(ValidationError, match="two sources claim one name"):
        config(FER, Source(name="fer2013", prefix="datasets/other"))


def test_a_prefix_with_two_layouts_or_two_tables_is_refused(local, tmp_path):
    local.write("datasets/custom/fer2013.csv", CSV)
    local.write("datasets/custom/fer2013.csv.gz", CSV)
    with pytest.raises(InputError, match=r"fer2013\.csv and fer2013\.csv\.gz"):
        ingest(local, config(), tmp_path)
    local.delete("datasets/custom/fer2013.csv.gz")
    fill(local)
    with pytest.raises(InputError, match="both"):
        ingest(local, config(), tmp_path)
    chosen = Source(name="custom", prefix="datasets/custom", format="class_folders")
    assert len(contents(ingest(local, config(chosen), tmp_path))) == 6


def test_keys_that_climb_out_of_the_prefix_are_never_followed(s3_uri, s3_endpoint, tmp_path):
    import boto3

    bucket, _, prefix = s3_uri.removeprefix("s3://").partition("/")
    store = open_store(s3_uri)
    fill(store, 1)
    for key in ("happy/../../../../escaped.jpg", "/happy//absolute.jpg"):
        boto3.client("s3").put_object(Bucket=bucket, Key=f"{prefix}/datasets/custom/{key}", Body=b"evil")
    (source,) = ingest(store, config(), tmp_path / "work").sources
    assert [file.key for file in source.files()] == ["happy/000.jpg"]
    assert source.ignored_count == 2
    assert not list(tmp_path.rglob("*escaped*"))


# --- the cache


def test_an_object_that_changes_between_listing_and_reading_is_recorded_as_it_was_read(local, tmp_path):
    class Changing(LocalStore):
        def list(self, folder="", broken=False):
            listed = super().list(folder, broken)
            self.write("datasets/custom/happy/000.jpg", b"a newer image")
            return listed

    fill(local)
    assert contents(ingest(Changing(local.root), config(), tmp_path))["happy/000.jpg"] == b"a newer image"
    assert ingest(local, config(), tmp_path).sources[0].fetched == 0


def test_an_object_that_never_stops_changing_is_a_store_error(local, tmp_path, monkeypatch):
    read = storage.local.chunks_of

    def rewritten_meanwhile(file):
        yield from read(file)
        os.utime(file.fileno(), ns=(0, time.monotonic_ns()))

    fill(local, 1)
    monkeypatch.setattr(storage.local, "chunks_of", rewritten_meanwhile)
    with pytest.raises(StoreError, match=r"000\.jpg.*changes while it is read"):
        ingest(local, config(), tmp_path)
    assert [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()] == []


def damage(ingested, key: str, data: bytes) -> Path:
    (file,) = [file for file in ingested.sources[0].files() if file.key == key]
    path = blob_path(ingested.blobs, file.sha256)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("data", [b"", b"image X", b"longer than before"])
def test_a_cached_file_that_was_written_over_is_fetched_again(store, tmp_path, data):
    fill(store)
    first = ingest(store, config(), tmp_path)
    damage(first, "happy/000.jpg", data)
    second = ingest(store, config(), tmp_path)
    assert second.sources[0].fetched == 1
    assert contents(second)["happy/000.jpg"] == b"image 0"


def test_a_bit_that_flips_without_a_trace_is_found_when_its_day_comes(local, tmp_path):
    fill(local)
    first = ingest(local, config(), tmp_path)
    blob = blob_path(first.blobs, first.sources[0].files()[0].sha256)
    times = blob.stat()
    damage(first, "happy/000.jpg", b"image X")
    os.utime(blob, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert ingest(local, config(recheck_days=0), tmp_path).sources[0].fetched == 0
    second = ingest(local, config(recheck_days=1), tmp_path)
    assert second.sources[0].fetched == 1
    assert contents(second)["happy/000.jpg"] == b"image 0"


def test_a_copied_cache_is_hashed_but_not_fetched_again(local, tmp_path):
    fill(local)
    first = ingest(local, config(), tmp_path)
    for blob in first.blobs.glob("??/*"):
        os.utime(blob)
    assert ingest(local, config(), tmp_path).sources[0].fetched == 0


def test_a_manifest_that_rotted_costs_a_fetch_and_nothing_else(local, tmp_path):
    fill(local)
    first = ingest(local, config(), tmp_path)
    path = first.sources[0].manifest_path
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(StoreError, match="not a readable manifest"):
        first.sources[0].files()
    assert ingest(local, config(), tmp_path).fingerprint == first.fingerprint


def test_a_manifest_that_another_run_replaced_is_not_taken_for_ones_own(local, tmp_path):
    fill(local)
    first = ingest(local, config(), tmp_path)
    fill(local, 8)
    ingest(local, config(), tmp_path)
    with pytest.raises(StoreError, match="isn't what this run ingested"):
        first.sources[0].files()


def test_the_cache_drops_what_no_manifest_names_and_only_beyond_its_bound(local, tmp_path):
    def write(letter: str) -> None:
        for number in range(4):
            local.write(f"datasets/custom/happy/{number}.jpg", f"{letter}{number}".encode() * 100_000)

    def cached() -> int:
        return sum(path.stat().st_size for path in (tmp_path / "blobs").glob("??/*"))

    bound = 2**20
    write("a")
    ingest(local, config(cache_max_bytes=bound), tmp_path)
    write("b")
    second = ingest(local, config(cache_max_bytes=bound), tmp_path)
    assert 800_000 < cached() <= bound
    assert contents(second)["happy/0.jpg"] == b"b0" * 100_000


def test_a_source_larger_than_the_cache_is_refused_before_anything_is_fetched(local, tmp_path):
    local.write("datasets/custom/happy/0.jpg", bytes(2**20 + 1))
    with pytest.raises(InputError, match="cache_max_bytes = 1048576"):
        ingest(local, config(cache_max_bytes=2**20), tmp_path)
    assert not list((tmp_path / "blobs").glob("??/*"))


def test_sources_that_only_together_are_larger_than_the_cache_are_refused_too(local, tmp_path):
    local.write("datasets/custom/happy/0.jpg", bytes(2**19))
    local.write("datasets/fer2013/fer2013.csv", bytes(2**19 + 1))
    with pytest.raises(InputError, match="1048577 bytes, cache_max_bytes = 1048576"):
        ingest(local, config(FER, CUSTOM, cache_max_bytes=2**20), tmp_path)


@pytest.mark.parametrize("prefix", ["", "/", "../other", "a//b"])
def test_a_prefix_that_is_no_folder_in_the_store_is_refused(prefix):
    with pytest.raises(ValidationError, match="key"):
        Source(name="custom", prefix=prefix)


def test_an_image_beyond_the_limit_is_refused_by_name(local, tmp_path):
    local.write("datasets/custom/happy/huge.jpg", bytes(5000))
    with pytest.raises(InputError, match=r"happy/huge\.jpg: 5000 bytes"):
        ingest(local, config(max_image_bytes=4000), tmp_path)


def ingest_until_killed(store: ObjectStore, work: Path, at: int) -> None:
    """In a process of its own: die, as by kill -9, just before the given renaming to a final name."""
    rename, count = os.replace, itertools.count(1)

    def fatal_rename(source, target):
        if next(count) == at:
            os.kill(os.getpid(), signal.SIGKILL)
        rename(source, target)

    os.replace = fatal_rename
    fetch._SAVE_EVERY_S = 0
    ingest(store, config(max_threads=2), work)


def test_a_run_killed_at_any_point_goes_on_and_ends_the_same(local, tmp_path):
    for number in range(300):
        path = local.root / f"datasets/custom/{('happy', 'sad')[number % 2]}/{number:04}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"image %d" % number)
    whole = ingest(local, config(), tmp_path / "undisturbed")
    for at in (1, 2, 50, 51, 200):
        run = multiprocessing.get_context("fork").Process(
            target=ingest_until_killed, args=(local, tmp_path / "killed", at)
        )
        run.start()
        run.join(60)
        assert run.exitcode == -signal.SIGKILL
    last = ingest(local, config(), tmp_path / "killed")
    assert 0 < last.sources[0].reused < 300
    assert last.fingerprint == whole.fingerprint
    assert contents(last) == contents(whole)


ON_A_SMALL_DISK = """
import pathlib, subprocess, sys
from storage.errors import StoreError
from storage.opening import open_store
from tasks.ingest import IngestConfig, Source, ingest
store, work = open_store(sys.argv[1]), pathlib.Path(sys.argv[2])
config = IngestConfig(sources=(Source(name="custom", prefix="datasets/custom"),))
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "none", str(work)], check=True)
try:
    ingest(store, config, work)
except StoreError as error:
    print(error)
subprocess.run(["mount", "-o", "remount,size=2m", str(work)], check=True)
print(ingest(store, config, work).sources[0].objects)
"""


def test_a_full_disk_is_named_and_the_next_run_with_space_goes_on(local, tmp_path):
    unshare = [shutil.which("unshare") or "unshare", "--user", "--map-root-user", "--mount"]
    if not shutil.which("unshare") or subprocess.run([*unshare, "true"], capture_output=True).returncode:
        pytest.skip("needs unshare with user namespaces, to mount a small disk of its own")
    for number in range(10):
        local.write(f"datasets/custom/happy/{number}.jpg", bytes([number]) * 100_000)
    (tmp_path / "work").mkdir()
    command = [*unshare, sys.executable, "-c", ON_A_SMALL_DISK, str(local.root), str(tmp_path / "work")]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert "the disk is full" in run.stdout and str(tmp_path / "work") in run.stdout, run.stderr
    assert run.stdout.splitlines()[-1] == "10"


# --- tars


def tar_of(members: dict[str, bytes], *others: tarfile.TarInfo) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for info in others:
            tar.addfile(info)
    return packed.getvalue()


def test_a_tars_members_count_as_if_they_lay_beside_it(store, tmp_path):
    store.write(
        "datasets/custom/a.tar", tar_of({"./happy/1.jpg": b"one", "sad/2.png": b"two", "sad/.x.jpg": b"-"})
    )
    store.write("datasets/custom/fatigue/b.tar", tar_of({"3.jpg": b"three"}))
    store.write("datasets/custom/happy/4.jpg", b"four")
    first = ingest(store, config(), tmp_path)
    assert contents(first) == {
        "happy/1.jpg": b"one",
        "sad/2.png": b"two",
        "fatigue/3.jpg": b"three",
        "happy/4.jpg": b"four",
    }
    second = ingest(store, config(), tmp_path)
    assert (second.sources[0].fetched, second.sources[0].reused) == (0, 3)
    assert second.fingerprint == first.fingerprint


def test_a_webdataset_tar_takes_each_class_from_its_cls_file(local, tmp_path):
    shard = tar_of({"0001.jpg": b"one", "0001.cls": b"happy\n", "0002.cls": b"Fatigue", "0002.png": b"two"})
    local.write("datasets/custom/shard-000.tar", shard)
    assert contents(ingest(local, config(), tmp_path)) == {
        "happy/0001.jpg": b"one",
        "Fatigue/0002.png": b"two",
    }


def link(name: str, kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "/etc/passwd"
    return info


@pytest.mark.parametrize(
    ("packed", "complaint"),
    [
        (tar_of({"/happy/1.jpg": b"x"}), "key"),
        (tar_of({"happy/../../1.jpg": b"x"}), "key"),
        (tar_of({}, link("happy/1.jpg", tarfile.SYMTYPE)), "link"),
        (tar_of({}, link("happy/1.jpg", tarfile.LNKTYPE)), "link"),
        (tar_of({}, link("happy/1.jpg", tarfile.CHRTYPE)), "link, device"),
        (tar_of({"happy/1.jpg": bytes(5000)}), "5000 bytes, the limit is 4000"),
        (tar_of({"happy/1.jpg": bytes(3000)})[:2000], "ends inside|unexpected end"),
        (tar_of({"contempt/1.jpg": b"x"}), "contempt"),
        (tar_of({"1.jpg": b"x", "1.cls": b"3"}), "no class is known"),
        (b"this is no tar" * 100, "pack it again"),
        (b"", "pack it again"),
        (tar_of({"happy/readme.txt": b"x"}), r"no \.jpg"),
    ],
)
def test_a_tar_that_is_damaged_or_reaches_out_is_refused_by_name(local, tmp_path, packed, complaint):
    local.write("datasets/custom/a.tar", packed)
    with pytest.raises(InputError, match=rf"a\.tar.*({complaint})"):
        ingest(local, config(max_image_bytes=4000), tmp_path)
    manifest = tmp_path / "manifests" / "custom.json"
    assert json.loads(manifest.read_bytes())["objects"] == []
    assert list((tmp_path / "blobs" / "incoming").iterdir()) == []


def test_one_key_in_two_places_is_refused_naming_both(local, tmp_path):
    local.write("datasets/custom/a.tar", tar_of({"happy/1.jpg": b"one"}))
    local.write("datasets/custom/happy/1.jpg", b"another")
    with pytest.raises(InputError, match=r"happy/1\.jpg.*a\.tar and in happy/1\.jpg"):
        ingest(local, config(), tmp_path)
