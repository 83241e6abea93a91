"""A realistic Avion log, of any length, that knows what is wrong in it.

The same (records, seed, bad_rate, format) give the same bytes. Every record is a placement of its own: its id
comes from its number. Exactly ``round(records * bad_rate)`` records are bad, and the sorts of fault of
:mod:`streams.lab.blemishes` take turns, so that a small log has as many of them as it can.
"""

import random
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NamedTuple

import orjson

from schemas.errors import UsageError
from schemas.records import Kind
from streams.lab import spelling
from streams.lab.blemishes import BLEMISHES, Blemish
from streams.lab.placements import COLUMNS, Placements
from streams.lab.spelling import Format, Spelling

#: Columns in order, each with the heading that the log gives it.
HEADINGS = {
    "record_type": "Type",
    "station": "Call Sign",
    "broadcast_date": "Air Date",
    "revision": "Rev",
    "spot_id": "Spot ID",
    "campaign_id": "Campaign",
    "advertiser": "Advertiser Name",
    "ad_id": "ISCI",
    "air_time": "Time",
    "duration_s": "Len",
    "airtime_code": "Daypart",
    "clearance": "Status",
    "rate": "Spot Rate",
    "billing_code": "Bill Code",
    "currency": "Ccy",
    "avail_id": "AvailNo",
    "break_id": "BreakNo",
    "window_start": "Window From",
    "window_end": "Window To",
    "units_total": "Units",
    "units_sold": "Sold",
    "floor_rate": "Floor",
    "invoice_id": "InvoiceNo",
    "line_no": "Line",
    "billing_period": "Period",
    "gross": "Gross",
    "agency_commission": "Agency Comm",
    "net": "Net",
    "makegood_id": "MG No",
    "original_spot_id": "Orig Spot",
    "replacement_spot_id": "Repl Spot",
    "reason_code": "Reason",
    "adjustment": "Adj",
    "approved_at": "Approved",
}

#: 70 % spots, 15 % billing, 10 % avails, 5 % make-goods.
_MIX: tuple[Kind, ...] = ("spot",) * 14 + ("billing",) * 3 + ("avail",) * 2 + ("makegood",)


class Line(NamedTuple):
    """A piece of the log. ``number`` is the record's, from 1; 0 for the header, comments and blank lines.

    ``fault`` names what is wrong with a bad record (None: it is good), ``fields`` the columns at fault; empty
    where the fault is the row's and not a field's.
    """

    data: bytes
    number: int = 0
    record_type: str = ""
    fault: str | None = None
    fields: tuple[str, ...] = ()


@dataclass(slots=True)
class Truth:
    """What a log holds: records and, of these, the bad ones; by kind (good and bad) and by fault."""

    records: int = 0
    bad: int = 0
    by_kind: Counter[str] = field(default_factory=Counter)
    by_fault: Counter[str] = field(default_factory=Counter)

    def learn(self, line: Line) -> None:
        """Count a line."""
        if line.number:
            self.records += 1
            self.by_kind[line.record_type] += 1
            if line.fault is not None:
                self.bad += 1
                self.by_fault[line.fault] += 1

    def dump(self) -> bytes:
        """One JSON object."""
        return orjson.dumps(
            {
                "records": self.records,
                "bad": self.bad,
                "by_kind": dict(self.by_kind),
                "by_fault": dict(self.by_fault),
            },
            option=orjson.OPT_SORT_KEYS,
        )


def generate(records: int, seed: int = 0, bad_rate: float = 0.0, format: Format = "csv") -> Iterator[Line]:  # noqa: A002 - the option's name
    """The log, line by line, header first. The records are the same in every format."""
    return _Log(records, seed, bad_rate, spelling.of(format, HEADINGS)).lines()


def write(stream: BinaryIO, lines: Iterable[Line], truth_stream: BinaryIO | None = None) -> Truth:
    """Write ``lines`` to ``stream`` and tell what they hold.

    ``truth_stream`` gets a JSON line for each bad record (number, record_type, fault, fields), and the
    :class:`Truth` as the last line.
    """
    truth = Truth()
    lines = iter(lines)
    while chunk := list(islice(lines, 4096)):
        stream.write(b"".join([line.data for line in chunk]))
        for line in chunk:
            truth.learn(line)
            if truth_stream is not None and line.fault is not None:
                known = {name: value for name, value in line._asdict().items() if name != "data"}
                truth_stream.write(orjson.dumps(known) + b"\n")
    if truth_stream is not None:
        truth_stream.write(truth.dump() + b"\n")
    return truth


def print_log(records: int, seed: int, bad_rate: float, format: Format, truth: Path | None) -> None:  # noqa: A002
    """The log on stdout, the truth in a file; raises :class:`UsageError` when that cannot be written."""
    try:
        with truth.open("wb") if truth else nullcontext() as known:
            write(sys.stdout.buffer, generate(records, seed, bad_rate, format), known)
            sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:  # the output's are told as such
        raise UsageError(f"cannot be written: {error.strerror}", where=str(truth)) from None


class _Log:
    def __init__(self, records: int, seed: int, bad_rate: float, spelled: Spelling) -> None:
        self._records, self._bad = records, round(records * bad_rate)
        self._spelling = spelled
        self._draw = random.Random(seed)
        self._placements = Placements(self._draw, spelled.quoted)
        self._rows = {kind: spelled.row(kind) for kind in COLUMNS}
        self._turns: list[Blemish] = []

    def lines(self) -> Iterator[Line]:
        if self._spelling.head:
            yield Line(self._spelling.head)
        draw, make, rows = self._draw.random, self._placements.make, self._rows
        bad_left = self._bad
        for number in range(1, self._records + 1):
            # The chance is the share of bad ones among what is left to make, so in the end none is.
            if draw() * (self._records - number + 1) < bad_left:
                bad_left -= 1
                yield self._bad_line(number)
                continue
            kind = _MIX[int(draw() * 20)]
            end = b"\r\n" if number & 15 else b"\n"
            yield Line(rows[kind](tuple(make[kind](number))).encode() + end, number, kind)
            if not number % 997:
                page = self._spelling.comment.replace(b"N", b"%d" % (number // 997))
                yield Line(page + b"\r\n" if number & 1 else b"\n")
        if self._spelling.foot:
            yield Line(self._spelling.foot)

    def _bad_line(self, number: int) -> Line:
        if not self._turns:
            self._turns = self._draw.sample(BLEMISHES, len(BLEMISHES))
        blemish = self._turns.pop()
        kind = self._draw.choice(blemish.kinds)
        cells = dict(zip(COLUMNS[kind], self._placements.make[kind](number), strict=True))
        blemish.spoil(cells)
        row = blemish.mangle(self._spelling, self._rows[kind](tuple(cells.values())).encode())
        fields = self._spelling.fields_at_fault(blemish.name, kind, blemish.fields)
        return Line(row + b"\r\n", number, kind, blemish.name, fields)
