"""From the text in an export to the values of a normalized record, as a profile says.

Every column has a table: text as it stood → value, ``None`` where the field is empty, or a :class:`Fault`
where the text cannot be read. Whether a value that can be read keeps its field's rule is judged afterwards
(:mod:`schemas.records`). Tables remember what they have seen, since exports repeat themselves, and are
bounded, since hostile ones need not.

Where the domain leaves a choice:

* Times from ``00:00:00`` to ``05:59:59`` are after midnight of the same broadcast day, which runs from
  06:00:00 to 29:59:59; so ``01:30:00`` and ``25:30:00`` are one time, written ``25:30:00.000``.
* Times are the station's clock. When it is set back, an hour that it shows twice means the first one; when it
  is set forward, an hour that it skips is read with the offset from before (02:30 is then 03:30).
* Amounts may have fewer decimals than the currency's minor unit, but not more; thousands are separated in
  threes or not at all.
* Letters beyond ASCII are left as they are in ids, so that no two ids become one.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache, partial
from typing import Any, Final
from unicodedata import normalize
from zoneinfo import ZoneInfo

import numpy as np

from schemas.columns import Column, Reader
from schemas.currency import EXPONENTS
from schemas.memo import Memo
from schemas.profile import DIRECTIVES, Profile
from schemas.records import MONEY, Kind

#: Values in a table, at the most: of times and of the profile's currency, of other currencies, of all else.
_MANY, _FEW, _REMEMBERED = 1 << 15, 1 << 11, 1 << 13
_REMEMBERED_DAYS: Final = 128  #: each is up to 1440 texts
_LONGEST_REMEMBERED: Final = 160  #: characters

_TIME = re.compile(r"([0-9]{2}):([0-5][0-9]:[0-5][0-9])(?:\.([0-9]{3}))?", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,9}")
_REVISION = re.compile(r"0*([0-9]{1,30}(?:\.[0-9]{1,18})?)")
_RFC3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?(?:[Zz]|[+-][0-9]{2}:[0-9]{2})"
)
_YEARS: Final = (1980, 2099)
_IN_CONTEXT = MONEY | {"approved_at", "revision"}  #: columns that need the record's currency or station


class Fault:
    """What stands for a value that cannot be read; ``rule`` in words, "" for the field's own."""

    __slots__ = ("rule",)

    def __init__(self, rule: str = "") -> None:
        self.rule = rule


class Table(Memo[str, Any]):
    """Text → value. Bounded, so that unique texts cost time but not memory; a long one is not remembered."""

    def __init__(self, read: Callable[[str], Any], limit: int = _REMEMBERED) -> None:
        super().__init__(read, limit)

    def __missing__(self, text: str) -> Any:
        return super().__missing__(text) if len(text) <= _LONGEST_REMEMBERED else self._make(text)


class _Clock(dict[str, str]):
    """A broadcast day in a zone: ``HH:MM`` of the station's clock → the UTC instant up to its minutes."""

    def __init__(self, day: str, zone: ZoneInfo) -> None:
        super().__init__()
        self._day, self._zone = date.fromisoformat(day), zone

    def __missing__(self, clock: str) -> str:
        days, hour = divmod(int(clock[:2]), 24)
        day = self._day + timedelta(days=days)
        local = datetime(day.year, day.month, day.day, hour, int(clock[3:]), tzinfo=self._zone)
        self[clock] = instant = local.astimezone(UTC).isoformat()[:16]
        return instant


class Normalizer:
    """A profile's tables. One per profile is enough: :func:`of`."""

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._zone = ZoneInfo(profile.time_zone)
        self._zones = {station: ZoneInfo(name) for station, name in profile.stations.items()}
        #: broadcast day and zone → its clock
        self._clocks: Memo[tuple[str, ZoneInfo], _Clock] = Memo(lambda key: _Clock(*key), _REMEMBERED_DAYS)
        own = profile.currency
        self._money = {
            code: Table(partial(self._amount, code), _MANY if code == own else _FEW) for code in EXPONENTS
        }
        self._instants = {
            zone: Table(partial(self._instant, zone)) for zone in {self._zone, *self._zones.values()}
        }
        self._revisions = {zone: Table(partial(self._revision, zone)) for zone in self._instants}
        self._date = Table(self._date_of)
        self._mark, self._group = profile.decimal_mark, "." if profile.decimal_mark == "," else ","
        mark, group = re.escape(self._mark), re.escape(self._group)
        self._amounts = re.compile(
            rf"(-?)([0-9]{{1,3}}(?:{group}[0-9]{{3}})+|[0-9]+)(?:{mark}([0-9]+))?", re.ASCII
        )
        self._readers = self._by_column()
        #: the record_type column: text → kind
        self.kinds = Table(
            _code({name: kind for kind, names in profile.record_types.items() for name in names})
        )

    def _by_column(self) -> dict[str, Reader]:
        codes = self._profile.codes
        clearances = {name: kind for kind, names in codes.clearance.items() for name in (kind, *names)}
        clearances |= {kind: kind for kind in ("scheduled", "cleared", "preempted", "missed")}
        time, number = Table(_time, _MANY), Table(_number)
        return {
            "broadcast_date": self._date.read,
            "advertiser": Table(_text).read,
            "air_time": time.read,
            "window_start": time.read,
            "window_end": time.read,
            "duration_s": number.read,
            "units_total": number.read,
            "units_sold": number.read,
            "line_no": number.read,
            "airtime_code": Table(_code({code: code for code in codes.airtime_code})).read,
            "billing_code": Table(_code({code: code for code in codes.billing_code})).read,
            "reason_code": Table(_code({code: code for code in codes.reason_code})).read,
            "clearance": Table(_code(clearances)).read,
            "currency": Table(_currency).read,
        }

    def columns(self, kind: Kind, cells: Mapping[str, Column]) -> dict[str, Column]:
        """Normalize records of a kind, column by column; ``cells`` has at least one column.

        Returns the values of each field of the normalized record for which there is a column, or that derives
        from others: text or whole numbers, None where empty, a :class:`Fault` where it cannot be read.
        """
        count = next(iter(cells.values())).count
        fields = {"record_type": Column.constant(kind, count)}
        for name, texts in cells.items():
            if name not in _IN_CONTEXT:
                fields[name] = texts.read(self._readers.get(name, _upper))
        nothing = Column.constant(None, count)
        currencies = fields.get("currency", nothing).read(self._currencies)
        zones = fields.get("station", nothing).read(self._zones_of)
        fields["currency"] = currencies
        for name in _IN_CONTEXT & cells.keys():
            if name in MONEY:
                fields[f"{name}_minor"] = Column.paired(currencies, cells[name], self._amounts_in)
            else:
                tables = self._revisions if name == "revision" else self._instants
                fields[name] = Column.paired(zones, cells[name], _reader_of(tables))
        if "air_time" in fields and "broadcast_date" in fields:
            fields["aired_at"] = self._aired_at(zones, fields["broadcast_date"], fields["air_time"])
        return fields

    def _currencies(self, found: Sequence[Any]) -> list[Any]:
        return [code or self._profile.currency for code in found]

    def _zones_of(self, stations: Sequence[Any]) -> list[ZoneInfo]:
        return [self._zones.get(station, self._zone) for station in stations]

    def _amounts_in(self, currency: Any) -> Reader:
        """The reader of amounts; of those of our own currency where theirs is unknown."""
        code = currency if currency in EXPONENTS else self._profile.currency
        table, exponent, mark = self._money[code], EXPONENTS[code], self._mark
        if not exponent:
            return table.read

        def read(texts: Sequence[str]) -> list[Any]:
            # Hardly an amount comes twice, and nearly all are digits with the mark where it should be.
            found = []
            for text in texts:
                digits = text[: -exponent - 1] + text[-exponent:]
                is_plain = text[-exponent - 1 : -exponent] == mark and exponent < len(digits) < 16
                if is_plain and digits.isascii() and digits.isdecimal():
                    found.append(int(digits))
                else:
                    found.append(table[text])
            return found

        return read

    def _aired_at(self, zones: Column, days: Column, times: Column) -> Column:
        clocks = Column.paired(zones, days, lambda zone: partial(self._clocks_of, zone))
        known = np.flatnonzero(times.are(_is_text) & clocks.are(_is_there))
        clocks, times, count = clocks.only(known), times.only(known), times.count
        minutes = times.read(lambda found: [time[:5] if _is_text(time) else "" for time in found])
        rests = times.read(lambda found: [f"{time[5:]}Z" if _is_text(time) else "" for time in found])
        of_each = zip(clocks.each(), minutes.each(), rests.each(), strict=True)
        return Column.of_some([clock[minute] + rest for clock, minute, rest in of_each], known, count)

    def _clocks_of(self, zone: ZoneInfo, days: Sequence[Any]) -> list[_Clock | None]:
        return [self._clocks[day, zone] if type(day) is str else None for day in days]

    def _date_of(self, text: str) -> str | Fault | None:
        stripped = text.strip()
        if not stripped:
            return None
        found = _parsed(stripped, self._profile.date_format)
        if found is None or not _YEARS[0] <= found.year <= _YEARS[1]:
            return Fault(f"must be a date as {self._profile.date_format}, {_YEARS[0]} to {_YEARS[1]}")
        return found.date().isoformat()

    def _instant(self, zone: ZoneInfo, text: str) -> str | Fault | None:
        stripped = text.strip()
        if not stripped:
            return None
        form = self._profile.timestamp_format
        try:
            if _RFC3339.fullmatch(stripped):
                found: datetime | None = datetime.fromisoformat(stripped.upper())
            else:
                found = _parsed(stripped, form) if form else None
            if found is not None:
                found = (found if found.tzinfo else found.replace(tzinfo=zone)).astimezone(UTC)
        except (ValueError, OverflowError):
            found = None
        if found is None or not _YEARS[0] <= found.year <= _YEARS[1]:
            return Fault("must be a time stamp, RFC 3339" + (f" or as {form}" if form else ""))
        return found.isoformat(timespec="milliseconds")[:-6] + "Z"

    def _revision(self, zone: ZoneInfo, text: str) -> str | Fault | None:
        number = _REVISION.fullmatch(text.strip())
        if number:
            return number[1]
        instant = self._instants[zone][text]
        return Fault("must be a number or a time stamp") if isinstance(instant, Fault) else instant

    def _amount(self, currency: str, text: str) -> int | Fault | None:
        stripped = text.strip()
        if not stripped:
            return None
        exponent = EXPONENTS[currency]
        found = self._amounts.fullmatch(stripped)
        decimals = (found[3] or "") if found else ""
        if found is None or len(decimals) > exponent or len(stripped) > 32:
            return Fault(f"must be an amount of {currency}, at most {exponent} decimals after {self._mark!r}")
        return int(found[1] + found[2].replace(self._group, "") + decimals.ljust(exponent, "0"))


def of(profile: Profile) -> Normalizer:
    """The normalizer of a profile, shared by all that ask for it, tables and all."""
    return _of(profile.model_dump_json())


@lru_cache(maxsize=16)
def _of(profile: str) -> Normalizer:
    return Normalizer(Profile.model_validate_json(profile))


def _upper(texts: Sequence[str]) -> Sequence[str | None]:
    together = "".join(texts)
    if together.isascii() and together == together.upper() and together.split() == [together] and all(texts):
        return texts
    stripped = [text.strip() for text in texts]
    return [(text.upper() if text.isascii() else text) or None for text in stripped]


def _text(text: str) -> str | None:
    return " ".join(normalize("NFC", text).split()) or None


def _reader_of(tables: Mapping[ZoneInfo, Table]) -> Callable[[ZoneInfo], Reader]:
    return lambda zone: tables[zone].read


def _number(text: str) -> int | Fault | None:
    stripped = text.strip()
    if not stripped:
        return None
    return int(stripped) if _NUMBER.fullmatch(stripped) else Fault()


def _time(text: str) -> str | Fault | None:
    stripped = text.strip()
    if not stripped:
        return None
    found = _TIME.fullmatch(stripped)
    if found is None or found[1] > "29":
        return Fault("must be a time as HH:MM:SS or HH:MM:SS.mmm, hours 00 to 29")
    hour = int(found[1])
    return f"{hour + 24 if hour < 6 else hour:02}:{found[2]}.{found[3] or '000'}"


def _currency(text: str) -> str | Fault | None:
    code = text.strip().upper()
    return (code if code in EXPONENTS else Fault()) if code else None


def _code(codes: Mapping[str, str]) -> Callable[[str], str | Fault | None]:
    known = {spelling.strip().upper(): code for spelling, code in codes.items()}
    fault = Fault(f"must be one of {', '.join(codes)}")

    def read(text: str) -> str | Fault | None:
        spelling = text.strip().upper()
        return known.get(spelling, fault) if spelling else None

    return read


def _is_text(value: Any) -> bool:
    return type(value) is str


def _is_there(value: Any) -> bool:
    return value is not None


#: Directives that are a number of a date each.
_NUMBERS = {
    "%Y": "year", "%m": "month", "%-m": "month", "%d": "day", "%-d": "day",
    "%H": "hour", "%-H": "hour", "%M": "minute", "%S": "second",
}  # fmt: skip


@lru_cache
def _gate(form: str) -> re.Pattern[str]:
    """What is of this form; with groups, named as datetime names its numbers, if it tells nothing else."""
    parts = re.split("(%-?.)", form)
    names = [_NUMBERS.get(part, part) for part in parts[1::2]]
    is_date = {"year", "month", "day"} <= set(names) <= set(_NUMBERS.values())
    patterns = DIRECTIVES
    if is_date and len(set(names)) == len(names):
        patterns = {part: f"(?P<{name}>{DIRECTIVES[part]})" for part, name in _NUMBERS.items()}
    return re.compile("".join(patterns.get(part) or re.escape(part) for part in parts))


def _parsed(text: str, form: str) -> datetime | None:
    """Read ``text`` as ``form``; strptime is slow, and lenient about widths, spaces and other digits."""
    gate = _gate(form)
    found = gate.fullmatch(text)
    if found is None:
        return None
    try:
        if gate.groups:
            numbers = {name: int(digits) for name, digits in found.groupdict().items()}
            return datetime(**numbers)  # type: ignore[arg-type] # noqa: DTZ001 - the caller adds the zone
        return datetime.strptime(text, form.replace("%-", "%"))  # noqa: DTZ007 - the caller adds the zone
    except ValueError:
        return None
