"""From a store's URI to the store.

store = open_store("s3://bucket/prefix")        # or a directory: "/data/store", "file:///data/store"
"""

from pathlib import Path

from storage.errors import InputError
from storage.local import LocalStore
from storage.objects import ObjectStore, check_key
from storage.s3 import S3Store


def open_store(uri: str | Path) -> ObjectStore:
    """Open `s3://bucket/prefix`, `file:///directory` or a directory's path; nothing is connected or made yet.

    Raises InputError for another scheme, a missing bucket name or credentials inside the URI.
    """
    scheme, separator, rest = str(uri).partition("://")
    if not separator:
        rest = str(uri)
    if not rest or "\0" in rest:
        raise InputError(f"store URI {str(uri)!r}: expected s3://bucket/prefix or a directory")
    if not separator or scheme == "file":
        return LocalStore(Path(rest).expanduser().absolute())
    if scheme == "s3":
        return S3Store(*_bucket_and_prefix(rest))
    raise InputError(f"store URI with scheme {scheme!r}: expected s3://bucket/prefix or a directory")


def _bucket_and_prefix(rest: str) -> tuple[str, str]:
    bucket, _, prefix = rest.partition("/")
    if "@" in bucket or ":" in bucket:
        raise InputError(
            "store URI s3://…: expected s3://bucket/prefix, without credentials or endpoint; "
            "give those as AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL or a profile"
        )
    if not bucket:
        raise InputError(f"store URI 's3://{rest}': no bucket, expected s3://bucket/prefix")
    prefix = prefix.strip("/")
    return bucket, check_key(prefix) if prefix else ""
