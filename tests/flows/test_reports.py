"""Reports in a browser, read from the store."""

import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.client import HTTPResponse
from pathlib import Path

import pytest

from flows.reports import serve
from storage.opening import open_store


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    store = open_store(tmp_path)
    store.write("experiments/20261124_021500/report.html", "<h1>Rejected · é</h1>".encode())
    store.write("datasets/custom/stress/anna.png", b"a face")
    server = serve(store, 0)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join(10)


def get(address: str) -> HTTPResponse:
    return urllib.request.urlopen(address, timeout=10)


def test_a_report_of_the_store_opens_in_a_browser_and_runs_no_script(address: str) -> None:
    with get(f"{address}/experiments/20261124_021500/report.html") as page:
        assert page.read().decode() == "<h1>Rejected · é</h1>"
        assert page.headers["Content-Type"] == "text/html; charset=utf-8"
        assert "default-src 'none'" in page.headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    "path",
    [
        "datasets/custom/stress/anna.png", "experiments/none/report.html", "", "nights/ab.json", "../x.html",
        "experiments/..%2f..%2fdatasets/x.html",
    ],
)  # fmt: skip
def test_nothing_else_of_the_store_does(address: str, path: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        get(f"{address}/{path}")
    assert refused.value.code == 404
    refused.value.close()
