"""A legacy export, cleaned chunk by chunk with pandas: ``python legacy_csv.py EXPORT.csv``.

Run again after whatever stopped it, it goes on after the last row that is committed. Memory holds one chunk
of rows, in the smallest types that do, and what is on its way to Kafka.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pandas as pd

from streams import log, settings
from streams.feed import Feed, Row

CHUNK = 20_000

#: The export's columns, by the headings that spotstream's profile knows.
COLUMNS = {
    "Art": "Type",
    "Sender": "Call Sign",
    "Datum": "Air Date",
    "SpotNr": "Spot ID",
    "Kampagne": "Campaign",
    "Kunde": "Advertiser Name",
    "Motiv": "ISCI",
    "Zeit": "Time",
    "Dauer": "Len",
    "Zone": "Daypart",
    "Stand": "Status",
    "Preis": "Spot Rate",
    "Abrechnung": "Bill Code",
}

#: What repeats is kept once. Nothing is read as a float: money and ids are text, as they were exported.
TYPES = dict.fromkeys(COLUMNS, "str") | dict.fromkeys(
    ("Art", "Sender", "Datum", "Kampagne", "Kunde", "Zone", "Stand", "Abrechnung"), "category"
)

STATUS = {"gesendet": "CLEARED", "geplant": "SCHEDULED", "verdrängt": "PREEMPTED", "entfallen": "MISSED"}


def cleaned(frame: pd.DataFrame) -> pd.DataFrame:
    """A chunk as the profile expects it."""
    # Of a category only its few values are changed, not each row.
    frame["Stand"] = frame["Stand"].cat.rename_categories(STATUS)
    frame["Datum"] = frame["Datum"].cat.rename_categories(lambda day: "/".join((day[3:5], day[:2], day[6:])))
    frame["Dauer"] = pd.to_numeric(frame["Dauer"].str.removesuffix(" s"), downcast="unsigned")
    frame["Preis"] = frame["Preis"].str.replace(".", "").str.replace(",", ".")
    return frame.rename(columns=COLUMNS)


def chunks(path: str, position: int) -> Iterator[tuple[Iterator[Row], int]]:
    """What comes after the first ``position`` rows: some rows, and how many there are with them."""
    with pd.read_csv(
        path,
        sep=";",
        encoding="latin-1",
        dtype=TYPES,
        keep_default_na=False,  # an advertiser may be called NA
        chunksize=CHUNK,
    ) as frames:
        yield from after(position, frames, cleaned)


def after(
    position: int, frames: Iterable[pd.DataFrame], clean: Callable[[pd.DataFrame], pd.DataFrame]
) -> Iterator[tuple[Iterator[Row], int]]:
    """The rows of ``frames`` after the first ``position``, cleaned, and how many there are with them."""
    done = 0
    for frame in frames:
        done += len(frame)
        if done > position:
            rest = clean(frame).tail(done - position)
            yield rest.itertuples(index=False, name=None), done


def feed(path: str, chunks: Callable[[str, int], Iterator[tuple[Iterator[Row], int]]]) -> None:
    """Feed the export, under its own name: the next one begins at its first row."""
    ours = settings.load()
    log.configure(ours.log)
    with Feed(ours, f"legacy-{Path(path).stem}", profile="avion", header=COLUMNS.values()) as feed:
        for rows, position in chunks(path, feed.position or 0):
            feed.publish(rows, position)


if __name__ == "__main__":
    feed(sys.argv[1], chunks)
