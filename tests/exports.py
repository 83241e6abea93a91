"""Exported records as hypothesis draws them: cells of each kind that keep all rules, and lines of them."""

import csv
import io
from collections.abc import Sequence
from datetime import date

from hypothesis import strategies as st

from schemas import profile
from schemas.descriptor import Descriptor
from schemas.profile import Profile
from schemas.records import COLUMNS, Kind

AVION = profile.load("avion")
TYPES: dict[Kind, str] = {"spot": "SPOT", "avail": "AVAIL", "billing": "BILL", "makegood": "MG"}
HEADER = ("record_type", *dict.fromkeys(name for names in COLUMNS.values() for name in names))
Cells = dict[str, str]

_stations = st.sampled_from(["WABC", "KXYZ-TV", "KDEN", "WCHI", "wnbc", " wls "])
_spot_ids = st.from_regex(r"[A-Z0-9-]{3,32}", fullmatch=True)
_ids = st.from_regex(r"[A-Z0-9][A-Z0-9._/-]{0,20}", fullmatch=True)
_days = st.dates(min_value=date(1981, 1, 1), max_value=date(2098, 1, 1))
_cents = st.integers(0, 10**9)
_names = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=30)


def money(cents: int) -> str:
    """``-1,234.50`` for -123450."""
    return f"{'-' if cents < 0 else ''}{abs(cents) // 100:,}.{abs(cents) % 100:02}"


@st.composite
def _times(draw: st.DrawFn, earliest: int = 6 * 3600, latest: int = 30 * 3600 - 1) -> str:
    second = draw(st.integers(earliest, latest))
    text = f"{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}"
    return text + draw(st.sampled_from(["", ".000", ".250"]))


@st.composite
def spots(draw: st.DrawFn) -> Cells:
    clearance = draw(st.sampled_from(["SCHEDULED", "cleared", "Preempted", "M"]))
    return {
        "spot_id": draw(_spot_ids),
        "campaign_id": draw(_ids),
        "advertiser": draw(_names),
        "ad_id": draw(st.just("") | st.from_regex(r"[A-Z0-9]{8,12}", fullmatch=True)),
        "air_time": draw(_times() if clearance == "cleared" else _times() | st.just("")),
        "duration_s": str(draw(st.integers(1, 3600))),
        "airtime_code": draw(st.sampled_from(AVION.codes.airtime_code)),
        "clearance": clearance,
        "rate": money(draw(_cents)),
        "billing_code": draw(st.sampled_from(AVION.codes.billing_code)),
    }


@st.composite
def avails(draw: st.DrawFn) -> Cells:
    total = draw(st.integers(0, 1000))
    return {
        "avail_id": draw(_ids),
        "break_id": draw(_ids),
        "window_start": draw(_times(latest=17 * 3600)),
        "window_end": draw(_times(earliest=17 * 3600 + 1)),
        "duration_s": str(draw(st.integers(1, 3600))),
        "units_total": str(total),
        "units_sold": str(draw(st.integers(0, total))),
        "floor_rate": money(draw(_cents)),
    }


@st.composite
def billings(draw: st.DrawFn) -> Cells:
    gross = draw(_cents)
    commission = draw(st.integers(0, gross))
    return {
        "invoice_id": draw(_ids),
        "line_no": str(draw(st.integers(1, 10_000))),
        "spot_id": draw(_spot_ids),
        "billing_period": f"{draw(st.integers(2000, 2099))}-{draw(st.integers(1, 12)):02}",
        "billing_code": draw(st.sampled_from(AVION.codes.billing_code)),
        "gross": money(gross),
        "agency_commission": money(commission),
        "net": money(gross - commission),
    }


@st.composite
def makegoods(draw: st.DrawFn) -> Cells:
    original, replacement = draw(st.lists(_spot_ids, min_size=2, max_size=2, unique=True))
    return {
        "makegood_id": draw(_ids),
        "original_spot_id": original,
        "replacement_spot_id": replacement,
        "reason_code": draw(st.sampled_from(AVION.codes.reason_code)),
        "air_time": draw(_times() | st.just("")),
        "duration_s": str(draw(st.integers(1, 3600))),
        "adjustment": money(draw(st.integers(-(10**9), 10**9))),
        "approved_at": draw(st.sampled_from(["2026-03-09T14:30:00Z", "03/09/2026 14:30:00"])),
    }


@st.composite
def records(draw: st.DrawFn) -> Cells:
    """A record of any kind that keeps all rules."""
    kind, own = draw(
        st.one_of(
            st.tuples(st.just("SPOT"), spots()),
            st.tuples(st.just("avail"), avails()),
            st.tuples(st.just("Bill"), billings()),
            st.tuples(st.just("MG"), makegoods()),
        )
    )
    return {
        "record_type": kind,
        "station": draw(_stations),
        "broadcast_date": draw(_days).strftime("%m/%d/%Y"),
        "revision": draw(st.sampled_from(["", "3", "2026-03-09T14:30:00+01:00"])),
        **own,
    }


def line(cells: Cells, header: Sequence[str] = HEADER) -> bytes:
    """A record as CSV has it, in UTF-8."""
    text = io.StringIO()
    csv.writer(text).writerow([cells.get(name, "") for name in header])
    return text.getvalue().encode()


def descriptor(header: Sequence[str] = HEADER, used: Profile = AVION, encoding: str = "utf-8") -> Descriptor:
    """Of a file with these headings."""
    return Descriptor(
        path="log.csv",
        identity="00",
        format=used.format,
        encoding=encoding,
        header=tuple(header),
        profile=used,
    )
