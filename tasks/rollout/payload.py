"""What of a release goes to devices, read once for all of them.

In: a release's folder, checked against its manifest, and what goes with it: an order, lists of signers,
today's program. Out: `Payload`.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from deployments.program import Renewal
from storage.errors import InputError
from storage.manifest import MANIFEST, SIGNATURE, Manifest
from storage.registry import RollbackOrder
from storage.signers import SignerList
from tasks.config.rollout import RolloutConfig


@dataclass(frozen=True)
class Payload:
    """What of a release goes to a device: its manifest's texts first, then files by name."""

    version: str
    directory: Path
    manifest: str
    signature: str | None
    max_latency_ms: float
    order: RollbackOrder | None = None
    signers: tuple[SignerList, ...] = ()
    """Those who may sign, list after list: a device follows the ones that it hasn't had."""
    renewal: Renewal | None = None
    """Today's program, for devices with an agent of their own."""

    @property
    def manifest_sha256(self) -> str:
        return hashlib.sha256(self.manifest.encode()).hexdigest()


def read_payload(
    release_dir: Path,
    config: RolloutConfig,
    order: RollbackOrder | None = None,
    signers: tuple[SignerList, ...] = (),
    renewal: Renewal | None = None,
) -> Payload:
    """Read a release's manifest and check the files against it.

    Raises InputError where they differ, StoreError where there is no manifest or that of another release.
    """
    manifest = Manifest.read(release_dir)
    if wrong := manifest.damaged(release_dir):
        raise InputError(
            f"release {release_dir}: {', '.join(wrong)} differ from the manifest; fetch it again"
        )
    signature = release_dir / SIGNATURE
    return Payload(
        version=manifest.version,
        directory=release_dir,
        manifest=(release_dir / MANIFEST).read_text(),
        signature=signature.read_text() if signature.exists() else None,
        max_latency_ms=config.max_latency_ms or manifest.max_latency_ms,
        order=order,
        signers=signers,
        renewal=renewal,
    )
