"""Releases, the champion and the fleet's ledger, in a store.

    models/<version>/…          a release: its manifest is written last, so a release is whole or not there
    models/champion.json        the release that devices should run
    models/<version>/rollback.json    an order: that it may replace newer releases, or be taken for longer;
                                      its signature lies beside it
    fleet/<device>.json         what became of the device last time
    fleet/benchmarks/<device>/<version>/<time>.json

A release never changes: what is in its manifest is fixed by hash. Files may be attached beside it later.
"""

import contextlib
import json
import shutil
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ValidationError

from storage.errors import InputError, MissingObject, StoreError
from storage.files import arriving_directory
from storage.identity import confirm_identity
from storage.manifest import MANIFEST, SIGNATURE, UNHASHED, VERSION, Manifest, Version
from storage.objects import ObjectStore

_CHAMPION = "models/champion.json"
_ORDER, _ORDER_SIGNATURE = "rollback.json", "rollback.sig"
_LAST_RELEASES = 30

Sign = Callable[[bytes], bytes | None]
"""Gives the signature of bytes, None where there is no key."""


class Champion(BaseModel, frozen=True):
    """The release that devices converge to; fields of other versions of this code are passed over."""

    version: Version
    promoted_at: datetime
    previous: Version | None = None
    """The champion before this one."""
    anchor: Version | None = None
    """The best release so far: the one against which slow erosion shows."""


class RollbackOrder(BaseModel, frozen=True):
    """That a release may replace newer ones, up to a count: void once a fleet has moved on.

    One whose manifest has a time of expiry gets another, as long again from the order on.
    """

    content: str
    """JSON: {"release": version, "up_to": sequence, "expires_at": time or null}."""
    signature: str | None = None

    @property
    def up_to(self) -> int:
        return self._told.up_to

    @property
    def expires_at(self) -> datetime | None:
        return self._told.expires_at

    @property
    def _told(self) -> "_Order":
        """What it says; one that can't be read says nothing, to devices neither."""
        try:
            return _Order.model_validate_json(self.content)
        except ValidationError:
            return _Order()


class _Order(BaseModel, frozen=True):
    release: str = ""
    up_to: int = 0
    expires_at: datetime | None = None


class Registry:
    """The releases and the ledger in `store`."""

    def __init__(self, store: ObjectStore):
        self._store = store

    def uri(self, version: str) -> str:
        return f"{self._store.uri.rstrip('/')}/models/{version}"

    def publish(self, directory: Path, *, store_id: str) -> str:
        """Upload a release's folder and return its version. Publishing the same again changes nothing.

        `store_id` is the store's identity at the run's start. Raises InputError where a file differs from the
        manifest, StoreError where the version is taken or this is another store.
        """
        manifest, content = Manifest.read(directory), (directory / MANIFEST).read_bytes()
        if wrong := manifest.damaged(directory):
            raise InputError(f"release {directory}: {', '.join(wrong)} differ from the manifest")
        confirm_identity(self._store, store_id)
        there = self._read(f"models/{manifest.version}/{MANIFEST}")
        if there not in (None, content):
            raise StoreError(
                f"{self.uri(manifest.version)} exists with other content; a release never changes"
            )
        names = [*manifest.files, *UNHASHED] if there is None else []
        for name in names:
            if (directory / name).exists():
                self._store.upload(directory / name, f"models/{manifest.version}/{name}")
        return manifest.version

    def attach(self, version: str, file: Path) -> None:
        """Put a file beside a release that its manifest doesn't name, such as the report of its rollout."""
        if file.name in (*self.manifest(version).files, *UNHASHED):
            raise InputError(f"{file.name} is a part of release {version}, which never changes")
        self._store.upload(file, f"models/{version}/{file.name}")

    def versions(self) -> list[str]:
        """All whole releases, oldest first."""
        keys = [info.key.split("/") for info in self._store.list("models")]
        return sorted(key[1] for key in keys if len(key) == 3 and key[2] == MANIFEST)

    def manifest(self, version: str) -> Manifest:
        """The manifest of a release; MissingObject names the releases that there are."""
        return self._manifest(version)[0]

    def fetch(self, version: str, to_dir: Path) -> Path:
        """Bring a release to `to_dir/<version>`, checked by hash; one that lies there whole is kept."""
        (manifest, content), directory = self._manifest(version), to_dir / version
        signature = self._read(f"models/{version}/{SIGNATURE}")
        if _lies_whole(directory, manifest, content, signature):
            return directory
        with arriving_directory(directory) as arriving:
            for name in [*manifest.files, *UNHASHED]:
                if name != SIGNATURE:
                    self._store.download(f"models/{version}/{name}", arriving / name)
                elif signature:
                    (arriving / name).write_bytes(signature)
            if wrong := manifest.damaged(arriving):
                raise StoreError(
                    f"{self.uri(version)}: {', '.join(wrong)} differ from the manifest; publish anew"
                )
            shutil.rmtree(directory, ignore_errors=True)
        return directory

    def champion(self) -> Champion | None:
        """What `promote` wrote last; None before the first. Raises StoreError where it can't be read."""
        content = self._read(_CHAMPION)
        try:
            return None if content is None else Champion.model_validate_json(content)
        except ValidationError as error:
            raise StoreError(
                f"{self._store.uri}/{_CHAMPION} names no champion: {error.errors()[0]['msg']}; restore it, "
                "or delete it to begin with a new one"
            ) from None

    def promote(
        self, version: str, *, expected: str | None, store_id: str, anchor: str | None = None
    ) -> Champion:
        """Make a release the champion: the one that devices converge to and candidates are compared with.

        `expected` is the champion that it was compared with and takes the place of, None for the first one;
        `store_id` the store's identity at that time; `anchor` the best release from now on, by default the
        one that was it before. A release that is champion already stays it. Raises StoreError where another
        one became champion meanwhile, or this is another store.
        """
        confirm_identity(self._store, store_id)
        for release in (version, anchor or version):
            self.manifest(release)
        last = self.champion()
        if last and last.version == version:
            return last
        self._expect(last, expected, f"{version} was not promoted")
        champion = Champion(
            version=version,
            promoted_at=datetime.now(UTC).replace(microsecond=0),
            previous=expected,
            anchor=anchor or (last.anchor if last else None) or version,
        )
        self._store.write(_CHAMPION, champion.model_dump_json(indent=1).encode())
        self._expect(self.champion(), version, "another run promoted at the same time")
        return champion

    def next_sequence(self) -> int:
        """One more than the highest count of the last releases: what the next one is told by to be newer."""
        last = self.versions()[-_LAST_RELEASES:]
        return 1 + max((self.manifest(version).sequence for version in last), default=0)

    def order_rollback(self, version: str, sign: Sign) -> RollbackOrder:
        """Let a release replace every one that there is now; `sign` gives None where there is no key."""
        return self._order(version, self.next_sequence() - 1, sign)

    def renew(self, version: str, sign: Sign) -> RollbackOrder:
        """Let a release be rolled out for as long again, from now on; what it may replace stays as it is."""
        last = self.rollback_order(version)
        return self._order(version, last.up_to if last else self.manifest(version).sequence, sign)

    def is_signed(self, version: str) -> bool:
        return self._store.exists(f"models/{_checked(version)}/{SIGNATURE}")

    def sign_again(self, version: str, sign: Sign) -> None:
        """Give a release the signature of today's key beside its manifest, which stays as it is."""
        if signature := sign(self._manifest(version)[1]):
            self._store.write(f"models/{version}/{SIGNATURE}", signature)

    def _order(self, version: str, up_to: int, sign: Sign) -> RollbackOrder:
        lifetime = self.manifest(version).lifetime
        expires_at = datetime.now(UTC) + lifetime if lifetime else None
        content = _Order(release=version, up_to=up_to, expires_at=expires_at).model_dump_json().encode()
        signature = sign(content)
        self._store.write(f"models/{version}/{_ORDER}", content)
        if signature:
            self._store.write(f"models/{version}/{_ORDER_SIGNATURE}", signature)
        return RollbackOrder(content=content.decode(), signature=signature.decode() if signature else None)

    def rollback_order(self, version: str) -> RollbackOrder | None:
        """The order that `order_rollback` gave last, if it ever did."""
        content = self._read(f"models/{_checked(version)}/{_ORDER}")
        signature = self._read(f"models/{version}/{_ORDER_SIGNATURE}") if content else None
        if content is None:
            return None
        return RollbackOrder(content=content.decode(), signature=signature.decode() if signature else None)

    def record_device(self, name: str, facts: Mapping[str, object]) -> None:
        """What became of a device last time, in place of what was known before."""
        self._write(f"fleet/{name}.json", facts)

    def record_benchmark(self, version: str, name: str, at: datetime, figures: Mapping[str, object]) -> None:
        """Add one benchmark to the history of a device with a release."""
        time = at.astimezone(UTC).strftime("%Y%m%d-%H%M%S")
        self._write(f"fleet/benchmarks/{name}/{_checked(version)}/{time}.json", figures)

    def benchmarks(self, name: str) -> list[dict[str, object]]:
        """All that `record_benchmark` wrote of a device, oldest first."""
        infos = self._store.list(f"fleet/benchmarks/{name}")
        keys = sorted((info.key for info in infos), key=lambda key: key.rsplit("/", 1)[-1])
        return [self._facts(key, self._store.read(key)) for key in keys]

    def device(self, name: str) -> dict[str, object] | None:
        """What `record_device` wrote of a device; None of one that the ledger doesn't know."""
        key = f"fleet/{name}.json"
        content = self._read(key)
        return None if content is None else self._facts(key, content)

    def devices(self) -> dict[str, dict[str, object]]:
        """The ledger: device name to what `record_device` wrote; empty where it can't be read any more."""
        keys = [info.key for info in self._store.list("fleet") if info.key.count("/") == 1]
        return {Path(key).stem: self._line(key) for key in keys}

    def _line(self, key: str) -> dict[str, object]:
        """One line that is damaged, or was deleted just now, must not hide the others."""
        content = self._read(key)
        with contextlib.suppress(StoreError):
            return {} if content is None else self._facts(key, content)
        return {}

    def _manifest(self, version: str) -> tuple[Manifest, bytes]:
        """And the very bytes of it."""
        content = self._read(f"models/{_checked(version)}/{MANIFEST}")
        if content is None:
            known = ", ".join(self.versions()[-5:]) or "none"
            raise MissingObject(f"there is no release {version} in {self._store.uri}; last ones: {known}")
        return Manifest.parse(content, f"{self.uri(version)}/{MANIFEST}", version), content

    def _read(self, key: str) -> bytes | None:
        try:
            return self._store.read(key)
        except MissingObject:
            return None

    def _expect(self, champion: Champion | None, expected: str | None, otherwise: str) -> None:
        found = champion.version if champion else None
        if found != expected:
            raise StoreError(
                f"{self._store.uri}: the champion is {found or 'none'}, expected {expected or 'none'}: "
                f"{otherwise}. Run again, so that it is compared with the champion of today"
            )

    def _facts(self, key: str, content: bytes) -> dict[str, object]:
        try:
            return dict(json.loads(content))
        except (ValueError, TypeError):
            raise StoreError(
                f"{self._store.uri}/{key} can't be read: {content[:80]!r}; delete it, and the next rollout "
                "writes it anew"
            ) from None

    def _write(self, key: str, content: Mapping[str, object]) -> None:
        self._store.write(key, json.dumps(content, indent=1, allow_nan=False).encode())


def _lies_whole(directory: Path, manifest: Manifest, content: bytes, signature: bytes | None) -> bool:
    """With the signature of today: a release is signed anew when signers change."""
    expected = {MANIFEST: content, SIGNATURE: signature}
    found = {name: _content(directory / name) for name in expected}
    return found == expected and not manifest.damaged(directory)


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _checked(version: str) -> str:
    if not VERSION.fullmatch(version):
        raise InputError(
            f"{version!r} is not a release's version; expected one like 20260131-031500-0a1b2c3d"
        )
    return version
