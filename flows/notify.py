"""Somebody is told: how nights end, that none ended well for two days, that a device has not been seen.

The Prefect server sends the messages, so that they come when everything else has died. "Rejected" is a
Completed run to Prefect, and events of states with a name of their own carry that name: each is listed.
"""

import urllib.error
import urllib.request
from datetime import timedelta
from uuid import UUID

from prefect.blocks.notifications import CustomWebhookNotificationBlock, SlackWebhook
from prefect.events import AutomationCore, EventTrigger, Posture
from prefect.events.actions import SendNotification
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.types import SecretDict
from pydantic import SecretStr

from flows.automations import OURS, keep
from flows.unseen import UNSEEN
from storage.errors import InputError, StressVisionError

_BAD = (
    "Rejected", "Drifted", "PartlyDeployed", "RolloutFailed", "NotDeployed", "Failed", "TimedOut", "Crashed",
)  # fmt: skip
_GOOD = ("Deployed", "PartlyDeployed", "Registered", "Skipped")
_NONE_FOR = timedelta(hours=50)
"""Two days, and the time that a night takes."""
_BLOCK = "stress-vision"
_ANSWER_S = 10


def notify(address: str, api: str) -> None:
    """Send messages to `address` from now on, instead of to the one before; the first one goes at once.

    http and https get JSON with subject and body, Slack's hooks a Slack message, and all else is for
    Apprise, such as mailtos://USER:PASSWORD@HOST?to=SOMEBODY. Raises InputError where it is none of these,
    and StressVisionError where no Prefect server answers at `api`.
    """
    _expect_server(api)
    block = _block(address)
    with temporary_settings({PREFECT_API_URL: api}):
        try:
            with block.raise_on_failure():
                block.notify("From now on this is told here how nights end.", "Stress Vision")
        except Exception as error:
            raise InputError(f"no message could be sent to this address: {type(error).__name__}") from None
        keep(automations(_saved(block)))


def automations(block: UUID) -> tuple[AutomationCore, ...]:
    """What is told, to the notification block of that id."""
    return (_bad_run(block), _no_good_night(block), _device_unseen(block))


def _bad_run(block: UUID) -> AutomationCore:
    said = "{{ flow_run.state.message }}\n{{ flow_run|ui_url }}"
    return AutomationCore(
        name="stress-vision: a run that needs a person",
        trigger=EventTrigger(
            expect={f"prefect.flow-run.{name}" for name in _BAD},
            match={"prefect.resource.id": "prefect.flow-run.*"},  # pyright: ignore[reportArgumentType]
            match_related=OURS,  # pyright: ignore[reportArgumentType]
            for_each={"prefect.resource.id"},
            posture=Posture.Reactive,
            threshold=1,
        ),
        actions=[_message(block, "{{ flow_run.state.name }}: {{ flow_run.name }}", said)],
    )


def _no_good_night(block: UUID) -> AutomationCore:
    said = (
        f"In the last {_NONE_FOR // timedelta(hours=1)} hours none ended as {', '.join(_GOOD)}. Why, and "
        "whether any began, isn't known to this message: Prefect's page of runs shows it."
    )
    return AutomationCore(
        name="stress-vision: no good night for two days",
        trigger=EventTrigger(
            expect={f"prefect.flow-run.{name}" for name in _GOOD},
            match={"prefect.resource.id": "prefect.flow-run.*"},  # pyright: ignore[reportArgumentType]
            match_related={"prefect.resource.role": "flow", "prefect.resource.name": "retrain"},  # pyright: ignore[reportArgumentType]
            posture=Posture.Proactive,
            threshold=1,
            within=_NONE_FOR,
        ),
        actions=[_message(block, "No good night for two days", said)],
    )


def _device_unseen(block: UUID) -> AutomationCore:
    subject = "Device {{ event.resource.name }} has not been heard from"
    return AutomationCore(
        name="stress-vision: a device unseen for a week",
        trigger=EventTrigger(
            expect={UNSEEN},
            for_each={"prefect.resource.id"},
            posture=Posture.Reactive,
            threshold=1,
            # each night says so: once a week is enough
            within=timedelta(days=6),
        ),
        actions=[_message(block, subject, "{{ event.payload.said }}")],
    )


def _saved(block: CustomWebhookNotificationBlock | SlackWebhook) -> UUID:
    found = block.save(_BLOCK, overwrite=True)
    if not isinstance(found, UUID):
        raise TypeError("a block is saved by a coroutine only inside of one")
    return found


def _message(block: UUID, subject: str, body: str) -> SendNotification:
    return SendNotification(block_document_id=block, subject=subject, body=body)


def _block(address: str) -> CustomWebhookNotificationBlock | SlackWebhook:
    """Where messages go; the address is kept encrypted, as it may hold a password."""
    from apprise import Apprise

    if address.startswith(("http://", "https://")) and "://hooks.slack" not in address:
        return CustomWebhookNotificationBlock(
            name=_BLOCK,
            url="{{address}}",
            json_data={"subject": "{{subject}}", "body": "{{body}}"},
            headers=None,
            cookies=None,
            secrets=SecretDict({"address": address}),
        )
    if Apprise.instantiate(address, suppress_exceptions=True) is None:
        raise InputError(
            "that is no address for messages; expected https://…, a Slack hook, or one that Apprise knows, "
            "such as mailtos://USER:PASSWORD@HOST?to=SOMEBODY"
        )
    # its name is Slack's, but it takes any address of Apprise's
    return SlackWebhook(url=SecretStr(address))


def _expect_server(api: str) -> None:
    try:
        urllib.request.urlopen(f"{api}/health", timeout=_ANSWER_S).close()
    except (urllib.error.URLError, OSError, ValueError):
        raise StressVisionError(
            f"no Prefect server answers at {api}: start it with `stress-vision up`, or name another with "
            "PREFECT_API_URL or --port"
        ) from None
