"""Session-wide fixtures live in plugins, one noun a module."""

pytest_plugins = [
    "tests.s3_server",
    "tests.ssh_devices",
    "tests.releases",
    "tests.prefect_server",
    "tests.wheel",
]
