"""Who may sign releases from now on; devices follow with the next rollout that reaches them."""

from collections.abc import Sequence
from pathlib import Path

from flows.site import fleet_slot, open_site
from storage.errors import InputError
from storage.files import read_bounded
from storage.opening import open_store
from storage.signers import SignerList
from tasks.signing import replace_signers


def sign_list(store: str, files: Sequence[Path]) -> SignerList:
    """Add the list of the public keys in `files`, signed with the key of the environment.

    Raises InputError where devices wouldn't follow it, StoreError where a rollout is under way.
    """
    site = open_site(store, "", None)
    with fleet_slot(site, "change of signers"):
        return replace_signers(open_store(site.store), [_public_key(file) for file in files])


def _public_key(file: Path) -> str:
    """The key itself, without the comment that may follow it."""
    try:
        return " ".join(read_bounded(file).decode().split()[:2])
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"public key {file} can't be read: {error}") from None
