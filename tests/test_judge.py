"""Raw records in, one verdict for each out; the rules themselves are in test_records."""

from datetime import date

import orjson
import pytest
from exports import AVION, HEADER, Cells, descriptor, line, records
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from schemas.columns import Column
from schemas.errors import UsageError
from schemas.hashes import canonical_json, placement_hash
from schemas.records import MODELS, Invalid, Valid
from streams.validate import judge as judge_module
from streams.validate.judge import Judge

JUDGE = Judge(descriptor())
SPOT: Cells = {
    "record_type": "SPOT",
    "station": "WABC",
    "broadcast_date": "03/09/2026",
    "spot_id": "SP-1",
    "campaign_id": "C-1",
    "advertiser": "Acme",
    "duration_s": "30",
    "airtime_code": "PR",
    "clearance": "SCHED",
    "rate": "10.00",
    "billing_code": "CASH",
}
AVAIL: Cells = {
    "record_type": "AVAIL",
    "station": "WABC",
    "broadcast_date": "03/09/2026",
    "avail_id": "A-1",
    "break_id": "B-1",
    "window_start": "20:00:00",
    "window_end": "21:00:00",
    "duration_s": "30",
    "units_total": "2",
    "units_sold": "1",
    "floor_rate": "10",
}
BILL: Cells = {
    "record_type": "BILL",
    "station": "WABC",
    "broadcast_date": "03/09/2026",
    "invoice_id": "I-7",
    "line_no": "3",
    "spot_id": "SP-1",
    "billing_period": "2026-03",
    "billing_code": "CASH",
    "gross": "10",
    "agency_commission": "1",
    "net": "9",
}


def judged(cells: Cells, judge: Judge = JUDGE) -> Valid | Invalid:
    return judge.judge([line(cells)])[0]


def hash_of(cells: Cells) -> str:
    verdict = judged(cells)
    assert isinstance(verdict, Valid), verdict
    return verdict.placement_hash


@given(records())
@settings(max_examples=80)
def test_a_record_that_keeps_all_rules_is_valid_and_its_model_agrees(cells: Cells) -> None:
    verdict = judged(cells)
    assert isinstance(verdict, Valid), verdict
    TypeAdapter(MODELS[verdict.kind]).validate_python(verdict.record)
    assert verdict.canonical == orjson.dumps(verdict.record, option=orjson.OPT_SORT_KEYS)
    assert verdict.placement_hash == placement_hash(verdict.canonical)


@given(records(), st.randoms(), st.sampled_from(["", " ", "  \t"]))
@settings(max_examples=50)
def test_spacing_case_and_heading_order_leave_the_hash_as_it_is(cells: Cells, random, pad: str) -> None:
    header = list(HEADER)
    random.shuffle(header)
    spaced = {
        name: pad + (text if name == "advertiser" else text.lower()) + pad
        for name, text in cells.items()
        if text or pad
    }
    other = Judge(descriptor(header)).judge([line(spaced, header)])[0]
    assert isinstance(other, Valid), other
    assert other.placement_hash == hash_of(cells)


@given(records(), records())
@settings(max_examples=50)
def test_any_changed_field_changes_the_hash(one: Cells, other: Cells) -> None:
    before = judged(one)
    assert isinstance(before, Valid)
    for name in other.keys() & one.keys():
        after = judged(one | {name: other[name]})
        if isinstance(after, Valid):
            assert (after.record == before.record) == (after.placement_hash == before.placement_hash)
            if name not in {"record_type", "revision", "approved_at"} and "." not in one[name] + other[name]:
                changed = one[name].strip().upper() != other[name].strip().upper()
                assert changed == (after.placement_hash != before.placement_hash), name


def test_another_revision_is_another_record() -> None:
    assert len({hash_of(SPOT | {"revision": revision}) for revision in ("", "3", "4")}) == 3


@given(st.lists(st.binary(max_size=60) | records().map(line), max_size=30))
@settings(max_examples=60)
def test_every_value_gets_one_verdict_the_same_as_alone(values: list[bytes]) -> None:
    verdicts = JUDGE.judge(values)
    assert len(verdicts) == len(values)
    assert verdicts == [JUDGE.judge([value])[0] for value in values]


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        (b"SPOT,WABC\n", f"must have {len(HEADER)} cells like the heading row, has 2"),
        (
            line(SPOT)[:-2] + b",,x\r\n",
            f"must have {len(HEADER)} cells like the heading row, has {len(HEADER) + 2}",
        ),
        (line(SPOT).replace(b"Acme", b"Ac\xffme"), "must be utf-8: invalid start byte"),
        (line(SPOT).replace(b"Acme", b"Ac\0me"), "must not hold a NUL character"),
        (
            line(SPOT).replace(b"Acme", b'"Acme'),
            f"must be a row of {len(HEADER)} cells: unexpected end of data",
        ),
        (
            line(SPOT).replace(b"Acme", b'"Ac"me'),
            f"must be a row of {len(HEADER)} cells: ',' expected after '\"'",
        ),
        (b"\n", f"must have {len(HEADER)} cells like the heading row, has 1"),
    ],
)
def test_a_record_that_is_no_row_is_rejected_alone(value: bytes, rule: str) -> None:
    quoted = line(SPOT | {"advertiser": 'Acme, "Sons"'})
    before, wrong, after = JUDGE.judge([quoted, value, quoted])
    assert isinstance(wrong, Invalid)
    assert [(reason["field"], reason["rule"]) for reason in wrong.reasons] == [("", rule)]
    assert isinstance(before, Valid)
    assert before == after
    assert before.record["advertiser"] == 'Acme, "Sons"'


def test_undecodable_bytes_are_named() -> None:
    verdict = JUDGE.judge([b"SPOT,\xe9,x\n"])[0]
    assert isinstance(verdict, Invalid)
    assert verdict.reasons[0]["value"] == "e9 at byte 5"


def test_trailing_delimiters_and_line_breaks_in_quotes_are_legal() -> None:
    trailing = line(SPOT).replace(b"\r\n", b",, \n")
    broken = line(SPOT | {"advertiser": "Acme\r\n  Sons"})
    first, second = JUDGE.judge([trailing, broken])
    assert isinstance(first, Valid)
    assert first.placement_hash == hash_of(SPOT)
    assert isinstance(second, Valid)
    assert second.record["advertiser"] == "Acme Sons"


def test_a_heading_row_with_a_trailing_delimiter_takes_rows_with_and_without() -> None:
    judge = Judge(descriptor((*HEADER, "")))
    with_, without = judge.judge([line(SPOT).replace(b"\r\n", b",\r\n"), line(SPOT)])
    assert with_ == without == judged(SPOT)


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "text": st.none() | st.text(),
                "number": st.none() | st.integers(-(2**53), 2**53),
                "z": st.text(),
            }
        ),
        min_size=1,
        max_size=6,
    )
)
def test_canonical_forms_are_what_rfc_8785_has(found) -> None:
    """For text and whole numbers orjson writes just that, one by one."""
    columns = {name: Column([record[name] for record in found]) for name in ("z", "text", "number")}
    kept = [{name: value for name, value in record.items() if value is not None} for record in found]
    assert canonical_json(columns) == [orjson.dumps(record, option=orjson.OPT_SORT_KEYS) for record in kept]


@pytest.mark.parametrize(
    ("text", "rule"), [("", "is required"), ("SPOTS", "must be one of SPOT, AVAIL, BILL, MG")]
)
def test_the_kind_must_be_known(text: str, rule: str) -> None:
    verdict = judged(SPOT | {"record_type": text})
    assert verdict == Invalid([{"field": "record_type", "value": text, "rule": rule}], text)


def test_a_fixed_kind_needs_no_column() -> None:
    used = AVION.model_copy(update={"record_type": "spot"})
    header = tuple(SPOT)[1:]
    verdict = Judge(descriptor(header, used)).judge([line(SPOT, header)])[0]
    assert isinstance(verdict, Valid)
    assert verdict.placement_hash == hash_of(SPOT)


def test_the_samples_are_valid() -> None:
    assert all(isinstance(judged(cells), Valid) for cells in (SPOT, AVAIL, BILL))


def test_every_reason_is_given_at_once_field_rules_and_rules_between_fields() -> None:
    cells = {
        "record_type": "AVAIL",
        "station": "?",
        "broadcast_date": "2026-03-09",
        "avail_id": "",
        "break_id": "B 1",
        "window_start": "22:00:00",
        "window_end": "21:00:00",
        "duration_s": "0",
        "units_total": "1",
        "units_sold": "2",
        "floor_rate": "1.005",
    }
    verdict = judged(cells)
    assert isinstance(verdict, Invalid)
    assert verdict.record_type == "avail"
    assert {reason["field"]: reason["value"] for reason in verdict.reasons} == {
        name: cells[name]
        for name in (
            "station",
            "broadcast_date",
            "avail_id",
            "break_id",
            "window_end",
            "duration_s",
            "units_sold",
            "floor_rate",
        )
    }


def test_a_kind_whose_columns_the_file_lacks_is_rejected_record_by_record() -> None:
    header = tuple(SPOT)
    spot, avail = Judge(descriptor(header)).judge(
        [line(SPOT, header), line(SPOT | {"record_type": "AVAIL"}, header)]
    )
    assert isinstance(spot, Valid)
    assert isinstance(avail, Invalid)
    found = {reason["field"]: reason["rule"] for reason in avail.reasons}
    assert found["avail_id"] == "is required; the file has no such column"


def test_a_record_that_crashes_the_code_is_rejected_alone_with_its_traceback(monkeypatch) -> None:
    real = judge_module.canonical_json

    def brittle(columns):
        if "SP-BOOM" in columns["spot_id"].each():
            raise RuntimeError("boom")
        return real(columns)

    monkeypatch.setattr(judge_module, "canonical_json", brittle)
    good, bad, other = JUDGE.judge([line(SPOT), line(SPOT | {"spot_id": "SP-BOOM"}), b"SPOT\n"])
    assert isinstance(good, Valid)
    assert isinstance(bad, Invalid)
    assert isinstance(other, Invalid)
    assert "RuntimeError: boom" in bad.traceback
    assert [(reason["field"], reason["rule"]) for reason in bad.reasons] == [
        ("", "must not fail: RuntimeError: boom")
    ]
    assert not other.traceback


def test_other_encodings_and_delimiters() -> None:
    tsv = AVION.model_copy(update={"format": "tsv", "delimiter": "\t", "encoding": "cp1252"})
    judge = Judge(descriptor(used=tsv, encoding="cp1252"))
    row = "\t".join(SPOT.get(name, "") for name in HEADER).replace("Acme", "Café, “Zürich”") + "\n"
    verdict = judge.judge([row.encode("cp1252")])[0]
    assert isinstance(verdict, Valid)
    assert verdict.record["advertiser"] == "Café, “Zürich”"


def test_an_unknown_layout_is_refused() -> None:
    with pytest.raises(UsageError, match="no column for record_type"):
        Judge(descriptor(("a", "b")))


def test_values_in_reasons_are_cut() -> None:
    verdict = judged(SPOT | {"advertiser": "x" * 5000})
    assert isinstance(verdict, Invalid)
    assert verdict.reasons[0]["value"] == "x" * 200 + "…"


def test_a_station_has_its_own_time_zone() -> None:
    """18:00 on 9 March 2026, summer time: 22:00 UTC in New York, 01:00 UTC the next day in Los Angeles."""
    day = date(2026, 3, 9).strftime("%m/%d/%Y")
    for station, instant in (("WABC", "2026-03-09T22:00:00.000Z"), ("kxyz-tv", "2026-03-10T01:00:00.000Z")):
        verdict = judged(SPOT | {"station": station, "broadcast_date": day, "air_time": "18:00:00"})
        assert isinstance(verdict, Valid)
        assert verdict.record["aired_at"] == instant


@pytest.mark.parametrize(
    ("cells", "fields"),
    [
        (SPOT | {"clearance": "C", "air_time": "noon"}, {"air_time"}),
        (SPOT | {"clearance": "C"}, {"air_time"}),
        (AVAIL | {"window_start": "late"}, {"window_start"}),
        (AVAIL | {"units_total": "2000000", "units_sold": "3"}, {"units_total"}),
        (AVAIL | {"units_total": "x", "window_end": "19:00:00"}, {"units_total", "window_end"}),
        (BILL | {"gross": "1.2.3"}, {"gross"}),
        (BILL | {"gross": "-10"}, {"gross"}),
        (BILL | {"net": "9.01"}, {"net"}),
    ],
)
def test_rules_between_fields_are_judged_on_valid_fields_only(cells: Cells, fields: set[str]) -> None:
    verdict = judged(cells)
    assert isinstance(verdict, Invalid)
    assert not verdict.traceback
    assert sorted(reason["field"] for reason in verdict.reasons) == sorted(fields)
