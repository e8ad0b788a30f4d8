"""The lists of those who may sign releases, each signed with a key that is on the list before, too.

    signers/<count>.json    {"count": 3, "signers": ["ssh-ed25519 AAAA…", …]}, and its signature
                            signers/<count>.sig

Lists are only ever added: a device that was away for two of them follows one after the other.
"""

import json
import re
from collections.abc import Callable, Sequence

from pydantic import BaseModel, Field, ValidationError

from storage.errors import InputError, MissingObject, StoreError
from storage.objects import ObjectStore

PUBLIC_KEY = re.compile(r"ssh-ed25519 [A-Za-z0-9+/]+=*")
_FOLDER = "signers"


class SignerList(BaseModel, frozen=True):
    """One list as it goes to devices: its text is what was signed."""

    text: str
    signature: str
    count: int = Field(ge=1)
    """Only rises: a device takes no list from before its own."""
    signers: tuple[str, ...] = Field(min_length=1)


class Signers:
    """The lists of signers in `store`."""

    def __init__(self, store: ObjectStore):
        self._store = store

    def lists(self) -> tuple[SignerList, ...]:
        """All of them, the first one first; StoreError names one that can't be read."""
        keys = [info.key for info in self._store.list(_FOLDER) if info.key.endswith(".json")]
        return tuple(sorted((self._read(key) for key in keys), key=lambda listed: listed.count))

    def add(self, signers: Sequence[str], own: str, sign: Callable[[bytes], bytes | None]) -> SignerList:
        """Add the next list, signed by `sign`, whose public key is `own`.

        Raises InputError where devices would refuse the list or be locked out by it.
        """
        last = self.lists()[-1:]
        if strange := [key for key in signers if not PUBLIC_KEY.fullmatch(key)]:
            raise InputError(f'expected public keys, "ssh-ed25519 AAAA…", got {strange[0][:40]!r}')
        if own not in signers:
            raise InputError(
                f"the key that signs this list, {own[:40]}…, is not on it: first add the new key beside it, "
                "then sign with the new one, and take the old one away with that"
            )
        if last and own not in last[0].signers:
            raise InputError(
                f"devices that hold list {last[0].count} know no {own[:40]}…: sign with a key that is on it"
            )
        count = last[0].count + 1 if last else 1
        text = json.dumps({"count": count, "signers": list(signers)}, indent=1)
        signature = (sign(text.encode()) or b"").decode()
        listed = SignerList(text=text, signature=signature, count=count, signers=tuple(signers))
        self._store.write(f"{_FOLDER}/{count}.sig", signature.encode())
        self._store.write(f"{_FOLDER}/{count}.json", text.encode())
        return listed

    def _read(self, key: str) -> SignerList:
        try:
            text = self._store.read(key).decode()
            signature = self._store.read(key.removesuffix(".json") + ".sig").decode()
            return SignerList.model_validate({**json.loads(text), "text": text, "signature": signature})
        except (MissingObject, ValidationError, ValueError, TypeError) as error:
            why = "its signature is gone" if isinstance(error, MissingObject) else type(error).__name__
            raise StoreError(
                f"{self._store.uri}/{key} is no signed list of signers ({why}): restore it and its signature"
            ) from None
