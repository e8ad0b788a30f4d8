"""Parsing fer2013.csv: fast on flawless rows, exact on all, errors that a person can act on."""

import gzip
import lzma
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from storage.errors import InputError
from tasks.prepare.fer2013 import parse_row, parse_rows, read_fer2013
from tasks.prepare.ferplus import read_ferplus
from tasks.prepare.threads import Pool
from tests.tasks.small_source import row

HEADER = b"emotion,pixels,Usage\n"
RAMP = (np.arange(2304) % 256).astype(np.uint8)
GOOD = row(RAMP)

FAULTS = {
    "too few pixels": (row(RAMP[:-1]), "expected 2304 pixels, got 2303"),
    "too many pixels": (row(np.append(RAMP, 1)), "expected 2304 pixels, got 2305"),
    "a pixel of 300": (
        GOOD.replace(" 255 ", " 300 ", 1),
        "pixels of 0 to 255, got '300' as pixel 256",
    ),
    "a negative pixel": (GOOD.replace(" 25 ", " -5 ", 1), "got '-5' as pixel 26"),
    "a fraction": (GOOD.replace(" 100 ", " 1.0 ", 1), "got '1.0' as pixel 101"),
    "an unknown emotion": (row(RAMP, emotion=7), "expected an emotion of 0 to 6, got '7'"),
    "no emotion": (GOOD[1:], "expected an emotion of 0 to 6, got ''"),
    "an unknown usage": (row(RAMP, usage="Trainings"), "got 'Trainings'"),
    "a missing column": (GOOD.rpartition(",")[0], "expected 3 columns, got 2"),
    "a pixel lost to a blank": (GOOD.replace(" 77 ", "  ", 1), "expected 2304 pixels, got 2303"),
}


def read(path: Path) -> tuple[np.ndarray, list[int], list[tuple[int, str]]]:
    with Pool(2) as pool:
        blocks = list(read_fer2013(path, "fer2013: fer2013.csv", pool))
    images = np.concatenate([block.images for block in blocks])
    faults = [fault for block in blocks for fault in block.faults]
    return images, [number for block in blocks for number in block.rows.tolist()], faults


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_row_is_told_and_its_neighbours_are_kept(fault: str):
    line, message = FAULTS[fault]
    rows = parse_rows("\n".join([GOOD, line, GOOD, ""]).encode(), first_row=10)
    assert rows.rows.tolist() == [10, 12]
    assert (rows.images.reshape(2, -1) == RAMP).all()
    [(number, why)] = rows.faults
    assert number == 11
    assert message in why


@settings(max_examples=40, deadline=None)
@given(
    some.lists(
        some.tuples(
            some.integers(0, 6),
            some.sampled_from(["Training", "PublicTest", "PrivateTest"]),
            some.integers(0, 2**32 - 1),
            some.sampled_from([None, *FAULTS]),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_a_block_gives_what_its_rows_give_one_by_one(rows: list[tuple]):
    lines = []
    for emotion, usage, seed, fault in rows:
        image = np.random.default_rng(seed).integers(0, 256, 2304)
        lines.append(FAULTS[fault][0] if fault else row(image, emotion, usage))
    block = parse_rows(("\n".join(lines) + "\n").encode(), first_row=0)
    expected = [parse_row(line) for line, (*_, fault) in zip(lines, rows, strict=True) if not fault]
    assert block.emotions.tolist() == [emotion for emotion, _, _ in expected]
    assert block.usages.tolist() == [usage for _, _, usage in expected]
    assert all(
        (image.ravel() == pixels).all() for image, (_, pixels, _) in zip(block.images, expected, strict=True)
    )
    assert [number for number, _ in block.faults] == [n for n, (*_, fault) in enumerate(rows) if fault]


@settings(max_examples=60, deadline=None)
@given(some.binary(max_size=300), some.integers(0, 3))
def test_any_bytes_within_a_row_are_a_fault_or_an_image_never_a_crash(noise: bytes, place: int):
    text = GOOD.encode()
    cut = (0, 2, 500, len(text))[place]
    block = b"".join([text[:cut], noise.replace(b"\n", b"").replace(b"\r", b""), text[cut:], b"\n"])
    rows = parse_rows(block, 0)
    assert len(rows.rows) + len(rows.faults) == 1


@pytest.mark.parametrize("packing", ["plain", "gz", "xz", "zip"])
def test_a_packed_file_reads_like_the_plain_one(tmp_path: Path, packing: str):
    content = HEADER + "\n".join([GOOD] * 5).encode()
    path = tmp_path / "blob"
    if packing == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("fer2013/fer2013.csv", content)
    else:
        path.write_bytes({"plain": bytes, "gz": gzip.compress, "xz": lzma.compress}[packing](content))
    images, rows, faults = read(path)
    assert rows == [0, 1, 2, 3, 4]
    assert (images.reshape(5, -1) == RAMP).all()
    assert faults == []


@pytest.mark.parametrize(
    "content",
    [
        HEADER.replace(b"\n", b"\r\n") + f"{GOOD}\r\n{GOOD}\r\n".encode(),
        HEADER + f"{GOOD}\n\n{GOOD}\n\n\n".encode(),
        b"\xef\xbb\xbf" + HEADER + f"{GOOD}\n{GOOD}".encode(),
        HEADER + f'3,"{GOOD.split(",")[1]}",Training\n{GOOD}\n'.encode(),
        b"emotion, Usage, pixels\n" + f"3, Training, {GOOD.split(',')[1]}\n".encode() * 2,
    ],
    ids=["carriage returns", "empty lines", "byte order mark", "quoted pixels", "another column order"],
)
def test_other_spellings_of_the_same_rows_are_read(tmp_path: Path, content: bytes):
    path = tmp_path / "blob"
    path.write_bytes(content)
    images, rows, faults = read(path)
    assert (rows, faults) == ([0, 1], [])
    assert (images.reshape(2, -1) == RAMP).all()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (HEADER, "a header and no row"),
        (b"emotion,pixel,Usage\n1,2,Training\n", "expected the columns emotion,pixels,Usage, got"),
        (gzip.compress(HEADER + GOOD.encode() * 50)[:-20], "can't be unpacked"),
        (lzma.compress(HEADER + GOOD.encode() * 50)[:-20], "can't be unpacked"),
        (b"PK\x03\x04 is no archive", "can't be unpacked"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_error_that_names_it(tmp_path: Path, content: bytes, message: str):
    path = tmp_path / "blob"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read(path)
    assert "fer2013: fer2013.csv" in str(caught.value)


def test_row_numbers_go_on_across_blocks(tmp_path: Path):
    path = tmp_path / "blob"
    path.write_bytes(HEADER + "\n".join([*[GOOD] * 300, "broken", *[GOOD] * 99]).encode())
    _, rows, faults = read(path)
    assert rows == [*range(300), *range(301, 400)]
    assert [number for number, _ in faults] == [300]


VOTES = "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"


def test_votes_are_read_in_their_files_order_without_those_of_a_single_annotator(tmp_path: Path) -> None:
    (tmp_path / "votes.csv").write_text(
        f"{VOTES}\nTraining,,4,0,1,0,0,0,0,0,0,5\nTraining,,0,0,3,0,4,3,0,0,0,0\n"
    )
    table = read_ferplus(tmp_path / "votes.csv", "votes.csv")
    assert table.votes.tolist() == [[4, 0, 0, 0, 0, 0, 0, 5], [3, 7, 0, 0, 0, 0, 0, 0]]
    assert table.emotions.tolist() == [[4, 0, 0, 0, 0, 0, 0, 0], [0, 3, 4, 3, 0, 0, 0, 0]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "votes.csv: can't be read as CSV"),
        ("<!DOCTYPE html>\n<html>\n", "votes.csv: expected the header neutral,.*got '<!DOCTYPE"),
        (f"{VOTES}\nTraining,,4,0,1\n", "row 0: sadness: expected 0 to 20 votes, got ''"),
        (f"{VOTES}\n{'Training,,4,0,1,0,0,0,0,0,0,5' * 2}\n", "can't be read as CSV"),
        (f"{VOTES}\n,,4,0,1,0,0,0,0,0,0,5\n,,4,0,1,0,0,0,0,0,0,21\n", "row 1: NF: .*got '21'; take the file"),
    ],
)
def test_votes_that_are_none_or_half_are_one_clear_error(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "votes.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        read_ferplus(tmp_path / "votes.csv", "votes.csv")
