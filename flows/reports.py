"""Reports of the store in a browser: what `stress-vision up` serves beside Prefect's pages, which link there.

    python -m flows.reports PORT        # the store of STRESS_VISION_STORE, on this machine only

A page of http may not open files, and S3 wants a signature for each: so the pages under `experiments/`,
`models/` and `history.html` are read from the store and handed on. Reports show faces: it listens on the
loopback address, like Prefect's own server.
"""

import re
import sys
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

from storage.errors import InputError, MissingObject, StoreError
from storage.objects import ObjectStore

_SHOWN = re.compile(r"(?:(?:experiments|models)/[\w.-]+/)?[\w.-]+\.(html|png|md|json)")
_TYPES = {"html": "text/html", "png": "image/png", "md": "text/plain", "json": "application/json"}

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""What the pages need; whatever a file in the store holds, no script of it runs."""


def serve(store: ObjectStore, port: int) -> ThreadingHTTPServer:
    """A server on the loopback address; `port` 0 takes a free one."""
    return ThreadingHTTPServer(("127.0.0.1", port), partial(_Page, store))


class _Page(BaseHTTPRequestHandler):
    def __init__(self, store: ObjectStore, *rest: object):
        self._store = store
        super().__init__(*rest)  # pyright: ignore[reportArgumentType]

    def do_GET(self) -> None:
        """One object, if it is one that a person reads."""
        key = unquote(urlsplit(self.path).path).removeprefix("/")
        if not (shown := _SHOWN.fullmatch(key)):
            self.send_error(HTTPStatus.NOT_FOUND, "there are experiments/ID/report.html and history.html")
            return
        try:
            found = self._store.read(key)
        except (MissingObject, InputError):
            self.send_error(HTTPStatus.NOT_FOUND, "the store has no such page")
        except StoreError:
            self.send_error(HTTPStatus.BAD_GATEWAY, "the store does not answer")
        else:
            self._answer(found, _TYPES[shown[1]])

    def _answer(self, found: bytes, kind: str) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(found)))
        self.send_header("Content-Security-Policy", _POLICY)
        self.end_headers()
        self.wfile.write(found)


def main() -> None:
    """Serve until ended."""
    from flows.config import store_uri
    from storage.opening import open_store

    serve(open_store(store_uri("")), int(sys.argv[1])).serve_forever()


if __name__ == "__main__":
    main()
