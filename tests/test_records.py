"""Normalization: what the text of each column comes to, and what it may not be."""

from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

import pytest
from exports import AVION
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import normalize, records
from schemas.columns import Column
from schemas.normalize import Fault, Normalizer, Table
from schemas.records import COLUMNS, JUDGES, KINDS, OPTIONAL, RULES, Kind, conflicts

TABLES = normalize.of(AVION)


def read(column: str, text: str, used: Normalizer = TABLES, kind: Kind | None = None, **others: str) -> Any:
    """A column's value; a Fault also where the field's model refuses it."""
    kind = kind or next(kind for kind in KINDS if column in COLUMNS[kind])
    fields = columns(used, kind, {name: [value] for name, value in {column: text, **others}.items()})
    field = column if column in fields else f"{column}_minor"
    value = fields[field][0]
    try:
        JUDGES[kind][field].validate_python([value])
    except ValueError:
        return "refused" if value is not None else None
    return value


def columns(used: Normalizer, kind: Kind, cells: dict[str, list[str]]) -> dict[str, list[Any]]:
    """The normalized values of each field, record by record."""
    found = used.columns(kind, {name: Column(texts) for name, texts in cells.items()})
    return {name: column.each() for name, column in found.items()}


def using(**changes: Any) -> Normalizer:
    return Normalizer(AVION.model_validate(AVION.model_dump() | changes))


@pytest.mark.parametrize(
    ("column", "text", "value"),
    [
        ("station", " wabc ", "WABC"),
        ("station", "kxyz-tv", "KXYZ-TV"),
        ("station", "W", "refused"),
        ("station", "WABC TV", "refused"),
        ("station", "9ABC", "refused"),
        ("spot_id", "  sp-001 ", "SP-001"),
        ("spot_id", "AB", "refused"),
        ("spot_id", "A" * 32, "A" * 32),
        ("spot_id", "A" * 33, "refused"),
        ("spot_id", "SP_1", "refused"),
        ("spot_id", "SP 1", "refused"),
        ("spot_id", "", None),
        ("spot_id", "   ", None),
        ("spot_id", "\u017fP-1", "refused"),  # its upper case would be SP-1
        ("campaign_id", "c.1/2_3", "C.1/2_3"),
        ("campaign_id", "-1", "refused"),
        ("advertiser", "  Acme \t &\u00a0 Sons ", "Acme & Sons"),
        ("advertiser", "Cafe\u0301", "Caf\u00e9"),
        ("advertiser", "x" * 120, "x" * 120),
        ("advertiser", "x" * 121, "refused"),
        ("advertiser", "e\u0301" * 120, "\u00e9" * 120),
        ("advertiser", "a\x07b", "refused"),
        ("advertiser", "a\x7fb", "refused"),
        ("ad_id", "abcd1234", "ABCD1234"),
        ("ad_id", "", None),
        ("ad_id", "ABC1234", "refused"),
        ("ad_id", "ABCD123456789", "refused"),
        ("ad_id", "ABCD-1234", "refused"),
        ("duration_s", " 030 ", 30),
        ("duration_s", "1", 1),
        ("duration_s", "3600", 3600),
        ("duration_s", "0", "refused"),
        ("duration_s", "3601", "refused"),
        ("duration_s", "30.0", "refused"),
        ("duration_s", "-30", "refused"),
        ("duration_s", "+30", "refused"),
        ("duration_s", "3_0", "refused"),
        ("duration_s", "\uff13\uff10", "refused"),
        ("line_no", "0", "refused"),
        ("units_sold", "0", 0),
        ("airtime_code", " pr ", "PR"),
        ("airtime_code", "XX", "refused"),
        ("billing_code", "cash", "CASH"),
        ("billing_code", "CASHY", "refused"),
        ("reason_code", "tech", "TECH"),
        ("clearance", "Cleared", "cleared"),
        ("clearance", "C", "cleared"),
        ("clearance", "PREEMPT", "preempted"),
        ("clearance", "unknown", "refused"),
        ("currency", " eur ", "EUR"),
        ("currency", "", "USD"),
        ("currency", "XYZ", "refused"),
        ("billing_period", "2026-03", "2026-03"),
        ("billing_period", "2026-13", "refused"),
        ("billing_period", "2026-3", "refused"),
        ("billing_period", "20\u0662\u0666-03", "refused"),  # Arabic-Indic digits
        ("billing_period", "03/2026", "refused"),
        ("broadcast_date", "03/09/2026", "2026-03-09"),
        ("broadcast_date", "02/29/2024", "2024-02-29"),
        ("broadcast_date", "02/29/2026", "refused"),
        ("broadcast_date", "13/09/2026", "refused"),
        ("broadcast_date", "3/9/2026", "refused"),
        ("broadcast_date", "2026-03-09", "refused"),
        ("broadcast_date", "03/09/26", "refused"),
        ("broadcast_date", "\uff10\uff13/09/2026", "refused"),
        ("broadcast_date", "03/09/1979", "refused"),
        ("air_time", "06:00:00", "06:00:00.000"),
        ("air_time", "29:59:59.999", "29:59:59.999"),
        ("air_time", "25:30:00", "25:30:00.000"),
        ("air_time", "01:30:00", "25:30:00.000"),
        ("air_time", "05:59:59", "29:59:59.000"),
        ("air_time", "30:00:00", "refused"),
        ("air_time", "12:60:00", "refused"),
        ("air_time", "12:00:60", "refused"),
        ("air_time", "12:00", "refused"),
        ("air_time", "6:00:00", "refused"),
        ("air_time", "12:00:00.5", "refused"),
        ("air_time", "", None),
        ("window_start", "23:00:00", "23:00:00.000"),
        ("rate", "1,234.50", 123450),
        ("rate", "1234.5", 123450),
        ("rate", "1234", 123400),
        ("rate", "0.07", 7),
        ("rate", "007.00", 700),
        ("rate", "1,234,567.89", 123456789),
        ("rate", "1,23.00", "refused"),
        ("rate", "12,34", "refused"),
        ("rate", ",123", "refused"),
        ("rate", "1234,567", "refused"),
        ("rate", "1.005", "refused"),
        ("rate", "1.", "refused"),
        ("rate", ".50", "refused"),
        ("rate", "$1.00", "refused"),
        ("rate", "1e3", "refused"),
        ("rate", "NaN", "refused"),
        ("rate", "-5.00", "refused"),
        ("rate", "9" * 14, "refused"),
        ("rate", "9" * 5000, "refused"),
        ("adjustment", "-1,234.50", -123450),
        ("adjustment", "-0.00", 0),
        ("adjustment", "--1", "refused"),
        ("revision", "007", "7"),
        ("revision", "000", "0"),
        ("revision", "3.10", "3.10"),
        ("revision", "2026-03-09T14:30:00+02:00", "2026-03-09T12:30:00.000Z"),
        ("revision", "03/09/2026 08:00:00", "2026-03-09T12:00:00.000Z"),
        ("revision", "three", "refused"),
        ("approved_at", "2026-03-09T14:30:00.1239Z", "2026-03-09T14:30:00.123Z"),
        ("approved_at", "2026-03-09t14:30:00z", "2026-03-09T14:30:00.000Z"),
        ("approved_at", "2026-03-09T23:30:00-05:00", "2026-03-10T04:30:00.000Z"),
        ("approved_at", "01/09/2026 08:00:00", "2026-01-09T13:00:00.000Z"),
        ("approved_at", "2026-03-09T14:30:00", "refused"),
        ("approved_at", "2026-03-09", "refused"),
        ("approved_at", "2026-W11-1T14:30:00Z", "refused"),
        ("approved_at", "0001-01-01T00:00:00+14:00", "refused"),
        ("approved_at", "", None),
    ],
)
def test_values(column: str, text: str, value: Any) -> None:
    assert read(column, text) == value


@pytest.mark.parametrize(
    ("currency", "text", "minor"),
    [
        ("JPY", "1,234", 1234),
        ("JPY", "1234.0", "refused"),
        ("KWD", "1.234", 1234),
        ("KWD", "1.2", 1200),
        ("EUR", "12.34", 1234),
        ("EUR", "1.234", "refused"),
    ],
)
def test_money_has_the_decimals_of_its_currency(currency: str, text: str, minor: Any) -> None:
    assert read("rate", text, currency=currency) == minor
    assert read("rate", text, using(currency=currency)) == minor


def test_a_decimal_comma_is_the_profiles_choice() -> None:
    used = using(decimal_mark=",")
    assert read("rate", "1.234,50", used) == 123450
    assert read("rate", "1,234.50", used) == "refused"


@pytest.mark.parametrize(
    ("form", "text", "day"),
    [
        ("%Y-%m-%d", "2026-03-09", "2026-03-09"),
        ("%d.%m.%y", "09.03.26", "2026-03-09"),
        ("%-m/%-d/%Y", "3/9/2026", "2026-03-09"),
        ("%-m/%-d/%Y", "03/09/2026", "2026-03-09"),
        ("%d-%b-%Y", "09-MAR-2026", "2026-03-09"),
        ("%Y%m%d", "20260309", "2026-03-09"),
        ("%Y%m%d", "2026309", "refused"),
        ("%d/%m/%Y", "03/09/2026", "2026-09-03"),
        ("%Y-%m-%d", "2026-3-9", "refused"),
        ("%Y-%m-%d", "2026-03-09 ", "2026-03-09"),
        ("%Y-%m-%d", "2026-03-09x", "refused"),
    ],
)
def test_the_date_format_is_the_profiles(form: str, text: str, day: str) -> None:
    assert read("broadcast_date", text, using(date_format=form)) == day


@pytest.mark.parametrize(
    ("day", "time", "instant"),
    [
        ("01/15/2026", "12:00:00", "2026-01-15T17:00:00.000Z"),
        ("07/15/2026", "12:00:00.250", "2026-07-15T16:00:00.250Z"),
        ("12/31/2026", "25:30:00", "2027-01-01T06:30:00.000Z"),
        ("03/07/2026", "25:59:59", "2026-03-08T06:59:59.000Z"),
        ("03/07/2026", "26:30:00", "2026-03-08T07:30:00.000Z"),  # skipped; read at the offset from before
        ("03/07/2026", "27:00:00", "2026-03-08T07:00:00.000Z"),
        ("10/31/2026", "25:30:00", "2026-11-01T05:30:00.000Z"),  # shown twice; the first one
        ("10/31/2026", "26:00:00", "2026-11-01T07:00:00.000Z"),
    ],
)
def test_aired_at_in_new_york(day: str, time: str, instant: str) -> None:
    found = columns(TABLES, "spot", {"broadcast_date": [day], "air_time": [time]})
    assert found["aired_at"] == [instant]


@given(
    st.sampled_from(sorted(available_timezones() - {"Factory", "localtime"})),
    st.dates(date(1980, 1, 1), date(2099, 12, 31)),
    st.integers(6 * 3600, 30 * 3600 - 1),
)
@settings(max_examples=200)
def test_aired_at_anywhere_is_what_zoneinfo_makes_of_the_local_time(
    zone: str, day: date, second: int
) -> None:
    used = _in_zone(zone)
    time = f"{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}"
    found = columns(used, "spot", {"broadcast_date": [day.isoformat()], "air_time": [time]})["aired_at"][0]
    midnight = datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(zone))
    expected = (midnight + timedelta(seconds=second)).astimezone(UTC)
    assert found == expected.strftime("%Y-%m-%dT%H:%M:%S.000Z")


def _in_zone(zone: str) -> Normalizer:
    changes = {"time_zone": zone, "date_format": "%Y-%m-%d", "stations": {}}
    return normalize.of(AVION.model_copy(update=changes))


@given(st.sampled_from(sorted({name for names in COLUMNS.values() for name in names})), st.text(max_size=40))
@settings(max_examples=400)
def test_any_text_gives_a_value_or_a_fault_and_values_are_stable(column: str, text: str) -> None:
    value = read(column, text)
    assert value is None or isinstance(value, str | int)
    again = column not in {"broadcast_date", "rate", "floor_rate", "gross", "agency_commission", "net"}
    if isinstance(value, str) and value != "refused" and again and column != "adjustment":
        assert read(column, value) == value


@given(st.integers(-(10**15) + 1, 10**15 - 1), st.booleans())
def test_money_is_exact(cents: int, grouped: bool) -> None:
    whole, rest = divmod(abs(cents), 100)
    text = f"{'-' if cents < 0 else ''}{whole:{',' if grouped else ''}}.{rest:02}"
    assert read("adjustment", text) == cents
    assert read("rate", text) == (cents if cents >= 0 else "refused")


def test_tables_are_bounded() -> None:
    table = Table(str.upper, limit=100)
    assert [table[f"a{n}"] for n in range(1000)] == [f"A{n}" for n in range(1000)]
    assert 0 < len(table) <= 100
    long = "x" * 100_000
    assert table[long] == long.upper()
    assert long not in table


def test_days_are_bounded() -> None:
    used = using(date_format="%Y-%m-%d")
    days = [(date(2026, 1, 1) + timedelta(days=n)).isoformat() for n in range(500)]
    found = columns(used, "spot", {"broadcast_date": days, "air_time": ["12:00:00"] * 500})
    assert len(set(found["aired_at"])) == 500
    assert 0 < len(used._clocks) <= 128


@pytest.mark.parametrize(
    ("record", "fields"),
    [
        ({"record_type": "spot", "clearance": "cleared"}, ["air_time"]),
        ({"record_type": "spot", "clearance": "cleared", "air_time": "06:00:00.000"}, []),
        ({"record_type": "spot", "clearance": "missed"}, []),
        (
            {"record_type": "avail", "window_start": "06:00:00.000", "window_end": "06:00:00.000"},
            ["window_end"],
        ),
        ({"record_type": "avail", "window_start": "23:00:00.000", "window_end": "25:00:00.000"}, []),
        ({"record_type": "avail", "window_start": "23:00:00.000"}, []),
        ({"record_type": "avail", "units_total": 1, "units_sold": 2}, ["units_sold"]),
        ({"record_type": "avail", "units_total": 2, "units_sold": 2}, []),
        ({"record_type": "billing", "gross_minor": 100, "agency_commission_minor": 15, "net_minor": 85}, []),
        (
            {"record_type": "billing", "gross_minor": 100, "agency_commission_minor": 15, "net_minor": 86},
            ["net_minor"],
        ),
        ({"record_type": "billing", "gross_minor": 100, "net_minor": 86}, []),
        (
            {"record_type": "makegood", "original_spot_id": "A-1", "replacement_spot_id": "A-1"},
            ["replacement_spot_id"],
        ),
        ({"record_type": "makegood", "original_spot_id": "A-1", "replacement_spot_id": "A-2"}, []),
        ({"record_type": "makegood"}, []),
    ],
)
def test_rules_between_fields(record: dict[str, Any], fields: list[str]) -> None:
    found = conflicts(record["record_type"], {name: Column([value]) for name, value in record.items()})
    assert [field for _, field, _ in found] == fields


def test_every_rule_is_said_in_words() -> None:
    for kind in KINDS:
        assert set(JUDGES[kind]) == set(RULES[kind]) | {"record_type"}
        assert all(rule.startswith("must be") and len(rule) > 10 for rule in RULES[kind].values())
    assert {"revision", "ad_id", "air_time", "aired_at"} == OPTIONAL
    assert records.column("rate_minor") == "rate"


def test_a_fault_stands_for_what_cannot_be_read() -> None:
    value = columns(TABLES, "spot", {"air_time": ["noon"]})["air_time"][0]
    assert isinstance(value, Fault)
    assert value.rule == "must be a time as HH:MM:SS or HH:MM:SS.mmm, hours 00 to 29"


FORMS = ["%m/%d/%Y", "%-m/%-d/%Y", "%Y%m%d", "%d.%m.%Y %H:%M:%S", "%d %b %Y", "%y-%m-%d", "%m/%Y %d"]


@given(st.sampled_from(FORMS), st.data())
def test_dates_are_read_as_strptime_reads_them(form: str, data: st.DataObject) -> None:
    ascii_ = st.characters(codec="ascii")
    text = data.draw(st.from_regex(normalize._gate(form), fullmatch=True, alphabet=ascii_))
    try:
        expected = datetime.strptime(text, form.replace("%-", "%"))  # noqa: DTZ007 - as it is in the file
    except ValueError:
        expected = None
    assert normalize._parsed(text, form) == expected
