"""Make a registered release the champion by hand, an older one too; the next rollout brings it to devices."""

from flows.site import fleet_slot, open_site
from storage.opening import open_store
from storage.registry import Champion, Registry
from tasks.register import order_rollback


def promote(store: str, version: str) -> Champion:
    """Promote a release, and order devices that run newer ones to go back to it, signed where a key is named.

    Raises MissingObject where there is no such release, StoreError where a rollout is under way.
    """
    site = open_site(store, "", None)
    with fleet_slot(site, f"promotion of {version}"):
        registry = Registry(open_store(site.store))
        before, sequence = registry.champion(), registry.manifest(version).sequence
        if sequence < registry.next_sequence() - 1:
            order_rollback(registry, version)
        expected = before.version if before else None
        return registry.promote(version, expected=expected, store_id=site.store_id)
