"""A store that can't do what it is asked says so once, soon, and says what to do."""

import pickle
import shutil
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import boto3
import pytest

from storage import s3
from storage.errors import InputError, MissingObject, StoreError
from storage.opening import open_store
from tests.ports import free_port

VERBS = {
    "list": lambda store, path: store.list("a"),
    "read": lambda store, path: store.read("a/b"),
    "write": lambda store, path: store.write("a/b", b"x"),
    "download": lambda store, path: store.download("a/b", path / "down"),
    "upload": lambda store, path: store.upload(path / "up", "a/b"),
    "exists": lambda store, path: store.exists("a/b"),
    "delete": lambda store, path: store.delete("a/b"),
}


@pytest.fixture(params=VERBS)
def verb(request, tmp_path):
    (tmp_path / "up").write_bytes(b"x")
    return lambda store: VERBS[request.param](store, tmp_path)


@pytest.mark.parametrize(
    ("uri", "complaint"),
    [
        ("", "expected s3://"),
        ("gs://bucket/x", "scheme 'gs'"),
        ("s3://", "s3://bucket/prefix"),
        ("s3:///prefix", "no bucket"),
        ("/data/\0store", "s3://bucket/prefix"),
        ("s3://bucket/a/../b", "'..'"),
    ],
)
def test_a_uri_that_names_no_store_is_refused_with_the_known_forms(uri, complaint):
    with pytest.raises(InputError, match=complaint.replace(".", r"\.")):
        open_store(uri)


def test_a_secret_in_a_uri_is_refused_and_not_repeated():
    with pytest.raises(InputError) as caught:
        open_store("s3://AKIAKEY:verysecret@bucket/prefix")
    assert "AKIAKEY" not in str(caught.value) and "verysecret" not in str(caught.value)


@pytest.mark.parametrize("form", ["{}", "{}/", "file://{}"])
def test_a_directory_may_be_given_as_path_or_file_uri(tmp_path, form):
    open_store(form.format(tmp_path)).write("k", b"x")
    assert (tmp_path / "k").read_bytes() == b"x"


def test_a_missing_bucket_is_named(s3_endpoint, verb):
    with pytest.raises(StoreError, match="no bucket 'nobody-made-this'") as caught:
        verb(open_store("s3://nobody-made-this/prefix"))
    assert not isinstance(caught.value, MissingObject)


def test_a_store_that_does_not_answer_is_an_error_within_seconds(s3_endpoint, monkeypatch, verb):
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    started = time.monotonic()
    with pytest.raises(StoreError, match=r"s3://bucket/prefix/a.*AWS_ENDPOINT_URL"):
        verb(open_store("s3://bucket/prefix"))
    assert time.monotonic() - started < 60


def test_a_store_that_accepts_and_then_hangs_is_an_error_by_its_deadline(s3_endpoint, monkeypatch, verb):
    monkeypatch.setattr(s3, "_READ_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        started = time.monotonic()
        with pytest.raises(StoreError, match=r"s3://bucket/prefix/a.*AWS_ENDPOINT_URL"):
            verb(open_store("s3://bucket/prefix"))
    assert time.monotonic() - started < 60


def test_an_endpoint_that_is_no_url_is_an_error(s3_endpoint, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "localhost:9000")
    with pytest.raises(StoreError, match="AWS_ENDPOINT_URL"):
        open_store("s3://bucket").list()


@pytest.fixture
def refusing_endpoint():
    """A service that answers every request as S3 answers a key without rights; ministack accepts any key."""

    class Refusal(BaseHTTPRequestHandler):
        def answer(self):
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
            self.send_response(403)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_PUT = do_POST = do_DELETE = answer

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusal)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_refused_key_is_an_error_that_names_the_settings_and_no_secret(
    s3_endpoint, refusing_endpoint, monkeypatch, verb
):
    monkeypatch.setenv("AWS_ENDPOINT_URL", refusing_endpoint)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "verysecret")
    with pytest.raises(StoreError, match=r"s3://bucket/prefix/a.*AccessDenied.*AWS_PROFILE") as caught:
        verb(open_store("s3://bucket/prefix"))
    assert "verysecret" not in str(caught.value)


def test_missing_credentials_are_an_error_that_names_the_settings(s3_endpoint, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(StoreError, match="AWS_ACCESS_KEY_ID"):
        open_store("s3://bucket").list()
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(StoreError, match="nobody"):
        open_store("s3://bucket").list()


def test_a_profile_brings_endpoint_and_keys(s3_endpoint, s3_uri, monkeypatch, tmp_path):
    (tmp_path / "config").write_text(
        "[profile lab]\nregion = eu-west-1\n"
        f"endpoint_url = {s3_endpoint}\naws_access_key_id = test\naws_secret_access_key = test\n"
    )
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "lab")
    store = open_store(s3_uri)
    store.write("k", b"x")
    assert store.read("k") == b"x"


def test_a_folders_marker_is_not_an_object(s3_uri):
    bucket, _, prefix = s3_uri.removeprefix("s3://").partition("/")
    store = open_store(s3_uri)
    store.write("custom/happy/1.jpg", b"x")
    boto3.client("s3").put_object(Bucket=bucket, Key=f"{prefix}/custom/happy/", Body=b"")
    assert [info.key for info in store.list("custom")] == ["custom/happy/1.jpg"]


def test_store_errors_cross_process_borders():
    error = pickle.loads(pickle.dumps(MissingObject("s3://bucket/key: there is no such object")))
    assert isinstance(error, StoreError) and str(error) == "s3://bucket/key: there is no such object"


def test_a_link_that_leads_back_up_is_refused_not_followed_for_ever(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    with pytest.raises(StoreError, match="loop"):
        open_store(tmp_path).list()


def test_a_linked_data_folder_is_read_like_any_other(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "1.jpg").write_bytes(b"x")
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "happy").symlink_to(tmp_path / "disk")
    store = open_store(tmp_path / "store")
    assert [info.key for info in store.list()] == ["happy/1.jpg"]
    assert store.read("happy/1.jpg") == b"x"


MOUNTED = """
import pathlib, subprocess, sys
mount = pathlib.Path(sys.argv[1])
options = sys.argv[2]
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(mount)], check=True)
(mount / "before").write_bytes(b"x")
if options == "ro":
    subprocess.run(["mount", "-o", "remount,ro", str(mount)], check=True)
from storage import s3
from storage.errors import StoreError
from storage.opening import open_store
store = open_store(mount)
assert store.read("before") == b"x"
try:
    store.write("a/b", bytes(10**6))
except StoreError as error:
    print(error)
print(sorted(path.name for path in mount.rglob("*") if path.is_file()))
"""


@pytest.mark.parametrize(("options", "advice"), [("rw", "the disk is full"), ("ro", "mounted read-only")])
def test_a_full_or_read_only_disk_is_named_and_nothing_half_written_stays(tmp_path, options, advice):
    unshare = [shutil.which("unshare") or "unshare", "--user", "--map-root-user", "--mount"]
    if not shutil.which("unshare") or subprocess.run([*unshare, "true"], capture_output=True).returncode:
        pytest.skip("needs unshare with user namespaces, to mount a disk of its own")
    command = [*unshare, sys.executable, "-c", MOUNTED, str(tmp_path), options]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert advice in run.stdout and str(tmp_path / "a" / "b") in run.stdout, run.stderr
    assert run.stdout.splitlines()[-1] == "['before']"
