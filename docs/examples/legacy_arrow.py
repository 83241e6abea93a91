"""The same with frames that PyArrow holds: ``python legacy_arrow.py EXPORT.csv``.

Text lies in Arrow's buffers instead of one Python object for each cell, money is an exact decimal, and what
is missing stays missing instead of making floats of a column's numbers.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa
from legacy_csv import CHUNK, COLUMNS, STATUS

from streams import log, settings
from streams.feed import Feed, Row

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
    done = 0
    with pd.read_csv(
        path,
        sep=";",
        encoding="latin-1",
        dtype=dict.fromkeys(COLUMNS, TEXT),
        dtype_backend="pyarrow",
        keep_default_na=False,  # an advertiser may be called NA
        na_values={"Dauer": [""], "Preis": [""]},
        chunksize=CHUNK,
    ) as reader:
        for frame in reader:
            done += len(frame)
            if done > position:
                rest = cleaned(frame).tail(done - position)
                yield rest.itertuples(index=False, name=None), done


def main(path: str) -> None:
    """Feed the export, under its own name: the next one begins at its first row."""
    ours = settings.load()
    log.configure(ours.log)
    with Feed(ours, f"legacy-{Path(path).stem}", profile="avion", header=COLUMNS.values()) as feed:
        for rows, position in chunks(path, feed.position or 0):
            feed.publish(rows, position)


if __name__ == "__main__":
    main(sys.argv[1])
