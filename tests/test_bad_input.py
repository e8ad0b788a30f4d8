"""Whatever lies in a file or in the store is read, or refused by an error of ours, never by a traceback.

python -m pytest tests/test_bad_input.py --hypothesis-profile thorough       # 10,000 of each
"""

import gzip
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from deployments.fleet import load_fleet
from flows.config import load_config
from flows.nightly import FormData, NightForm, whole_config
from flows.signers import sign_list
from flows.template import config_template
from flows.variants import load_sweep
from storage.errors import InputError, StressVisionError
from storage.identity import store_identity
from storage.lease import lease
from storage.manifest import Manifest
from storage.opening import open_store
from storage.registry import Registry
from tasks.config import RetrainConfig
from tasks.ingest.blobs import blob_path
from tasks.ingest.manifest import SourceFile, load_objects
from tasks.night import load_night
from tasks.prepare.fer2013 import read_fer2013
from tasks.prepare.ferplus import read_ferplus
from tasks.prepare.known import read_known
from tasks.prepare.lists import read_list
from tasks.prepare.persons import read_persons
from tasks.prepare.threads import Pool
from tasks.report.history import read_history

PIXELS = " ".join(["7"] * 2304)


class Parser(NamedTuple):
    """What reads a file at a path, and a file that it takes."""

    read: Callable[[Path], object]
    valid: bytes


def zipped(content: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("fer2013.csv", content)
    return packed.getvalue()


def fer2013(path: Path) -> None:
    with Pool(1) as pool:
        for _ in read_fer2013(path, "fer2013.csv", pool):
            pass


def groups(path: Path) -> None:
    files = {key: SourceFile(key, 1, "ab" * 32) for key in ("groups.csv", "stress/a.png")}
    blob = blob_path(path.parent, "ab" * 32)
    blob.parent.mkdir(parents=True, exist_ok=True)
    blob.write_bytes(path.read_bytes())
    read_persons("custom", files, path.parent)


def in_store(key: str, read: Callable[[Path], object]) -> Callable[[Path], object]:
    """The file as the object `key` of a store."""

    def reading(path: Path) -> object:
        store = path.with_name("store")
        open_store(store).write(key, path.read_bytes())
        return read(store)

    return reading


def held(store: Path) -> None:
    with lease(open_store(store), "fleet", "test", settle_s=0.0):
        pass


FER2013 = f"emotion,pixels,Usage\n3,{PIXELS},Training\n0,{PIXELS},PublicTest\n".encode()
FERPLUS = (
    b"Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF\n"
    b"Training,a.png,4,0,0,1,3,2,0,0,0,0\n"
)
DEVICE = {"device": "pi-1", "outcome": "updated", "reason": "", "seen_at": "2026-11-24T02:15:00Z"}
PARSERS = {
    "fer2013.csv": Parser(fer2013, FER2013),
    "fer2013.zip": Parser(fer2013, zipped(FER2013)),
    "fer2013.gz": Parser(fer2013, gzip.compress(FER2013)),
    "fer2013new.csv": Parser(lambda path: read_ferplus(path, "fer2013new.csv"), FERPLUS),
    "labels.csv": Parser(lambda path: read_list(path, "labels.csv"), b"file,label\n1.png,happy\n2.png,sad\n"),
    "groups.csv": Parser(groups, b"file,group\nstress/a.png,anna\n"),
    "retrain.toml": Parser(lambda path: load_config(path, {}), config_template(RetrainConfig()).encode()),
    "fleet.toml": Parser(load_fleet, Path("deployments/fleet.example.toml").read_bytes()),
    "latest.json": Parser(load_objects, b'{"uri": "s3://a", "objects": [["a", "1", [["a", 3, "ab"]]]]}'),
    "champion.json": Parser(
        in_store("models/champion.json", lambda store: Registry(open_store(store)).champion()),
        b'{"version": "v1", "promoted_at": "2026-11-24T02:15:00Z", "previous": null, "anchor": "v1"}',
    ),
    "device.json": Parser(
        in_store("fleet/pi-1.json", lambda store: Registry(open_store(store)).device("pi-1")),
        json.dumps(DEVICE).encode(),
    ),
    "manifest.json": Parser(lambda path: Manifest.parse(path.read_bytes(), "manifest.json", "v1"), b"{}"),
    "store.json": Parser(
        in_store("store.json", lambda store: store_identity(open_store(store))), b'{"id": "ab"}'
    ),
    "lease.json": Parser(
        in_store("leases/fleet.json", held),
        b'{"token": "a", "holder": "b", "since": "2026-11-24T02:15:00Z", "renewed_at": 9e9, "ttl_s": 0.01}',
    ),
    "night.json": Parser(
        in_store("nights/ab.json", lambda store: load_night(open_store(store), "ab", store)), b'{"id": "a"}'
    ),
    "history.json": Parser(
        in_store("history/a.json", lambda store: read_history(open_store(store))),
        b'{"id": "a", "started_at": "2026-11-24T02:15:00Z", "preset": "balanced", "outcome": "Rejected"}',
    ),
    "pairs.npz": Parser(read_known, b"PK\x03\x04"),
}
PIECES = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [
            b"",
            b"\0",
            b'"',
            b",",
            b"\n",
            b"\xff\xfe",
            b"null",
            b"[]",
            b"{}",
            b"-1",
            b"1e999",
            b"NaN",
            b"9" * 400,
        ]
    ),
)


@st.composite
def mutated(draw: st.DrawFn, valid: bytes) -> bytes:
    """`valid` with a few stretches of it replaced, doubled or cut off."""
    content = valid
    for _ in range(draw(st.integers(1, 3))):
        begin = draw(st.integers(0, len(content)))
        end = draw(st.integers(begin, min(len(content), begin + 60)))
        piece = draw(PIECES)
        content = content[:begin] + piece + content[draw(st.sampled_from((end, len(content)))) :]
    return content


@pytest.mark.parametrize("name", PARSERS)
def test_a_damaged_file_is_read_or_refused_by_our_own_error(
    name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("damaged") / "file"
    read, valid = PARSERS[name]

    @settings(
        deadline=None,
        suppress_health_check=(HealthCheck.function_scoped_fixture, HealthCheck.too_slow),
        derandomize=True,
    )
    @given(mutated(valid))
    @example(b"")
    @example(b"\xff" * 300)
    @example(valid[: len(valid) // 2])
    @example(b'"' + b"a" * 200_000 + b'"\n')
    @example(valid.replace(b",", b"," + b"a" * 200_000 + b",", 1))
    @example(valid + b'"' + b"a," * 100_000)
    @example(b"[" * 100_000)
    @example(b"1" * 5_000)
    @example(b"a = " + b"1" * 5_000)
    @example(b"a = 0x" + b"f" * 5_000)
    @example(b"a = " + b"[" * 5_000)
    def try_reading(content: bytes) -> None:
        path.write_bytes(content)
        try:
            read(path)
        except StressVisionError as error:
            assert len(str(error)) < 4_000

    try_reading()


def test_an_archive_with_a_password_is_refused_by_name(tmp_path: Path) -> None:
    content = bytearray(zipped(FER2013))
    for header, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(header) + flags] |= 1
    (tmp_path / "locked.zip").write_bytes(content)
    with pytest.raises(StressVisionError, match="password"):
        fer2013(tmp_path / "locked.zip")


@pytest.mark.parametrize(
    "read",
    [
        load_fleet,
        lambda path: load_config(path, {}),
        load_sweep,
        lambda path: sign_list(str(path.parent), [path]),
        in_store("retrain.toml", lambda store: whole_config(NightForm(data=FormData(store=str(store))))),
        groups,
        lambda path: read_ferplus(path, "fer2013new.csv"),
    ],
    ids=["inventory", "config", "sweep", "key", "settings", "groups", "votes"],
)
def test_what_a_person_names_is_read_up_to_a_bound(tmp_path: Path, read: Callable[[Path], object]) -> None:
    """As of /dev/zero, which a test that fails had better not read."""
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets/any.jpg").touch()
    (tmp_path / "store").mkdir()
    path = tmp_path / "long"
    path.write_bytes(bytes((64 << 20) + 1))
    with pytest.raises(InputError, match=r"expected at most .* bytes, got more"):
        read(path)


def test_a_packed_file_is_read_up_to_a_bound(tmp_path: Path) -> None:
    path = tmp_path / "long.gz"
    path.write_bytes(gzip.compress(bytes((64 << 20) + 1)))
    assert path.stat().st_size < 1 << 20
    with pytest.raises(InputError, match=r"fer2013new\.csv: expected at most"):
        read_ferplus(path, "fer2013new.csv")
