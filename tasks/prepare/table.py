"""Tables as people and spreadsheets write them: CSV with commas or semicolons, TSV, words a line, in UTF-8.

In: a file. Out: its columns as text, nothing guessed of it.
"""

import io
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING, Any

from storage.errors import InputError
from storage.files import chunks_of, gather

if TYPE_CHECKING:
    import pandas as pd

_LINE_BYTES = 100_000
_TABLE_BYTES = 64 << 20
"""FER+ has 2 MB; a `groups.csv` of a million photos some 40. What is packed may be longer than it looks."""


def layout_of(file: IO[bytes]) -> dict[str, Any]:
    """How pandas reads a table whose first line is that of `file`, which is at its beginning again after."""
    line = file.readline(_LINE_BYTES)
    file.seek(0)
    separator = next((sign for sign in ("\t", ",", ";") if sign.encode() in line), r"\s+")
    return {"sep": separator, "dtype": str, "keep_default_na": False, "encoding": "utf-8-sig"}


def read_table(file: IO[bytes], name: str, columns: Sequence[str]) -> "pd.DataFrame":
    """These columns, by the header; a cell that isn't there is empty.

    InputError, which calls the file `name`, where it is no such table.
    """
    import pandas as pd

    try:
        # the header as a row like others: of a row with more cells than that pandas makes an index
        content = io.BytesIO(gather(chunks_of(file), name, _TABLE_BYTES))
        table = pd.read_csv(content, **layout_of(content), header=None, encoding_errors="replace")
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise InputError(f"{name}: can't be read as CSV ({error}); expected {','.join(columns)}") from None
    header = [str(cell).strip() for cell in table.iloc[0]]
    if not set(columns) <= set(header):
        raise InputError(f"{name}: expected the header {','.join(columns)}, got {','.join(header)[:200]!r}")
    rows = table.iloc[1:, [header.index(column) for column in columns]].fillna("")
    rows.columns = list(columns)
    return rows
