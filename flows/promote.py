"""Make a registered release the champion by hand, an older one too; the next rollout brings it to devices."""

from flows.site import fleet_slot, open_site
from storage.opening import open_store
from storage.registry import Champion, Registry
from tasks.signing import order_rollback, sign_again


def promote(store: str, version: str) -> Champion:
    """Promote a release, and order devices that run newer ones to go back to it, signed where a key is named.

    It is signed anew, and has as much time again: signers may have changed, and its time be over.

    Raises MissingObject where there is no such release, StoreError where a rollout is under way.
    """
    site = open_site(store, "", None)
    with fleet_slot(site, f"promotion of {version}"):
        registry = Registry(open_store(site.store))
        before, manifest = registry.champion(), registry.manifest(version)
        sign_again(registry, version)
        if manifest.sequence < registry.next_sequence() - 1 or manifest.expires_at:
            order_rollback(registry, version)
        expected = before.version if before else None
        return registry.promote(version, expected=expected, store_id=site.store_id)
