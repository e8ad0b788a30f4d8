"""Devices that have not been seen for a week: an event each, for whoever wants to be told."""

from datetime import UTC, datetime, timedelta

from prefect import get_run_logger
from prefect.events import emit_event

from flows.site import Site
from storage.opening import open_store
from storage.registry import Registry
from tasks.rollout.ledger import read_ledger

UNSEEN = "stress-vision.device.unseen"
_UNSEEN_FOR = timedelta(days=7)
_NEVER = "never"


def tell_unseen(site: Site, now: datetime | None = None) -> None:
    """Emit `UNSEEN` for each device of the inventory that has been tried and told nothing for a week."""
    for name, seen in unseen(site, now or datetime.now(UTC)).items():
        get_run_logger().warning("%s: %s", name, sentence(seen))
        emit_event(
            UNSEEN,
            resource={
                "prefect.resource.id": f"stress-vision.device.{name}",
                "prefect.resource.name": name,
            },
            payload={"seen_at": seen, "said": sentence(seen)},
        )


def sentence(seen: str) -> str:
    """What is known of a device that was last seen then, or "never"."""
    if seen == _NEVER:
        return "No night or rollout has ever heard from it: what it runs isn't known."
    return f"No night or rollout has heard from it since {seen}: what it has run after that day isn't known."


def unseen(site: Site, now: datetime) -> dict[str, str]:
    """Names of those devices, and when each was last seen."""
    known = read_ledger(Registry(open_store(site.store)))
    names = [device.name for device in site.fleet.devices] if site.fleet else []
    lines = {name: known[name] for name in names if name in known}
    return {
        name: f"{line.seen_at:%F}" if line.seen_at else _NEVER
        for name, line in lines.items()
        if (line.seen_at or line.tried_since or now) < now - _UNSEEN_FOR
    }
