"""Every sort of bad record that an export can hold, by what is wrong with it."""

from collections.abc import Callable
from typing import NamedTuple

from schemas.records import KINDS, Kind
from streams.lab.spelling import BROKEN, Spelling

Cells = dict[str, str]


class Blemish(NamedTuple):
    """One sort of fault: ``spoil`` the cells of a good record, then ``mangle`` the row as its format does.

    ``fields`` are the columns at fault; none where it is the whole row. ``mangle`` gets the row without its
    line end, and never adds a line break: one bad record stays one record.
    """

    name: str
    kinds: tuple[Kind, ...]
    fields: tuple[str, ...]
    spoil: Callable[[Cells], None] = lambda _: None
    mangle: Callable[[Spelling, bytes], bytes] = lambda _, row: row


_SPOT: tuple[Kind, ...] = ("spot",)
_AVAIL: tuple[Kind, ...] = ("avail",)
_BILLING: tuple[Kind, ...] = ("billing",)
_MAKEGOOD: tuple[Kind, ...] = ("makegood",)
_TIMED: tuple[Kind, ...] = ("spot", "makegood")
_LASTING: tuple[Kind, ...] = ("spot", "avail", "makegood")

_MONEY = {
    "text": "N/A",
    "float": "1.2e3",
    "nan": "NaN",
    "binary": "1234.499999999",
    "negative": "-12.00",
    "missing": "",
}
_ID = {"missing": "", "blank": "   ", "ill-formed": "?#*!"}

#: (kinds, column, {sort: the cell's text}): faults that are one cell's.
_CELLS: list[tuple[tuple[Kind, ...], str, dict[str, str]]] = [
    (KINDS, "record_type", {"missing": "", "unknown": "PROMO"}),
    (KINDS, "station", {"missing": "", "ill-formed": "1!"}),
    (
        KINDS,
        "broadcast_date",
        {
            "missing": "",
            "impossible": "02/30/2026",
            "month": "13/01/2026",
            "format": "2026-05-11",
            "text": "yesterday",
            "loose": "5/11/26",
        },
    ),
    (_SPOT, "spot_id", {**_ID, "short": "A1", "long": "S" * 33, "symbols": "SP_12#4"}),
    (_SPOT, "campaign_id", _ID),
    (
        _SPOT,
        "advertiser",
        {"missing": "", "blank": "  ", "long": "Ä" * 121, "control": "Acme\x07Motors"},
    ),
    (_SPOT, "ad_id", {"short": "ABC1234", "long": "ABCD123456789", "symbols": "ABCD-1234"}),
    (
        _TIMED,
        "air_time",
        {
            "30:00:00": "30:00:00",
            "minute": "25:61:00",
            "second": "25:30:60",
            "text": "noon",
            "12-hour": "6:30 PM",
            "fraction": "25:30:00.1234567",
            "negative": "-1:00:00",
        },
    ),
    (
        _LASTING,
        "duration_s",
        {"0": "0", "3601": "3601", "text": "thirty", "fraction": "29.5", "negative": "-30", "missing": ""},
    ),
    (_SPOT, "airtime_code", {"missing": "", "unknown": "XX"}),
    (_SPOT, "clearance", {"missing": "", "unknown": "maybe"}),
    (("spot", "billing"), "billing_code", {"missing": "", "unknown": "BARTER?"}),
    (_SPOT, "rate", _MONEY),
    (KINDS, "currency", {"unknown": "USX", "symbol": "$"}),
    (_AVAIL, "avail_id", _ID),
    (_AVAIL, "break_id", _ID),
    (_AVAIL, "window_start", {"malformed": "6h30", "missing": ""}),
    (_AVAIL, "window_end", {"30:00:00": "30:00:00", "missing": ""}),
    (_AVAIL, "units_total", {"missing": "", "text": "few", "fraction": "2.5"}),
    (_AVAIL, "units_sold", {"missing": "", "negative": "-1"}),
    (_AVAIL, "floor_rate", _MONEY),
    (_BILLING, "invoice_id", _ID),
    (_BILLING, "line_no", {"missing": "", "0": "0", "text": "one"}),
    (_BILLING, "spot_id", {"missing": "", "short": "A1", "long": "S" * 33}),
    (_BILLING, "billing_period", {"missing": "", "month": "2026-13", "text": "May 2026"}),
    (_BILLING, "gross", _MONEY),
    (_BILLING, "agency_commission", _MONEY),
    (_BILLING, "net", _MONEY),
    (_MAKEGOOD, "makegood_id", _ID),
    (_MAKEGOOD, "original_spot_id", {"missing": "", "short": "A1"}),
    (_MAKEGOOD, "replacement_spot_id", {"missing": "", "long": "S" * 33}),
    (_MAKEGOOD, "reason_code", {"missing": "", "unknown": "WEATHER?"}),
    (_MAKEGOOD, "adjustment", {sort: text for sort, text in _MONEY.items() if sort != "negative"}),
    (
        _MAKEGOOD,
        "approved_at",
        {"missing": "", "malformed": "2026-05-20 10:00", "impossible": "2026-02-30T10:00:00Z"},
    ),
]


def _cell(kinds: tuple[Kind, ...], column: str, sort: str, text: str) -> Blemish:
    return Blemish(f"{column}: {sort}", kinds, (column,), lambda cells: cells.update({column: text}))


def _several(cells: Cells) -> None:
    cells.update(spot_id="", duration_s="0", billing_code="BARTER?")


BLEMISHES: tuple[Blemish, ...] = (
    *(_cell(kinds, column, sort, text) for kinds, column, sorts in _CELLS for sort, text in sorts.items()),
    Blemish(
        "air_time: missing though cleared",
        _SPOT,
        ("air_time",),
        lambda cells: cells.update(clearance="cleared", air_time=""),
    ),
    Blemish(
        "window_end: at its start",
        _AVAIL,
        ("window_end",),
        lambda cells: cells.update(window_end=cells["window_start"]),
    ),
    Blemish(
        "window_end: before its start",
        _AVAIL,
        ("window_end",),
        lambda cells: cells.update(window_start="20:00:00", window_end="19:59:59"),
    ),
    Blemish(
        "units_sold: more than there are",
        _AVAIL,
        ("units_sold",),
        lambda cells: cells.update(units_sold=str(int(cells["units_total"]) + 1)),
    ),
    Blemish(
        "net: not gross less commission",
        _BILLING,
        ("net",),
        lambda cells: cells.update(gross="100.00", agency_commission="15.00", net="85.01"),
    ),
    Blemish(
        "replacement_spot_id: the same spot",
        _MAKEGOOD,
        ("replacement_spot_id",),
        lambda cells: cells.update(replacement_spot_id=cells["original_spot_id"].lower()),
    ),
    Blemish("several at once", _SPOT, ("spot_id", "duration_s", "billing_code"), _several),
    Blemish("row: too few columns", KINDS, (), mangle=lambda spelling, row: spelling.short(row)),
    Blemish("row: too many columns", KINDS, (), mangle=lambda spelling, row: spelling.long(row)),
    Blemish(
        "row: undecodable bytes", KINDS, (), mangle=lambda spelling, row: spelling.with_(row, b"\xff\xfe")
    ),
    Blemish("row: NUL character", KINDS, (), mangle=lambda spelling, row: spelling.with_(row, b"\0")),
    Blemish(
        "row: broken",
        _SPOT,
        (),
        lambda cells: cells.update(advertiser=BROKEN.decode()),
        lambda spelling, row: spelling.broken(row),
    ),
)
