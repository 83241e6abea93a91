"""The same with frames that PyArrow holds: ``python legacy_arrow.py EXPORT.csv``.

Text lies in Arrow's buffers instead of one Python object for each cell, money is an exact decimal, and what
is missing stays missing instead of making floats of a column's numbers.
"""

import sys
from collections.abc import Iterator

import pandas as pd
import pyarrow as pa
from legacy_csv import CHUNK, COLUMNS, STATUS, after, feed

from streams.feed import Row

TEXT = pd.ArrowDtype(pa.string())
LISTED = pd.ArrowDtype(pa.dictionary(pa.int32(), pa.string()))
SMALL = pd.ArrowDtype(pa.uint16())
MONEY = pd.ArrowDtype(pa.decimal128(12, 2))


def cleaned(frame: pd.DataFrame) -> pd.DataFrame:
    """A chunk as the profile expects it."""
    frame["Stand"] = frame["Stand"].replace(STATUS).astype(LISTED)
    frame["Datum"] = pd.to_datetime(frame["Datum"], format="%d.%m.%Y").dt.strftime("%m/%d/%Y")
    frame["Dauer"] = frame["Dauer"].str.removesuffix(" s").astype(SMALL)
    frame["Preis"] = frame["Preis"].str.replace(".", "").str.replace(",", ".").astype(MONEY)
    return frame.rename(columns=COLUMNS)


def chunks(path: str, position: int) -> Iterator[tuple[Iterator[Row], int]]:
    """What comes after the first ``position`` rows: some rows, and how many there are with them."""
    with pd.read_csv(
        path,
        sep=";",
        encoding="latin-1",
        dtype=dict.fromkeys(COLUMNS, TEXT),
        dtype_backend="pyarrow",
        keep_default_na=False,  # an advertiser may be called NA
        na_values={"Dauer": [""], "Preis": [""]},
        chunksize=CHUNK,
    ) as frames:
        yield from after(position, frames, cleaned)


if __name__ == "__main__":
    feed(sys.argv[1], chunks)
