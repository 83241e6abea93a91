"""Good records of each kind, as an Avion log spells them: padded ids, mixed case, quoted text and money."""

import random
from collections.abc import Callable
from typing import TypeVar

from schemas.records import Kind

_T = TypeVar("_T")

#: The columns of each kind in the order of the log's header; what the kind's maker gives.
_OF_KIND: dict[Kind, str] = {
    "spot": """record_type station broadcast_date revision spot_id campaign_id advertiser ad_id air_time
        duration_s airtime_code clearance rate billing_code currency""",
    "avail": """record_type station broadcast_date duration_s currency avail_id break_id window_start
        window_end units_total units_sold floor_rate""",
    "billing": """record_type station broadcast_date spot_id billing_code currency invoice_id line_no
        billing_period gross agency_commission net""",
    "makegood": """record_type station broadcast_date air_time duration_s currency makegood_id
        original_spot_id replacement_spot_id reason_code adjustment approved_at""",
}
COLUMNS: dict[Kind, tuple[str, ...]] = {kind: tuple(names.split()) for kind, names in _OF_KIND.items()}

#: Values are drawn once into pools, and records pick from them by the bits of one random number: drawing each
#: value anew would cost ten times as much.
_POOL = 1024
_BITS = 10
_PICK = _POOL - 1

#: The first week of the broadcast month of November; on its Saturday night American clocks are set back.
_DAYS = (*(f"10/{day}/2026" for day in range(26, 32)), "11/01/2026")
_STATIONS = ("WABC", "wabc ", "WCBS", "KXYZ-TV", "kxyz-tv", "KDEN", " WCHI", "WNBC-DT")
_ADVERTISERS = (
    "Acme Motors",
    "  Bell   & Sons ",
    "Café Zürich",
    "Søren's Møbler A/S",
    "Cafe\u0301 Montréal",  # decomposed: NFC makes it one with "Café"
    "株式会社サンプル",
    "Ελληνικά Τρόφιμα",
    "Smith, Jones & Partners",
    'The "Original" Pizza Co., Inc.',
    "Ñandú Seguros 🐦",
)
_BROKEN = ("Two Line\nAdvertising", "Windows\r\nand Doors")
_PRODUCTS = ("", " Spring", " Autos", " North", " Retail", " Direct", " Media", " Online")
_DAYPARTS = ("EM", "DT", "EF", "EN", "PA", "PR", "LN", "LF", "ON", "WK", "SP", "pr", " dt")
_CLEARANCES = ("scheduled", "CLEARED", "cleared", "Cleared", "SCHED", "C", "preempted", "missed")
_BILLING_CODES = ("CASH", "cash", "TRADE", "BONUS", "PSA", "POL", "PROMO", "NC ")
_REASON_CODES = ("PREEMPT", "TECH", "COPY", "WINDOW", "LATE", "credit", "ADU")
_LENGTHS = ("30", "30", "30", "15", "60", "10", "120", "5", "3600")
_CURRENCIES = ("", "", "", "USD", "usd", "CAD")
_SPOT_PREFIXES = ("SP-", "sp-", " SP-", "NX", "Nx", "A1-B2-", "SPOT", "sPoT-")


class Placements:
    """Makes records: ``make[kind](number)`` gives the cells of that kind's :data:`COLUMNS`, quoted as needed.

    The number is in the record's id, so no two records are the same placement.
    """

    def __init__(self, draw: random.Random, quoted: Callable[[str], str]) -> None:
        self._bits = draw.getrandbits
        self._draw = draw
        self.quoted = quoted
        choice = draw.choice
        self._where = _pool(lambda: f"{choice(_STATIONS)}|{choice(_DAYS)}".split("|"))
        self._clients = _pool(self._client)
        self._times = _pool(self._time)
        self._codes = _pool(lambda: (choice(_LENGTHS), choice(_DAYPARTS)))
        self._money = _pool(lambda: self._amount(draw.randrange(500, 4_000_000)))
        self._terms = _pool(lambda: (choice(_BILLING_CODES), choice(_CURRENCIES)))
        self._status = _pool(self._clearance)
        self._copies = _pool(
            lambda: choice(("", f"ABCD{draw.randrange(10**8):08d}", f"wx{draw.randrange(10**6):06d}"))
        )
        self._windows = _pool(self._window)
        self._units = _pool(self._unit)
        self._bills = _pool(self._bill)
        self._mends = _pool(self._mend)
        self.make: dict[Kind, Callable[[int], list[str]]] = {
            "spot": self._spot,
            "avail": self._avail,
            "billing": self._billing,
            "makegood": self._makegood,
        }

    def _spot(self, number: int) -> list[str]:
        bits = self._bits(80)
        station, date = self._where[bits & _PICK]
        length, daypart = self._codes[bits >> _BITS & _PICK]
        status, air_time = self._status[bits >> 2 * _BITS & _PICK]
        code, currency = self._terms[bits >> 3 * _BITS & _PICK]
        return [
            "SPOT" if bits & 1 else "Spot",
            station,
            date,
            "2" if not bits >> 70 else "",
            f"{_SPOT_PREFIXES[bits >> 4 & 7]}{number:08d}",
            f"CMP-{number >> 6:06d}",
            self._clients[bits >> 4 * _BITS & _PICK],
            self._copies[bits >> 5 * _BITS & _PICK],
            air_time,
            length,
            daypart,
            status,
            self._money[bits >> 6 * _BITS & _PICK],
            code,
            currency,
        ]

    def _avail(self, number: int) -> list[str]:
        bits = self._bits(60)
        station, date = self._where[bits & _PICK]
        start, end = self._windows[bits >> _BITS & _PICK]
        total, sold = self._units[bits >> 2 * _BITS & _PICK]
        _, currency = self._terms[bits >> 3 * _BITS & _PICK]
        length, _ = self._codes[bits >> 4 * _BITS & _PICK]
        floor = self._money[bits >> 5 * _BITS & _PICK]
        avail, break_id = f"av-{number:08d}", f"BRK{number & 31:02d}"
        return ["AVAIL", station, date, length, currency, avail, break_id, start, end, total, sold, floor]

    def _billing(self, number: int) -> list[str]:
        bits = self._bits(40)
        station, date = self._where[bits & _PICK]
        gross, commission, net = self._bills[bits >> _BITS & _PICK]
        code, currency = self._terms[bits >> 2 * _BITS & _PICK]
        spot = f"SP-{bits >> 3 * _BITS:08d}"
        invoice, line = f"INV-{number >> 5:07d}", str((number & 31) + 1)
        return ["BILL", station, date, spot, code, currency, invoice, line, "2026-11", gross, commission, net]

    def _makegood(self, number: int) -> list[str]:
        bits = self._bits(50)
        station, date = self._where[bits & _PICK]
        air_time = self._times[bits >> _BITS & _PICK]
        length, _ = self._codes[bits >> 2 * _BITS & _PICK]
        _, currency = self._terms[bits >> 3 * _BITS & _PICK]
        reason, adjustment, approved = self._mends[bits >> 4 * _BITS & _PICK]
        ids = [f" mg-{number:08d} ", f"SP-{number:08d}", f"RP-{number:08d}"]
        return ["MG", station, date, air_time, length, currency, *ids, reason, adjustment, approved]

    def _client(self) -> str:
        names = _BROKEN if self._draw.random() < 0.02 else _ADVERTISERS
        return self.quoted(self._draw.choice(names) + self._draw.choice(_PRODUCTS))

    def _time(self) -> str:
        draw = self._draw
        # After midnight some write the hour of the day, some that of the broadcast day.
        hour = draw.choice((*range(6, 30), *range(6)))
        rest = f"{draw.randrange(60):02d}:{draw.randrange(60):02d}"
        last = draw.choice(("29:59:59", "29:59:59.999", "06:00:00"))
        fraction = draw.choice(("", "", ".500", f".{draw.randrange(1000):03d}"))
        return last if draw.random() < 0.01 else f"{hour:02d}:{rest}{fraction}"

    def _clearance(self) -> tuple[str, str]:
        status = self._draw.choice(_CLEARANCES)
        may_be_empty = status.strip().upper() not in ("C", "CLEARED")
        return status, "" if may_be_empty and self._draw.random() < 0.5 else self._time()

    def _window(self) -> tuple[str, str]:
        start = self._draw.randrange(6 * 3600, 29 * 3600)
        end = self._draw.randrange(start + 1, 30 * 3600)
        return _clock(start), _clock(end)

    def _unit(self) -> tuple[str, str]:
        total = self._draw.randrange(1, 24)
        return str(total), str(self._draw.randrange(total + 1))

    def _bill(self) -> tuple[str, str, str]:
        gross = self._draw.randrange(10_000, 90_000_000)
        commission = gross * 15 // 100
        return self._amount(gross), self._amount(commission), self._amount(gross - commission)

    def _mend(self) -> tuple[str, str, str]:
        draw = self._draw
        day, time = draw.randrange(2, 29), f"{draw.randrange(24):02d}:{draw.randrange(60):02d}:00"
        approved = draw.choice(
            (f"11/{day:02d}/2026 {time}", f"2026-11-{day:02d}T{time}Z", f"2026-11-{day:02d}T{time}-05:00")
        )
        sign = draw.choice(("-", "", ""))
        return draw.choice(_REASON_CODES), self.quoted(sign + _amount(draw.randrange(100_000))), approved

    def _amount(self, cents: int) -> str:
        return self.quoted(_amount(cents) if self._draw.random() < 0.3 else _amount(cents).replace(",", ""))


def _pool(make: Callable[[], _T]) -> list[_T]:
    return [make() for _ in range(_POOL)]


def _amount(cents: int) -> str:
    return f"{cents // 100:,}.{cents % 100:02d}"


def _clock(seconds: int) -> str:
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
