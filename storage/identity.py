"""Which store this is: a marker in it, `store.json` with a random id.

A directory that was renamed, or a share that isn't mounted any more, looks like an empty store: without a
marker a run would find no champion there, and make the first one. So a run takes the id at its start, and
every release and every champion is written only where that id still stands.
"""

import json
import time
import uuid
from collections.abc import Iterable

from storage.errors import InputError, MissingObject, StoreError
from storage.objects import ObjectStore

MARKER = "store.json"
_SETTLE_S = 0.5
"""Two first runs at once: after this both read the same marker, the one that was written last."""


def store_identity(store: ObjectStore, data: Iterable[str] = ("datasets",)) -> str:
    """The store's id, for a run to hold on to; a store that has none yet, but data or releases, gets one.

    `data` are folders of which one is not empty in a store with data. What runs themselves leave there
    doesn't count: they may have left it in the place of a store that was gone. Raises InputError where there
    is nothing, StoreError where the marker can't be read.
    """
    folders = (*data, "models")
    try:
        return _read(store)
    except MissingObject:
        if not any(store.list(folder) for folder in folders):
            raise InputError(
                f"{store.uri} holds no data set and no release: is it mounted, and the URI right? Expected "
                f"objects under {' or '.join(f'{folder}/' for folder in folders)}, such as "
                "datasets/fer2013/fer2013.csv or datasets/custom/<class>/*.jpg"
            ) from None
    store.write(MARKER, json.dumps({"id": uuid.uuid4().hex}).encode())
    time.sleep(_SETTLE_S)
    return _read(store)


def expect_begun(store: ObjectStore) -> None:
    """For who reads and finds nothing: InputError where no run has begun with this store."""
    if not store.exists(MARKER):
        raise InputError(
            f"no run has begun with {store.uri} yet: it has no {MARKER}. Is it mounted, and the URI right?"
        )


def confirm_identity(store: ObjectStore, store_id: str) -> None:
    """See that this is the store whose id a run took at its start; StoreError where it isn't."""
    try:
        found = _read(store)
    except MissingObject:
        raise StoreError(
            f"{store.uri} is not the store that this run began with: its marker {MARKER} is gone. Was it "
            "renamed, emptied or unmounted? Bring it back and run again; nothing was written"
        ) from None
    if found != store_id:
        raise StoreError(
            f"{store.uri} is not the store that this run began with: {MARKER} says {found}, expected "
            f"{store_id}. Was another one mounted in its place? Run again; nothing was written"
        )


def _read(store: ObjectStore) -> str:
    content = store.read(MARKER)
    try:
        found = json.loads(content)["id"]
    except (ValueError, KeyError, TypeError):
        found = None
    if not isinstance(found, str) or not found:
        raise StoreError(
            f"{store.uri}/{MARKER} can't be read: expected an object with an id, got {content[:80]!r}; "
            "restore it, or delete it and the next run makes a new one"
        )
    return found
