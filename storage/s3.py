"""S3 and what speaks its language, through boto3 and its own configuration chain.

Credentials, region, profile and endpoint come from where boto3 takes them (`AWS_*`, `AWS_ENDPOINT_URL`,
`~/.aws`, instance roles). boto3 writes, deletes and explains errors. Listing and reading, of which a data set
of small images needs tens of thousands, go through obstore with the same credentials and endpoint, which
is faster (`tests/benchmarks/bench_ingest.py` says by how much). What obstore can't do, boto3 does again.

Nothing here relies on conditional puts, user metadata, or an ETag being an MD5.
"""

import logging
import os
import re
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from storage.errors import MissingObject, StoreError, StressVisionError
from storage.files import gather, write_chunks
from storage.objects import READ_BYTES, Downloaded, Loaded, ObjectInfo, check_key

if TYPE_CHECKING:
    from obstore import ObjectMeta

_log = logging.getLogger(__name__)

_CONNECT_S = 5
_READ_S = 20
_ATTEMPTS = 3
_CONNECTIONS = 50
_REFUSED = {
    "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "403",
}  # fmt: skip


class S3Store:
    """Objects below `prefix` in one bucket. Safe to use from many threads; connects at the first verb."""

    def __init__(self, bucket: str, prefix: str):
        self.bucket = bucket
        self.prefix = f"{prefix}/" if prefix else ""
        self.uri = f"s3://{bucket}/{prefix}".rstrip("/")

    def list(self, folder: str = "", broken: bool = False) -> list[ObjectInfo]:
        folder = folder.strip("/")
        below = self.prefix + (f"{check_key(folder)}/" if folder else "")
        found = self._list_fast(below)
        if found is None:
            with self._explained("list", below):
                found = self._list_exact(below)
        start = len(self.prefix)
        return sorted(info._replace(key=info.key[start:]) for info in found)

    def read(self, key: str, most_bytes: int = READ_BYTES) -> bytes:
        # here, in `load` and in `download` one GET, so the bytes are of one version, whatever happens
        check_key(key)
        name = f"{self.uri}/{key}"
        with _falling_back():
            return gather(self._fast.get(self.prefix + key), name, most_bytes)
        _, body = self._get(key)
        return gather(self._chunks(key, body), name, most_bytes)

    def load(self, key: str) -> Loaded:
        check_key(key)
        with _falling_back():
            found = self._fast.get(self.prefix + key)
            return Loaded(_fast_info(key, found.meta), bytes(found.bytes()))
        info, body = self._get(key)
        return Loaded(info, b"".join(self._chunks(key, body)))

    def write(self, key: str, data: bytes) -> None:
        check_key(key)
        with self._explained("write", key):
            self._client.put_object(Bucket=self.bucket, Key=self.prefix + key, Body=data)

    def download(self, key: str, path: Path) -> Downloaded:
        check_key(key)
        with _falling_back():
            found = self._fast.get(self.prefix + key)
            return Downloaded(_fast_info(key, found.meta), write_chunks(path, found))
        info, body = self._get(key)
        return Downloaded(info, write_chunks(path, self._chunks(key, body)))

    def upload(self, path: Path, key: str) -> None:
        check_key(key)
        with path.open("rb") as file, self._explained("write", key):
            self._client.upload_fileobj(file, self.bucket, self.prefix + key)

    def exists(self, key: str) -> bool:
        # a listing, because it tells a missing bucket from a missing object and HEAD doesn't
        check_key(key)
        with self._explained("look up", key):
            found = self._client.list_objects_v2(Bucket=self.bucket, Prefix=self.prefix + key, MaxKeys=1)
        return any(item["Key"] == self.prefix + key for item in found.get("Contents", ()))

    def delete(self, key: str) -> None:
        check_key(key)
        with self._explained("delete", key):
            self._client.delete_object(Bucket=self.bucket, Key=self.prefix + key)

    @cached_property
    def _config(self):
        from botocore.session import get_session

        return get_session()

    @cached_property
    def _session(self):
        import boto3

        return boto3.Session(botocore_session=self._config)

    @cached_property
    def _client(self):
        from botocore.config import Config

        return self._session.client(
            "s3",
            config=Config(
                max_pool_connections=_CONNECTIONS,
                connect_timeout=_CONNECT_S,
                read_timeout=_READ_S,
                retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
                # S3-compatible servers lack the newer checksums; our manifests carry SHA-256
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )

    @cached_property
    def _fast(self):
        from obstore.auth.boto3 import Boto3CredentialProvider
        from obstore.store import S3Store as FastStore

        endpoint, region = self._address()
        return FastStore(
            self.bucket,
            endpoint=endpoint,
            region=region,
            virtual_hosted_style_request=False,
            credential_provider=Boto3CredentialProvider(self._session),
            client_options={
                "allow_http": endpoint.startswith("http://"),
                "connect_timeout": timedelta(seconds=_CONNECT_S),
                "read_timeout": timedelta(seconds=_READ_S),
                # of a whole object; a stalled one ends by read_timeout
                "timeout": timedelta(hours=1),
            },
            retry_config={"max_retries": 0},
        )

    def _address(self) -> tuple[str, str]:
        """Endpoint and region as boto3 finds them, if need be by building a client, which takes 0.1 s."""
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        region = self._config.get_config_variable("region")
        # obstore panics at what is no URL; boto3 says so
        if not (endpoint and re.fullmatch(r"https?://[\w.-]+(:\d+)?/?", endpoint)):
            endpoint = None
        if endpoint and region and not self._config.get_config_variable("ignore_configured_endpoint_urls"):
            return endpoint, region
        return self._client.meta.endpoint_url, self._client.meta.region_name

    def _list_fast(self, below: str) -> Iterable[ObjectInfo] | None:
        with _falling_back():
            found = [
                _fast_info(item["path"], item)
                # one of the verb's two forms has a type of another library's
                for page in self._fast.list(below.rstrip("/") or None)  # pyright: ignore[reportUnknownMemberType]
                for item in page
            ]
            # obstore drops the slash of a folder's marker, which would make an object of it
            return found if all(info.size for info in found) else None
        return None

    def _list_exact(self, below: str) -> Iterable[ObjectInfo]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=below)
        return [
            ObjectInfo(item["Key"], item["Size"], _version(item.get("ETag"), item["LastModified"]))
            for page in pages
            for item in page.get("Contents", ())
            if not item["Key"].endswith("/")
        ]

    def _get(self, key: str) -> tuple[ObjectInfo, Any]:
        with self._explained("read", key):
            found = self._client.get_object(Bucket=self.bucket, Key=self.prefix + key)
        version = _version(found.get("ETag"), found["LastModified"])
        return ObjectInfo(key, found["ContentLength"], version), found["Body"]

    def _chunks(self, key: str, body: Any) -> Iterator[bytes]:
        with self._explained("read", key):
            yield from body.iter_chunks(1 << 20)

    @contextmanager
    def _explained(self, verb: str, key: str) -> Generator[None]:
        """Any failure of boto3 as one StoreError that says what to do."""
        from boto3.exceptions import Boto3Error
        from botocore import exceptions as boto

        what = f"can't {verb} s3://{self.bucket}/{self.prefix}{key.removeprefix(self.prefix)}"
        try:
            yield
        except boto.ClientError as error:
            raise _refusal(what, self.bucket, error.response.get("Error", {})) from error
        except _setup_errors() as error:
            raise StoreError(
                f"{what}: no usable AWS credentials or configuration ({error}); "
                "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
            ) from error
        except (boto.BotoCoreError, Boto3Error, ValueError) as error:
            raise StoreError(
                f"{what}: no S3 service answers properly ({type(error).__name__}: {error}); "
                "check AWS_ENDPOINT_URL and that the service runs"
            ) from error


@contextmanager
def _falling_back() -> Generator[None]:
    """Let the block return; where it fails, unless by our own error, go on to boto3, which also explains."""
    try:
        yield
    except StressVisionError:
        raise
    except Exception as error:
        _log.debug("obstore gave up, boto3 tries: %s", error)


def _setup_errors() -> tuple[type[Exception], ...]:
    from botocore import exceptions as boto

    return (
        boto.NoCredentialsError, boto.PartialCredentialsError, boto.CredentialRetrievalError,
        boto.ProfileNotFound, boto.InvalidConfigError, boto.ConfigParseError,
    )  # fmt: skip


def _refusal(what: str, bucket: str, error: Mapping[str, object]) -> StoreError:
    code, message = error.get("Code", "?"), error.get("Message", "no reason given")
    if code in ("NoSuchKey", "404"):
        return MissingObject(f"{what}: there is no such object")
    if code == "NoSuchBucket":
        return StoreError(f"{what}: there is no bucket {bucket!r}; create it or correct the store URI")
    if code in _REFUSED:
        return StoreError(
            f"{what}: refused ({code}: {message}); check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY "
            "or AWS_PROFILE, and what that key may do in this bucket"
        )
    return StoreError(f"{what}: the service answers {code}: {message}")


def _fast_info(key: str, meta: "ObjectMeta") -> ObjectInfo:
    return ObjectInfo(key, meta["size"], _version(meta["e_tag"], meta["last_modified"]))


def _version(etag: str | None, modified: datetime) -> str:
    # a GET gives the time in seconds, a listing may give milliseconds
    return etag or str(int(modified.timestamp()))
