"""When the spots of a batch air, by the hour: few enough numbers to travel in a header.

So whoever reads no more than headers can tell what airs soon and is not booked. Only spots that are still
scheduled and have an air time count; the others have aired, will not, or nobody knows when.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from schemas.columns import Columns

#: The header's name, on batches and among the headers that dead letters keep.
HEADER = "airs"

#: What airs later than that after it was read is not counted: the header stays below 13 kB, whatever the log.
_AHEAD = timedelta(days=31)

#: A time stamp is whatever a producer says; this one is in the year 9998.
_LATEST_MS = 253_370_000_000_000

_HOUR = "%Y-%m-%dT%H"


def hour(record: Mapping[str, Any]) -> str:
    """The hour in UTC in which a record is to air, ``2026-03-01T11``; empty for what does not count."""
    if record.get("record_type") != "spot" or record.get("clearance") != "scheduled":
        return ""
    aired_at: str = record.get("aired_at", "")
    return aired_at[:13]


def hours(columns: Columns) -> list[str]:
    """:func:`hour` of each spot of these columns."""
    if "aired_at" not in columns:
        return [""] * columns["clearance"].count
    return [
        at[:13] if at and clearance == "scheduled" else ""
        for at, clearance in zip(columns["aired_at"].each(), columns["clearance"].each(), strict=True)
    ]


def header(airs: Iterable[str], appended_ms: int) -> str:
    """``2026-03-01T11=120,2026-03-01T12=98`` from each record's :func:`hour`.

    ``appended_ms``: when the oldest record was read; what aired before is left out.
    """
    begin = datetime.fromtimestamp(min(max(appended_ms, 0), _LATEST_MS) / 1000, UTC)
    first, last = begin.strftime(_HOUR), (begin + _AHEAD).strftime(_HOUR)
    counted = Counter(airs)
    return ",".join(f"{at}={counted[at]}" for at in sorted(counted) if first <= at <= last)


def read(text: str) -> Counter[str]:
    """What :func:`header` wrote. ``ValueError`` for anything else."""
    counted: Counter[str] = Counter()
    for entry in text.split(",") if text else ():
        at, _, spots = entry.partition("=")
        datetime.strptime(at, _HOUR)  # noqa: DTZ007 - to see that it is one
        counted[at] += int(spots)
    return counted


def between(counted: Mapping[str, int], now: datetime, hours: int) -> int:
    """How many of them air in the present clock hour or the ``hours`` after it; ``now`` is aware."""
    begin = now.astimezone(UTC)
    first, last = begin.strftime(_HOUR), (begin + timedelta(hours=hours)).strftime(_HOUR)
    return sum(spots for at, spots in counted.items() if first <= at <= last)
