"""pytest plugin: one temporary Prefect server a session, for the tests that run flows."""

from collections.abc import Iterator

import pytest

_UNUSED = ("EVENT_PERSISTER", "TASK_RUN_RECORDER", "TRIGGERS", "SCHEDULER", "LATE_RUNS", "FOREMAN")
"""Services of the server that cost time in every flow and that no test of a flow asks; test_up has all."""


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """A server of its own with an empty database; flows run against it until the session ends."""
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
    from prefect.testing.utilities import prefect_test_harness

    # the heartbeat's thread costs a second at the end of every flow
    with (
        pytest.MonkeyPatch.context() as environment,
        temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}),
    ):
        for service in _UNUSED:
            environment.setenv(f"PREFECT_SERVER_SERVICES_{service}_ENABLED", "false")
        with prefect_test_harness(server_startup_timeout=180):
            yield
