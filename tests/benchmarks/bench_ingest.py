"""Ingest of many small images from a real S3 server on loopback, against a boto3 loop with 32 threads.

    python -m tests.benchmarks.bench_ingest [--images 5000] [--rounds 3]

Prints a table; each figure is the median of the rounds, which alternate so that all see the same machine.
"""

import argparse
import io
import os
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
from botocore.config import Config

from storage.opening import open_store
from tasks.classes import CLASSES
from tasks.ingest import IngestConfig, Source, ingest
from tests.s3_server import ENVIRONMENT, running_s3_server

BUCKET = "benchmark"
IMAGE_BYTES = 2000
THREADS = 32


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=5000, help="objects of 2 kB, count")
    parser.add_argument("--rounds", type=int, default=3, help="repetitions, count")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "s3"
        data.mkdir()
        with running_s3_server(data) as endpoint:
            os.environ.update(ENVIRONMENT, AWS_ENDPOINT_URL=endpoint)
            fill(options.images)
            rounds = [measure(Path(scratch) / f"round{number}") for number in range(options.rounds)]
    report({name: statistics.median(one[name] for one in rounds) for name in rounds[0]}, options.images)


def fill(images: int) -> None:
    """The images one by one below `small/`, and the same in one tar below `packed/`."""
    boto3.client("s3").create_bucket(Bucket=BUCKET)
    store = open_store(f"s3://{BUCKET}")
    faces = {f"{CLASSES[n % len(CLASSES)]}/{n:06}.jpg": os.urandom(IMAGE_BYTES) for n in range(images)}
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda key: store.write(f"small/{key}", faces[key]), faces))
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for key, face in faces.items():
            info = tarfile.TarInfo(key)
            info.size = len(face)
            tar.addfile(info, io.BytesIO(face))
    store.write("packed/faces.tar", packed.getvalue())


def measure(scratch: Path) -> dict[str, float]:
    """Seconds of each way, once.

    The files stay until the end: ext4 avoids the inodes of files just deleted, so that after the deletion of
    thousands each new one takes ten times as long, whoever writes it.
    """
    seconds = {"boto3 loop, 32 threads": timed(lambda: boto3_loop(scratch / "boto3"))}
    seconds["first night"] = timed(lambda: night("small", scratch))
    seconds["nothing new"] = timed(lambda: night("small", scratch))
    store = open_store(f"s3://{BUCKET}")
    for info in store.list("small")[::100]:
        store.write(info.key, os.urandom(IMAGE_BYTES))
    seconds["1% new"] = timed(lambda: night("small", scratch))
    seconds["first night, one tar"] = timed(lambda: night("packed", scratch / "tar"))
    return seconds


def timed(run: Callable[[], None]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def boto3_loop(directory: Path) -> None:
    """What one writes first: list, then get each object in a pool of threads and write it to a file."""
    client = boto3.client("s3", config=Config(max_pool_connections=THREADS))
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix="small/")
    keys = [item["Key"] for page in pages for item in page["Contents"]]

    def fetch(key: str) -> None:
        path = directory / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(client.get_object(Bucket=BUCKET, Key=key)["Body"].read())

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(fetch, keys))


def night(prefix: str, work_dir: Path) -> None:
    """One ingest as a run does it: a new store, the listing, the fetching, hashes, manifest, cache bound."""
    ingest(
        open_store(f"s3://{BUCKET}"), IngestConfig(sources=(Source(name="faces", prefix=prefix),)), work_dir
    )


def report(seconds: dict[str, float], images: int) -> None:
    full, loop = seconds["first night"], seconds["boto3 loop, 32 threads"]
    print(f"\n{images} images of {IMAGE_BYTES} bytes, S3 on loopback, {os.cpu_count()} cores\n")
    print("| way | seconds | boto3 loop / it | share of a first night |\n|---|---|---|---|")
    for name, taken in seconds.items():
        print(f"| {name} | {taken:.2f} | {loop / taken:.1f}x | {taken / full:.1%} |")


if __name__ == "__main__":
    main()
