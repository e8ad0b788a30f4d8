"""Who may have devices run something: releases, orders and lists of signers, signed with the key of today.

In: bytes, and the key file that STRESS_VISION_SIGNING_KEY names. Out: OpenSSH's signatures, each for one
purpose: one that was made for another doesn't hold (`deployments/pi/device.py` has the same names).
"""

import json
import os
import subprocess
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from deployments.program import DeviceProgram, Renewal
from storage.errors import InputError
from storage.files import KEY_BYTES, read_bounded
from storage.objects import ObjectStore
from storage.registry import Registry, RollbackOrder
from storage.signers import SignerList, Signers

SIGNING_KEY_VARIABLE = "STRESS_VISION_SIGNING_KEY"
_RELEASE, _ORDER = "stress-vision-release", "stress-vision-rollback"
_LIST, _PROGRAM = "stress-vision-signers", "stress-vision-program"


def check_signing_key() -> None:
    """See that releases can be signed where a key is named, before a long training.

    Raises InputError where the key can't sign.
    """
    sign(b"a trial")


def sign(content: bytes, namespace: str = _RELEASE) -> bytes | None:
    """The signature where a key is named in the environment; the key itself never passes through here."""
    return _with_the_key("-Y", "sign", "-n", namespace, content=content)


def signing_public_key() -> str | None:
    """The public half of the key that the environment names, "ssh-ed25519 AAAA…"."""
    said = _with_the_key("-y")
    return " ".join(said.decode().split()[:2]) if said else None


def _with_the_key(*words: str, content: bytes = b"") -> bytes | None:
    """What ssh-keygen says with the key that the environment names; InputError where it can't be used."""
    key = os.environ.get(SIGNING_KEY_VARIABLE)
    if not key:
        return None
    command = ["ssh-keygen", *words, "-f", key]
    try:
        if Path(key).is_file():  # ssh-keygen reads 128 MB of it, and says after minutes that it is no key
            read_bounded(Path(key), KEY_BYTES)
        done = subprocess.run(command, input=content, capture_output=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError, InputError) as error:
        said: bytes = getattr(error, "stderr", None) or str(error).encode()
        raise InputError(
            f"can't sign with the key that {SIGNING_KEY_VARIABLE} names: "
            f"{said.decode(errors='replace').strip()}; expected the path of an "
            "OpenSSH private key without a passphrase, and ssh-keygen 8.1 or newer"
        ) from None
    return done.stdout


def order_rollback(registry: Registry, version: str) -> None:
    """Let a release replace every newer one on devices, signed where a key is named."""
    registry.order_rollback(version, sign_order)


def sign_order(content: bytes) -> bytes | None:
    """The signature of an order, where a key is named."""
    return sign(content, _ORDER)


def current_order(registry: Registry, version: str) -> RollbackOrder | None:
    """The order that goes with a release to devices; the champion gets more time before half of its is over.

    Raises InputError where the release has expired.
    """
    manifest, order, now = registry.manifest(version), registry.rollback_order(version), datetime.now(UTC)
    ends = (order and order.expires_at) or manifest.expires_at
    if ends is None or manifest.lifetime is None:
        return order
    champion = registry.champion()
    due = champion is not None and champion.version == version and ends - now < manifest.lifetime / 2
    if due and (os.environ.get(SIGNING_KEY_VARIABLE) or not registry.is_signed(version)):
        return registry.renew(version, sign_order)
    if ends <= now:
        raise InputError(
            f"release {version} expired on {ends:%Y-%m-%d}, and devices take it no more: give it more time "
            f"with `stress-vision promote --release {version}`, with {SIGNING_KEY_VARIABLE} naming the key"
        )
    return order


def sign_program() -> Renewal | None:
    """Our program for devices, signed for agents where a key is named; a later signature is the newer one."""
    statement = json.dumps({"program": DeviceProgram.digest(), "number": int(time.time())})
    signature = sign(statement.encode(), _PROGRAM)
    return Renewal(statement, signature.decode()) if signature else None


def replace_signers(store: ObjectStore, keys: Sequence[str]) -> SignerList:
    """Add a list of those who may sign from now on, and sign the champion anew with the key of today.

    Devices take the list with the next rollout. Raises InputError without a key, or with one that isn't on
    the list and on the one before.
    """
    own = signing_public_key()
    if own is None:
        raise InputError(
            f"a list of signers has to be signed: let {SIGNING_KEY_VARIABLE} name a key that is on it and on "
            "the one that devices hold"
        )
    listed = Signers(store).add(keys, own, lambda content: sign(content, _LIST))
    registry = Registry(store)
    if champion := registry.champion():
        sign_again(registry, champion.version)
    return listed


def sign_again(registry: Registry, version: str) -> None:
    """Give a release, and the order that it has, the signature of today's key."""
    registry.sign_again(version, sign)
    if registry.rollback_order(version) and os.environ.get(SIGNING_KEY_VARIABLE):
        registry.renew(version, sign_order)
