"""FER-2013 as its owners publish it: `fer2013.csv`, plain or packed as .gz, .xz or .zip.

In: the file's path. Out: blocks of rows: images uint8 (n, 48, 48), emotions uint8 (n,) 0..6,
usages int8 (n,) 0 train, 1 val, 2 test (Training, PublicTest, PrivateTest), rows int64 (n,) counted
from 0 after the header, in the file's order.

The text is read a block at a time. A block of flawless rows is turned into numbers by a few passes of
numpy over its bytes (`tests/benchmarks/bench_prepare.py` compares it with other parsers); a block with
anything unusual in it (quotes, another column order, a fault) is parsed row by row, which is slow and
exact and says what is wrong with which row.
"""

import csv
import gzip
import lzma
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import numpy as np

from storage.errors import InputError, StressVisionError
from tasks.classes import FER2013_EMOTIONS
from tasks.prepare.threads import Pool

SIDE_PX = 48
USAGES = {b"Training": 0, b"PublicTest": 1, b"PrivateTest": 2}
COLUMNS = ("emotion", "pixels", "Usage")

_PIXELS = SIDE_PX * SIDE_PX
_NEWLINE = 10
_BLOCK_BYTES = 1 << 17
"""Small, so that the arrays of a block stay in the processor's cache and malloc needn't return them."""
_MAX_LINE_BYTES = 1 << 24


@dataclass(frozen=True)
class Rows:
    """A block of rows; `faults` are (row number, what is wrong with it)."""

    images: np.ndarray
    emotions: np.ndarray
    usages: np.ndarray
    rows: np.ndarray
    faults: list[tuple[int, str]]


def read_fer2013(path: Path, name: str, pool: Pool) -> Iterator[Rows]:
    """Rows of fer2013.csv in order, faulty ones listed. `name` is what errors call the file.

    InputError where the file as a whole can't be used: packed wrongly, empty, a column missing.
    """
    with open_packed(path, name) as file:
        columns = _columns(file.readline(), name)
        count = 0
        for rows in pool.in_order(lambda item: parse_rows(*item, columns), _blocks(file, name)):
            count += len(rows.rows) + len(rows.faults)
            yield rows
    if count == 0:
        raise InputError(f"{name}: expected rows of {','.join(COLUMNS)}, got a header and no row")


_DAMAGED = (
    EOFError, OSError, RuntimeError, NotImplementedError, lzma.LZMAError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""What reading a damaged archive raises; RuntimeError is a password, OSError a place before its beginning."""


@contextmanager
def open_packed(path: Path, name: str) -> Iterator[IO[bytes]]:
    """The file's bytes, unpacked as its first bytes say (a cached file has no ending to go by)."""
    with path.open("rb") as file:
        magic = file.read(6)
    try:
        if magic.startswith(b"PK\x03\x04"):
            with zipfile.ZipFile(path) as archive, archive.open(_csv_member(archive, name)) as file:
                yield file
        elif magic.startswith(b"\x1f\x8b"):
            with gzip.open(path) as file:
                yield cast(IO[bytes], file)
        elif magic.startswith(b"\xfd7zXZ"):
            with lzma.open(path) as file:
                yield cast(IO[bytes], file)
        else:
            with path.open("rb") as file:
                yield file
    except StressVisionError:
        raise
    except _DAMAGED as error:
        raise InputError(
            f"{name}: can't be unpacked ({error}); expected a whole archive without a password"
        ) from None


def _csv_member(archive: zipfile.ZipFile, name: str) -> str:
    members = [
        member for member in archive.namelist() if member.endswith(".csv") and "__MACOSX" not in member
    ]
    wanted = [member for member in members if Path(member).name == "fer2013.csv"] or members
    if len(wanted) != 1:
        raise InputError(f"{name}: expected one .csv in the archive, got {wanted or archive.namelist()[:5]}")
    return wanted[0]


def _columns(header: bytes, name: str) -> tuple[int, int, int]:
    """Where emotion, pixels and Usage stand in a row."""
    if not header.strip():
        raise InputError(f"{name}: the file is empty, expected the header {','.join(COLUMNS)}")
    names = [column.strip().strip('"') for column in header.decode("utf-8-sig", "replace").split(",")]
    missing = [column for column in COLUMNS if column not in names]
    if missing:
        raise InputError(
            f"{name}: header: expected the columns {','.join(COLUMNS)}, got {str(names)[:200]}; "
            "take the file as Kaggle has it, with commas"
        )
    emotion, pixels, usage = (names.index(column) for column in COLUMNS)
    return emotion, pixels, usage


def _blocks(file: IO[bytes], name: str) -> Iterator[tuple[bytes, int]]:
    """Whole lines of some `_BLOCK_BYTES` together, each with the number of its first row."""
    rest, row = b"", 0
    while block := file.read(_BLOCK_BYTES):
        block = rest + block
        cut = block.rfind(b"\n") + 1
        block, rest = block[:cut], block[cut:]
        if len(rest) > _MAX_LINE_BYTES:
            raise InputError(
                f"{name}: row {row + 1}: expected a line of some 8 kB, got over {len(rest)} bytes"
            )
        block, rows = _plain_lines(block)
        if rows:
            yield block, row
            row += rows
    block, rows = _plain_lines(rest + b"\n")
    if rows:
        yield block, row


def _plain_lines(block: bytes) -> tuple[bytes, int]:
    """Whole lines without carriage returns and empty ones, which count as no row; and how many they are."""
    # by numpy, because `in` and `count` of bytes take ten times as long
    ends = np.frombuffer(block, np.uint8) == _NEWLINE
    if b"\r" in block or block.startswith(b"\n") or (ends[1:] & ends[:-1]).any():
        lines = [line.strip() + b"\n" for line in block.split(b"\n") if line.strip()]
        return b"".join(lines), len(lines)
    return block, int(np.count_nonzero(ends))


def parse_rows(block: bytes, first_row: int, columns: tuple[int, int, int] = (0, 1, 2)) -> Rows:
    """The rows of a block of whole lines."""
    parsed = _parse_flawless(block, first_row) if columns == (0, 1, 2) else None
    return parsed or _parse_each(block, first_row, columns)


def _parse_flawless(block: bytes, first_row: int) -> Rows | None:
    """All rows of a block at once, or None where one of them is not exactly `d,ddd … ddd,Usage`."""
    digits = np.frombuffer(b"\n\n" + block, np.uint8) - np.uint8(48)
    is_digit = digits < 10
    ends = np.flatnonzero(is_digit[2:-1] > is_digit[3:])
    lines = np.flatnonzero(np.frombuffer(block, np.uint8) == _NEWLINE)
    if len(lines) == 0 or len(ends) != len(lines) * (_PIXELS + 1):
        return None
    ends = ends.reshape(len(lines), _PIXELS + 1)
    usages = _usages(block, ends[:, -1] + 2, lines)
    if usages is None or not _is_regular(block, is_digit[2:], ends, lines):
        return None
    values = _values_up_to(digits, is_digit)
    if values is None:
        return None
    emotions, pixels = np.split(values[ends], [1], axis=1)
    if emotions.max() >= len(FER2013_EMOTIONS):
        return None
    rows = np.arange(first_row, first_row + len(lines))
    return Rows(pixels.reshape(-1, SIDE_PX, SIDE_PX), emotions[:, 0], usages, rows, faults=[])


def _is_regular(block: bytes, is_digit: np.ndarray, ends: np.ndarray, lines: np.ndarray) -> bool:
    """Commas, blanks and line ends where they belong, and nothing else.

    `ends` are the places of each number's last digit. Every row holds at least one byte that is no digit
    after each number, its Usage and its line end, so that the sums being exact mean each row is.
    """
    text = np.frombuffer(block, np.uint8)
    return bool(
        (ends[1:, 0] == lines[:-1] + 1).all()
        and ends[0, 0] == 0
        and (text[ends[:, [0, -1]] + 1] == ord(",")).all()
        and np.count_nonzero(text == ord(" ")) == len(lines) * (_PIXELS - 1)
        and len(text) - np.count_nonzero(is_digit) == ends.size + int((lines - ends[:, -1] - 1).sum())
    )


def _values_up_to(digits: np.ndarray, is_digit: np.ndarray) -> np.ndarray | None:
    """At each place from the third the number that ends there, uint8; None where one exceeds 255."""
    digits *= is_digit
    in_third = is_digit[2:] & is_digit[1:-1]
    in_third &= is_digit[:-2]
    hundreds = digits[:-2] * in_third
    if (in_third[1:] & in_third[:-1]).any() or hundreds.max() > 2:
        return None
    values = digits[1:-1] * np.uint8(10)
    values += digits[2:]
    hundreds *= np.uint8(100)
    values += hundreds
    return None if (values < hundreds).any() else values


def _usages(block: bytes, starts: np.ndarray, ends: np.ndarray) -> np.ndarray | None:
    found = [USAGES.get(block[a:b], -1) for a, b in zip(starts.tolist(), ends.tolist(), strict=True)]
    return None if -1 in found else np.array(found, np.int8)


def _parse_each(block: bytes, first_row: int, columns: tuple[int, int, int]) -> Rows:
    """Row by row, as the csv module sees them."""
    images, emotions, usages, numbers, faults = [], [], [], [], []
    for row, line in enumerate(block.decode("utf-8", "replace").split("\n")[:-1], start=first_row):
        try:
            emotion, pixels, usage = parse_row(line, columns)
        except ValueError as error:
            faults.append((row, str(error)))
            continue
        images.append(pixels)
        emotions.append(emotion)
        usages.append(usage)
        numbers.append(row)
    return Rows(
        images=np.array(images, np.uint8).reshape(-1, SIDE_PX, SIDE_PX),
        emotions=np.array(emotions, np.uint8),
        usages=np.array(usages, np.int8),
        rows=np.array(numbers, np.int64),
        faults=faults,
    )


def parse_row(line: str, columns: tuple[int, int, int] = (0, 1, 2)) -> tuple[int, np.ndarray, int]:
    """One row's emotion, pixels uint8 (2304,) and usage. ValueError says what was expected and got."""
    try:
        cells = next(csv.reader([line], skipinitialspace=True), [])
    except csv.Error as error:
        raise ValueError(f"expected {len(COLUMNS)} columns, got a line that is no CSV ({error})") from None
    if len(cells) <= max(columns):
        raise ValueError(f"expected {len(COLUMNS)} columns, got {len(cells)}")
    emotion, pixels, usage = (cells[column].strip() for column in columns)
    if not (emotion.isascii() and emotion.isdigit() and int(emotion) < len(FER2013_EMOTIONS)):
        raise ValueError(f"expected an emotion of 0 to {len(FER2013_EMOTIONS) - 1}, got {emotion[:20]!r}")
    if usage.encode() not in USAGES:
        raise ValueError(f"expected a Usage of {[name.decode() for name in USAGES]}, got {usage[:20]!r}")
    return int(emotion), _parse_pixels(pixels), USAGES[usage.encode()]


def _parse_pixels(text: str) -> np.ndarray:
    words = text.split()
    if len(words) != _PIXELS:
        raise ValueError(f"expected {_PIXELS} pixels, got {len(words)}")
    for place, word in enumerate(words):
        if not (word.isascii() and word.isdigit() and len(word) <= 3 and int(word) <= 255):
            raise ValueError(f"expected pixels of 0 to 255, got {word[:20]!r} as pixel {place + 1}")
    return np.array(words, np.uint16).astype(np.uint8)
