"""Who has the fleet, and who has a folder: one at a time.

    with lease(store, "fleet", holder="retrain nightly on gpu-1") as held:
        ...
        held.check()                  # before anything that only its holder may do
    with exclusively(directory): ...  # on this machine; the kernel frees it when the process dies

A lease is an object in the store, `leases/<name>.json`, and asks nothing of the store but reading and
writing: a taker writes a token of its own, waits, and has the lease if it reads that token back. The holder
renews it; one that died leaves a lease that grows old. How old is told by the clocks of two machines, which
may differ: so a lease that looks old is also watched, and taken only where nobody renews it meanwhile.
"""

import fcntl
import os
import threading
import time
import uuid
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ValidationError

from storage.errors import InputError, MissingObject, StoreError
from storage.files import explained
from storage.objects import ObjectStore

_RENEWALS = 4
"""How often a lease is renewed while it lasts."""
_LONGEST = 1 + 1.5 / _RENEWALS
"""Of its own duration, how long one whose holder died holds up others."""
_STORE_S = 60.0
"""What a store's verb takes at most."""


class Claim(BaseModel, frozen=True):
    """Who says to have a lease; `renewed_at` is the holder's own clock, in seconds since 1970."""

    token: str
    holder: str
    since: datetime
    renewed_at: float
    ttl_s: float

    @property
    def expired(self) -> bool:
        return time.time() > self.renewed_at + self.ttl_s


@dataclass
class Held:
    """A lease that this process has."""

    store: ObjectStore
    key: str
    claim: Claim

    def check(self) -> None:
        """See that the lease is still ours; StoreError where it was lost or the store doesn't answer."""
        found = _read(self.store, self.key)
        if found is None or found.token != self.claim.token:
            taker = f"{found.holder} has it since {_time(found.since)}" if found else "it is gone"
            raise StoreError(
                f"{self.store.uri}/{self.key}: {self.claim.holder} has lost this lease: {taker}. Run again"
            )

    def keep(self, ended: threading.Event) -> None:
        """Renew until `ended`; what fails now and then is tried again, and `check` says what stays wrong."""
        while not ended.wait(self.claim.ttl_s / _RENEWALS):
            with suppress(StoreError):
                self.renew()

    def renew(self) -> None:
        """Write it anew, but never over the lease of another."""
        self.check()
        self.claim = self.claim.model_copy(update={"renewed_at": time.time()})
        _write(self.store, self.key, self.claim)


@contextmanager
def lease(
    store: ObjectStore,
    name: str,
    holder: str,
    *,
    ttl_s: float = 120.0,
    wait_s: float = 0.0,
    settle_s: float = 2.0,
    on_wait: Callable[[str], None] = lambda said: None,
) -> Generator[Held]:
    """The one lease of that name in the store, on whatever machine it is asked for.

    It lasts while the block does, at most `ttl_s` longer where the process dies. Where another has it, waits
    up to `wait_s`, then raises StoreError, which names the holder and since when. `settle_s` is how long a
    write of another taker may be under way. `on_wait` hears once who has it.
    """
    key = f"leases/{name}.json"
    _say_who_has_it(store, key, wait_s, on_wait)
    held = _take(store, key, holder, ttl_s, wait_s, settle_s)
    ended = threading.Event()
    renewing = threading.Thread(target=held.keep, args=(ended,), name=f"lease {name}", daemon=True)
    renewing.start()
    try:
        yield held
    finally:
        ended.set()
        renewing.join(_STORE_S)
        # lost to another, or the store doesn't answer: then it grows old by itself
        with suppress(StoreError):
            held.check()
            store.delete(held.key)


def _take(store: ObjectStore, key: str, holder: str, ttl_s: float, wait_s: float, settle_s: float) -> Held:
    deadline = time.monotonic() + wait_s
    while True:
        found, asked = _look(store, key)
        if found is None:
            claim = _new_claim(holder, ttl_s)
            _write(store, key, claim)
            # held up that long, it may have written over one taken meanwhile, whose holder must have noticed
            held_up = time.monotonic() - asked > 0.8 * settle_s
            time.sleep(max(settle_s, 2 * ttl_s / _RENEWALS) if held_up else settle_s)
            found = _read(store, key)
            if found and found.token == claim.token:
                return Held(store, key, claim)
        if found and time.monotonic() >= deadline:
            raise StoreError(
                f"{store.uri}/{key}: {found.holder} has this since {_time(found.since)}, and only one may "
                "have it at a time. Run again when it has ended; where it died, its lease ends within "
                f"{found.ttl_s:g} s"
            )
        time.sleep(min(settle_s, max(0.0, deadline - time.monotonic())))


def _say_who_has_it(store: ObjectStore, key: str, wait_s: float, on_wait: Callable[[str], None]) -> None:
    if wait_s and (found := _read(store, key)):
        on_wait(
            f"waiting for {found.holder}, which has the {Path(key).stem} since {_time(found.since)}; "
            f"if it died, for {_LONGEST * found.ttl_s:.0f} s at most"
        )


def _look(store: ObjectStore, key: str) -> tuple[Claim | None, float]:
    """Who has the lease, None where nobody does, and when that was asked (by time.monotonic)."""
    asked, found = time.monotonic(), _read(store, key)
    if found is None or not found.expired:
        return found, asked
    time.sleep((_LONGEST - 1) * found.ttl_s)
    asked, again = time.monotonic(), _read(store, key)
    return None if again == found else again, asked


def _new_claim(holder: str, ttl_s: float) -> Claim:
    now = datetime.now(UTC).replace(microsecond=0)
    return Claim(token=uuid.uuid4().hex, holder=holder, since=now, renewed_at=time.time(), ttl_s=ttl_s)


def _read(store: ObjectStore, key: str) -> Claim | None:
    try:
        return Claim.model_validate_json(store.read(key))
    except MissingObject:
        return None
    except ValidationError:
        raise StoreError(
            f"{store.uri}/{key} is no lease; see that no run is under way, and delete it"
        ) from None


def _write(store: ObjectStore, key: str, claim: Claim) -> None:
    store.write(key, claim.model_dump_json(indent=1).encode())


def _time(at: datetime) -> str:
    return at.isoformat(sep=" ", timespec="seconds")


@contextmanager
def exclusively(directory: Path) -> Generator[None]:
    """The only run on this machine that works in `directory`; folders are made as needed.

    Raises InputError, which names the process, where another one does. The lock ends with the process,
    however that dies.
    """
    with explained("write", directory):
        directory.mkdir(parents=True, exist_ok=True)
        file = (directory / ".lock").open("a+")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise InputError(
                f"{directory} is in use by process {file.read().strip() or 'unknown'} on this machine; wait "
                "until that has ended, or end it"
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield
