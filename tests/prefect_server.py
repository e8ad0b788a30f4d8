"""pytest plugin: one temporary Prefect server a session, for the tests that run flows."""

import pytest


@pytest.fixture(scope="session")
def prefect_server():
    """A server of its own with an empty database; flows run against it until the session ends."""
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
    from prefect.testing.utilities import prefect_test_harness

    # the heartbeat's thread costs a second at the end of every flow
    with (
        prefect_test_harness(server_startup_timeout=180),
        temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}),
    ):
        yield
