"""pytest plugin: a real S3 server (ministack) on a free loopback port, once a session.

Fixtures: `s3_endpoint` (a server, and AWS_* in the environment set to it), `s3_uri` (a fresh bucket).
"""

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import boto3
import pytest

from tests.ports import free_port

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}
_START_S = 60


@contextmanager
def running_s3_server(directory: Path) -> Iterator[str]:
    """Start ministack with its data in `directory`, yield its endpoint URL, stop it."""
    port = free_port()
    # IOT_MTLS_ENABLED=0: no second listener; SERVICES=s3: nothing else is loaded
    settings = {"IOT_MTLS_ENABLED": "0", "SERVICES": "s3", "S3_PERSIST": "1", "S3_DATA_DIR": str(directory)}
    with (directory.parent / "s3_server.log").open("wb") as log:
        command = [sys.executable, "-m", "hypercorn", "ministack.app:app", "--bind", f"127.0.0.1:{port}"]
        server = subprocess.Popen(command, env=os.environ | settings, stdout=log, stderr=log)
    try:
        endpoint = f"http://127.0.0.1:{port}"
        _wait_until_it_answers(endpoint, server, directory.parent / "s3_server.log")
        yield endpoint
    finally:
        server.terminate()
        try:
            server.wait(timeout=10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _wait_until_it_answers(endpoint: str, server: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urlopen(endpoint, timeout=5):
                return
        except (URLError, ConnectionError, TimeoutError):
            time.sleep(0.05)
    raise RuntimeError(f"the S3 server didn't start: {log.read_text(errors='replace')[-2000:]}")


@pytest.fixture(scope="session")
def s3_endpoint(tmp_path_factory) -> Iterator[str]:
    """Endpoint URL of the session's S3 server, to which AWS_* point meanwhile."""
    directory = tmp_path_factory.mktemp("s3") / "data"
    directory.mkdir()
    with running_s3_server(directory) as endpoint, pytest.MonkeyPatch.context() as environment:
        for name, value in (ENVIRONMENT | {"AWS_ENDPOINT_URL": endpoint}).items():
            environment.setenv(name, value)
        environment.delenv("AWS_PROFILE", raising=False)
        yield endpoint


@pytest.fixture
def s3_uri(s3_endpoint) -> str:
    """`s3://bucket/some prefix` of a bucket that nobody else uses."""
    bucket = f"faces-{uuid.uuid4().hex[:12]}"
    boto3.client("s3").create_bucket(Bucket=bucket)
    return f"s3://{bucket}/some prefix"
