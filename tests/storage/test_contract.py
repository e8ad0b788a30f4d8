"""What every object store guarantees, held against both backends."""

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.errors import InputError, MissingObject
from storage.objects import ObjectStore, check_key
from storage.opening import open_store


@pytest.fixture(params=["directory", "s3"])
def store(request, tmp_path) -> ObjectStore:
    (tmp_path / "store").mkdir()
    return open_store(
        tmp_path / "store" if request.param == "directory" else request.getfixturevalue("s3_uri")
    )


def test_what_is_written_is_read_back_and_listed(store):
    store.write("models/champion.json", b'{"version": 1}')
    store.write("models/champion.json", b'{"version": 22}')
    assert store.read("models/champion.json") == b'{"version": 22}'
    (info,) = store.list("models")
    assert (info.key, info.size) == ("models/champion.json", 15)
    assert store.load("models/champion.json") == (info, b'{"version": 22}')


def test_a_file_goes_up_and_comes_down_unchanged(store, tmp_path):
    content = (
        bytes(range(256)) * 80_000
    )  # more than one part of an S3 upload, more than one chunk of a download
    (tmp_path / "up").write_bytes(content)
    store.upload(tmp_path / "up", "big.npz")
    downloaded = store.download("big.npz", tmp_path / "new folder" / "down")
    assert (tmp_path / "new folder" / "down").read_bytes() == content
    assert [downloaded.info] == store.list()
    assert downloaded.sha256 == hashlib.sha256(content).hexdigest()


def test_a_listing_is_of_a_folder_not_of_a_name_prefix(store):
    for key in ("custom/b.jpg", "custom/a/c.jpg", "custom2/x.jpg", "custom.txt"):
        store.write(key, b"x")
    assert [info.key for info in store.list("custom")] == ["custom/a/c.jpg", "custom/b.jpg"]
    assert [info.key for info in store.list("custom/")] == ["custom/a/c.jpg", "custom/b.jpg"]
    assert len(store.list()) == 4


def test_an_empty_store_lists_nothing(store):
    assert store.list() == []
    assert store.list("no/such/folder") == []


def test_a_listing_goes_on_after_a_thousand_objects_that_many_threads_wrote(store):
    keys = [f"many/{number:04}" for number in range(1005)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: store.write(key, b"x"), keys))
    assert [info.key for info in store.list("many")] == keys


def test_an_empty_object_is_listed_as_one(store):
    store.write("empty.jpg", b"")
    assert [(info.key, info.size) for info in store.list()] == [("empty.jpg", 0)]


@pytest.mark.parametrize("verb", ["read", "download"])
def test_a_missing_object_is_a_file_not_found_error_that_names_it(store, verb, tmp_path):
    store.write("folder/other", b"x")
    for key in ("folder/none", "folder", "folder/other/below"):
        with pytest.raises(MissingObject, match=key) as caught:
            store.read(key) if verb == "read" else store.download(key, tmp_path / "down")
        assert isinstance(caught.value, FileNotFoundError)
    assert list(tmp_path.glob("down*")) == []


def test_an_object_that_is_longer_than_expected_is_refused_and_named(store):
    store.write("folder/retrain.toml", b"12345")
    assert store.read("folder/retrain.toml", most_bytes=5) == b"12345"
    with pytest.raises(InputError, match=r"folder/retrain\.toml: expected at most 4 bytes"):
        store.read("folder/retrain.toml", most_bytes=4)


def test_exists_is_of_exactly_that_key(store):
    store.write("a/bc", b"x")
    assert store.exists("a/bc")
    assert not store.exists("a/b")
    assert not store.exists("a")


def test_deleting_twice_is_as_good_as_once(store):
    store.write("a/b", b"x")
    store.delete("a/b")
    store.delete("a/b")
    assert store.list() == []


def test_a_changed_object_has_another_version(store):
    store.write("same/size", b"one")
    store.write("other", b"1")
    before = {info.key: info.version for info in store.list()}
    store.write("same/size", b"two")
    after = {info.key: info.version for info in store.list()}
    assert before["same/size"] != after["same/size"]
    assert before["other"] == after["other"]


AWKWARD = [
    "a b.jpg",
    "ü/日本.jpg",
    "100%.jpg",
    "%20.jpg",
    "a#b?c+d&e=f~{g}.jpg",
    "*[x].jpg",
    "q'u\"o.jpg",
    "..a/b..",
    "a\nb",
]


def test_awkward_keys_travel_unchanged(store, tmp_path):
    for key in AWKWARD:
        store.write(key, key.encode())
    assert [info.key for info in store.list()] == sorted(AWKWARD)
    for key in AWKWARD:
        assert store.exists(key)
        store.download(key, tmp_path / "down")
        assert store.read(key) == store.load(key).data == (tmp_path / "down").read_bytes() == key.encode()


@pytest.mark.parametrize(
    "key", ["", "/etc/passwd", "../up", "a/../../up", "a//b", "./a", "a/", "nul\0", "\udcff.jpg"]
)
def test_a_key_that_could_lead_elsewhere_is_refused_by_every_verb(store, key, tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    verbs = (
        lambda: store.read(key),
        lambda: store.write(key, b"x"),
        lambda: store.upload(tmp_path / "file", key),
        lambda: store.download(key, tmp_path / "down"),
        lambda: store.exists(key),
        lambda: store.delete(key),
    )
    for verb in verbs:
        with pytest.raises(InputError, match="key"):
            verb()
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["file"]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=st.text(alphabet=st.sampled_from("./\\ab\0é~ "), max_size=12))
def test_no_key_that_passes_leaves_its_root(tmp_path, key):
    root = tmp_path / "root"
    try:
        inside = root / check_key(key)
    except InputError:
        return
    assert root in inside.resolve().parents


def test_a_reader_never_sees_half_an_object(store):
    """One writer alternates two contents while readers look."""
    contents = {b"a" * 300_000, b"b" * 300_000}
    store.write("k", b"a" * 300_000)
    seen, done = set(), threading.Event()

    def look():
        while not done.is_set():
            seen.add(store.read("k"))

    readers = [threading.Thread(target=look) for _ in range(2)]
    for reader in readers:
        reader.start()
    for _ in range(10):
        for content in contents:
            store.write("k", content)
    done.set()
    for reader in readers:
        reader.join(30)
    assert seen and seen <= contents
