"""Releases, the champion and the fleet's ledger, in a store.

    models/<version>/…          a release: its manifest is written last, so a release is whole or not there
    models/champion.json        the release that devices should run
    fleet/<device>.json         what became of the device last time
    fleet/benchmarks/<version>/<device>.json

A release never changes: what is in its manifest is fixed by hash. Files may be attached beside it later.
"""

import hashlib
import json
import re
import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from storage.errors import InputError, MissingObject, StoreError
from storage.objects import ObjectStore

VERSION = re.compile(r"\d{8}-\d{6}-[0-9a-f]{8}")
"""UTC time of registration and the first 8 digits of the model's SHA-256."""
_CHAMPION = "models/champion.json"
_UNHASHED = ("manifest.json", "manifest.sig")


class Registry:
    """The releases and the ledger in `store`."""

    def __init__(self, store: ObjectStore):
        self._store = store

    def uri(self, version: str) -> str:
        return f"{self._store.uri.rstrip('/')}/models/{version}"

    def publish(self, directory: Path) -> str:
        """Upload a release directory and return its version. Publishing the same again changes nothing.

        Raises InputError where a file differs from the manifest, StoreError where the version is taken.
        """
        manifest = json.loads((directory / "manifest.json").read_text())
        version = _checked(manifest["version"])
        if wrong := damaged(directory, manifest):
            raise InputError(f"release {directory}: {', '.join(wrong)} differ from the manifest")
        manifest_key = f"models/{version}/manifest.json"
        if self._store.exists(manifest_key):
            if self._store.read(manifest_key) != (directory / "manifest.json").read_bytes():
                raise StoreError(f"{self.uri(version)} exists with other content; a release never changes")
            return version
        for name in [*manifest["files"], *_UNHASHED[::-1]]:
            if (directory / name).exists():
                self._store.upload(directory / name, f"models/{version}/{name}")
        return version

    def attach(self, version: str, file: Path) -> None:
        """Put a file beside a release that its manifest doesn't name, such as the report of its rollout."""
        if file.name in (*self.manifest(version)["files"], *_UNHASHED):
            raise InputError(f"{file.name} is a part of release {version}, which never changes")
        self._store.upload(file, f"models/{version}/{file.name}")

    def versions(self) -> list[str]:
        """All whole releases, oldest first."""
        keys = [info.key.split("/") for info in self._store.list("models")]
        return sorted(key[1] for key in keys if len(key) == 3 and key[2] == "manifest.json")

    def manifest(self, version: str) -> dict:
        """The manifest of a release; MissingObject names the releases that there are."""
        try:
            return json.loads(self._store.read(f"models/{_checked(version)}/manifest.json"))
        except MissingObject:
            known = ", ".join(self.versions()[-5:]) or "none"
            raise MissingObject(
                f"there is no release {version} in {self._store.uri}; last ones: {known}"
            ) from None

    def fetch(self, version: str, to_dir: Path) -> Path:
        """Bring a release to `to_dir/<version>`, checked by hash; one that lies there whole is kept."""
        manifest, directory = self.manifest(version), to_dir / version
        if directory.is_dir() and _manifest_of(directory) == manifest and not damaged(directory, manifest):
            return directory
        to_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=to_dir, prefix=f".{version}-") as part:
            arriving = Path(part) / version
            for name in [*manifest["files"], *_UNHASHED]:
                key = f"models/{version}/{name}"
                if name != "manifest.sig" or self._store.exists(key):
                    self._store.download(key, arriving / name)
            if wrong := damaged(arriving, manifest):
                raise StoreError(
                    f"{self.uri(version)}: {', '.join(wrong)} differ from the manifest; publish anew"
                )
            shutil.rmtree(directory, ignore_errors=True)
            arriving.replace(directory)
        return directory

    def champion(self) -> dict | None:
        """What `promote` wrote last: version, promoted_at, previous, reason; None before the first."""
        try:
            return json.loads(self._store.read(_CHAMPION))
        except MissingObject:
            return None

    def promote(self, version: str, reason: str = "") -> dict:
        """Make a release the champion: the one that devices converge to and candidates are compared with."""
        self.manifest(version)
        last = self.champion()
        if last and last["version"] == version:
            return last
        champion = {
            "version": version,
            "promoted_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "previous": last["version"] if last else None,
            "reason": reason,
        }
        self._write(_CHAMPION, champion)
        return champion

    def record_device(self, name: str, facts: dict) -> None:
        """What became of a device last time, in place of what was known before."""
        self._write(f"fleet/{name}.json", facts)

    def record_benchmark(self, version: str, name: str, figures: dict) -> None:
        self._write(f"fleet/benchmarks/{_checked(version)}/{name}.json", figures)

    def device(self, name: str) -> dict[str, Any] | None:
        """What `record_device` wrote of a device; None of one that the ledger doesn't know."""
        try:
            return json.loads(self._store.read(f"fleet/{name}.json"))
        except MissingObject:
            return None

    def devices(self) -> dict[str, dict]:
        """The ledger: device name to what `record_device` wrote."""
        keys = [info.key for info in self._store.list("fleet") if info.key.count("/") == 1]
        return {Path(key).stem: json.loads(self._store.read(key)) for key in keys}

    def _write(self, key: str, content: dict) -> None:
        self._store.write(key, json.dumps(content, indent=1, allow_nan=False).encode())


def damaged(directory: Path, manifest: dict) -> list[str]:
    """The files of a release directory that are absent or aren't what the manifest says."""
    return [
        name
        for name, stated in manifest["files"].items()
        if not (directory / name).is_file()
        or hashlib.sha256((directory / name).read_bytes()).hexdigest() != stated["sha256"]
    ]


def _manifest_of(directory: Path) -> dict | None:
    try:
        return json.loads((directory / "manifest.json").read_text())
    except (OSError, ValueError):
        return None


def _checked(version: str) -> str:
    if not VERSION.fullmatch(version):
        raise InputError(
            f"{version!r} is not a release's version; expected one like 20260131-031500-0a1b2c3d"
        )
    return version
