"""Which photo of fer2013.csv an image shows, told by its content: folders of JPEGs have lost the rows' order.

In: grey images uint8 (n, 48, 48), as they are or after JPEG. Out: numbers int64 (n,) of photos, each of which
is one or more rows of fer2013.csv.

An image's fingerprint is the signs of its 128 lowest frequencies (of the cosine transform) but the mean: 16
bytes, from which no picture can be made. Those of all rows lie beside this file, made from fer2013.csv by

    python -m tasks.prepare.fer2013_rows fer2013.csv

Of 2,000 images as JPEG of quality 95, 75 and 50 the fingerprints are 0 to 1 bits off as a rule, 3, 7 and 10
at most; of 1,157 faces from elsewhere the nearest row is 22 bits away or more, of a row the next one mostly
12 to 35.
"""

import sys
from functools import cache
from pathlib import Path

import numpy as np

from storage.errors import InputError
from storage.files import replacing
from tasks.prepare.fer2013 import SIDE_PX, read_fer2013
from tasks.prepare.ferplus import Table
from tasks.prepare.threads import Pool

TABLE = Path(__file__).with_name("fer2013_rows.npy")
"""uint64 (35887, 2): the fingerprint of each row."""
ROWS = 35_887
MAX_BITS_OFF = 14
"""An image further from every row shows none of them."""
MIN_BITS_APART = 2
"""By so much another photo must be further away, or the image might show either."""
UNKNOWN, AMBIGUOUS = -1, -2

_BITS, _ORDERS = 128, 16
_PAIRS = sorted(((u, v) for u in range(_ORDERS) for v in range(_ORDERS)), key=lambda pair: (sum(pair), pair))
_U, _V = np.array(_PAIRS[1 : _BITS + 1]).T
_WAVES = np.rint(1000 * np.cos(np.pi * np.arange(_ORDERS)[:, None] * (np.arange(SIDE_PX) + 0.5) / SIDE_PX))
"""Whole numbers, so that sums are exact on every machine."""


def fingerprints(images: np.ndarray) -> np.ndarray:
    """Of grey images uint8 (n, 48, 48), packed, uint64 (n, 2)."""
    spectra = _WAVES @ images.astype(np.float64) @ _WAVES.T
    signs = np.packbits(spectra[:, _U, _V] > 0, axis=1)
    return np.ascontiguousarray(signs).view("<u8")


def recognise(images: np.ndarray) -> np.ndarray:
    """What each of uint8 (n, 48, 48) shows, int64 (n,): a number of `photos`, UNKNOWN or AMBIGUOUS."""
    return np.array([_nearest(one) for one in fingerprints(images)], np.int64)


def photos() -> np.ndarray:
    """The photo that each row of fer2013.csv shows, numbered from 0, int64 (35887,)."""
    return _known()[1]


def by_photo(table: Table, name: str) -> Table:
    """FER+'s votes by photo instead of by row: those of all rows that show it. InputError for other rows."""
    if len(table) != ROWS:
        raise InputError(
            f"{name}: fer2013new.csv has {len(table)} rows, expected {ROWS}, one for each of fer2013.csv, to "
            "find an image's row by its content; take the file from FER+'s repository"
        )
    return Table(_summed(table.votes), _summed(table.emotions))


def _summed(votes: np.ndarray) -> np.ndarray:
    sums = np.zeros((len(_known()[0][0]), votes.shape[1]), np.int64)
    np.add.at(sums, photos(), votes)
    return sums.clip(max=255).astype(np.uint8)  # of a dozen black images alone there are more votes


def _nearest(fingerprint: np.ndarray) -> int:
    known = _known()[0]
    off = np.bitwise_count(known[0] ^ fingerprint[0])
    off += np.bitwise_count(known[1] ^ fingerprint[1])
    photo = int(off.argmin())
    if off[photo] > MAX_BITS_OFF:
        return UNKNOWN
    return AMBIGUOUS if np.count_nonzero(off < off[photo] + MIN_BITS_APART) > 1 else photo


@cache
def _known() -> tuple[np.ndarray, np.ndarray]:
    """The distinct fingerprints, uint64 (2, photos), and of each row which one it has."""
    distinct, numbers = np.unique(np.load(TABLE), axis=0, return_inverse=True)
    return np.ascontiguousarray(distinct.T), numbers


def write_table(source: Path, target: Path = TABLE) -> None:
    """Write the fingerprints of the rows of fer2013.csv. InputError where it isn't all of FER-2013."""
    with Pool(0) as pool:
        blocks = list(read_fer2013(source, str(source), pool))
    count = sum(len(block.rows) for block in blocks)
    if count != ROWS:
        raise InputError(f"{source}: expected {ROWS} good rows, got {count}; take the file as published")
    with replacing(target) as file:
        np.save(file, np.concatenate([fingerprints(block.images) for block in blocks]))


if __name__ == "__main__":
    write_table(Path(sys.argv[1]))
