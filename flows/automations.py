"""What the Prefect server does by itself: end runs whose machine died, tell a person how nights end."""

from collections.abc import Iterable
from datetime import timedelta

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.events import AutomationCore, EventTrigger, Posture
from prefect.events.actions import ChangeFlowRunState

_SILENCE_S = 150
"""After this long without a sign of life a run is dead: with 90 s live ones were taken for it."""
OURS = {"prefect.resource.role": "tag", "prefect.resource.id": "prefect.tag.stress-vision"}
"""Runs of our deployments, which carry this tag."""


def zombies() -> AutomationCore:
    """Marks a run Crashed that has fallen silent, as when its machine restarts: its slot is free again.

    Ends are any event of the run, since states with names of their own make events of that name.
    """
    return AutomationCore(
        name="stress-vision: runs that fell silent",
        description="A run whose machine or process died without a word is marked Crashed.",
        trigger=EventTrigger(
            after={"prefect.flow-run.heartbeat"},
            expect={"prefect.flow-run.*"},
            match={"prefect.resource.id": "prefect.flow-run.*"},  # pyright: ignore[reportArgumentType]
            match_related=OURS,  # pyright: ignore[reportArgumentType]
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=_SILENCE_S),
        ),
        actions=[
            ChangeFlowRunState(
                name=None,
                state=StateType.CRASHED,
                force=False,
                message=f"No sign of life in the {_SILENCE_S} s before: its process or machine died, froze "
                "or is cut off; which isn't known. The next night goes on with it.",
            )
        ],
    )


def keep(wanted: Iterable[AutomationCore]) -> None:
    """Create each on the server, or put it in place of another one of its name.

    One that is there already stays untouched: an update forgets which runs it is watching, as after a restart
    of the machine those that died with it.
    """
    with get_client(sync_client=True) as client:
        for automation in wanted:
            found = client.read_automations_by_name(automation.name)
            if not found:
                client.create_automation(automation)
            elif not _same(found[0], automation):
                client.update_automation(found[0].id, automation)


def _same(found: AutomationCore, wanted: AutomationCore) -> bool:
    """A person may have paused it: that is no difference."""
    return (found.description, found.trigger, found.actions) == (
        wanted.description,
        wanted.trigger,
        wanted.actions,
    )
