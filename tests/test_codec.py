"""Avro: our bytes are fastavro's, the reference implementation reads them, and schemas may grow."""

import copy
import io
import json
from datetime import date, datetime
from itertools import pairwise
from typing import Any

import avro.io
import avro.schema
import fastavro
import pytest
from exports import descriptor, line, records
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.codec import Codec, _numbers, _varint, bodies, schema, schema_id
from schemas.columns import Column
from schemas.records import KINDS, MODELS, Kind, Valid
from streams.validate import outcome
from streams.validate.judge import Judge

JUDGE = Judge(descriptor())
CODECS = {kind: Codec(kind, 70_000) for kind in KINDS}


def valid(cells: dict[str, str]) -> Valid:
    verdict = JUDGE.judge([line(cells)])[0]
    assert isinstance(verdict, Valid), verdict
    return verdict


def as_logical(verdict: Valid) -> dict[str, Any]:
    """What Avro's libraries take: dates and date-times for the logical types."""
    found: dict[str, Any] = verdict.record | {"placement_hash": verdict.placement_hash}
    found["broadcast_date"] = date.fromisoformat(found["broadcast_date"])
    for name in {"aired_at", "approved_at"} & found.keys():
        found[name] = datetime.fromisoformat(found[name])
    return found


@given(records())
@settings(max_examples=100)
def test_our_bytes_are_fastavros_and_read_back_as_they_were(cells: dict[str, str]) -> None:
    verdict = valid(cells)
    codec = CODECS[verdict.kind]
    value = codec.frame + verdict.avro
    theirs = io.BytesIO()
    fastavro.schemaless_writer(theirs, fastavro.parse_schema(schema(verdict.kind)), as_logical(verdict))
    assert value == b"\0" + (70_000).to_bytes(4) + theirs.getvalue()
    assert schema_id(value) == 70_000
    assert codec.decode(value) == (verdict.record, verdict.placement_hash)


@given(st.lists(records(), min_size=1, max_size=20))
@settings(max_examples=60)
def test_records_together_are_written_as_each_alone(found: list[dict[str, str]]) -> None:
    """A column may have values that are empty, escaped or not ASCII beside others that are not."""
    assert JUDGE.judge([line(cells) for cells in found]) == [valid(cells) for cells in found]


@given(records())
@settings(max_examples=40)
def test_the_reference_implementation_reads_them(cells: dict[str, str]) -> None:
    verdict = valid(cells)
    parsed = avro.schema.parse(json.dumps(schema(verdict.kind)))
    found = avro.io.DatumReader(parsed).read(avro.io.BinaryDecoder(io.BytesIO(verdict.avro)))
    # It leaves logical types as the numbers that they are written in.
    expected = as_logical(verdict)
    expected["broadcast_date"] = (expected["broadcast_date"] - date(1970, 1, 1)).days
    for name in {"aired_at", "approved_at"} & expected.keys():
        expected[name] = round(expected[name].timestamp() * 1000)
    present = {name: value for name, value in found.items() if value is not None}
    assert present | {"record_type": verdict.kind} == expected


#: Numbers of all lengths that Avro writes, and those at which another byte begins.
ENDS = [0, *(2**power for power in (6, 13, 14, 20, 27, 34, 41, 48, 62)), 2**63 - 1]
NUMBERS = st.one_of(
    [st.integers(low, high) for low, high in pairwise(ENDS)]
    + [st.sampled_from([end + by for end in ENDS[1:-1] for by in (-1, 0, 1)]), st.integers(-(2**63), 0)]
)


@given(st.lists(NUMBERS, min_size=1, max_size=4))
@settings(max_examples=300)
def test_numbers_are_written_as_avro_has_them(numbers: list[int]) -> None:
    theirs = io.BytesIO()
    for number in numbers:
        avro.io.BinaryEncoder(theirs).write_long(number)
    assert "".join(_numbers(numbers)).encode("latin-1") == theirs.getvalue()


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1])
def test_a_number_beyond_64_bits_is_an_error(number: int) -> None:
    with pytest.raises(OverflowError):
        _varint(number)


@pytest.mark.parametrize("kind", KINDS)
def test_a_schema_has_the_fields_of_its_model_each_described(kind: Kind) -> None:
    model = MODELS[kind]
    fields = {field["name"]: field for field in schema(kind)["fields"]}
    assert set(fields) == set(model.__annotations__) - {"record_type"} | {"placement_hash"}
    for name, field in fields.items():
        assert field["doc"]
        optional = name in model.__optional_keys__
        assert (isinstance(field["type"], list) and field["default"] is None) == optional, name


SPOT = {
    "record_type": "SPOT",
    "station": "WABC",
    "broadcast_date": "03/09/2026",
    "spot_id": "SP-1",
    "campaign_id": "C-1",
    "advertiser": "Acme",
    "air_time": "08:00:00",
    "duration_s": "30",
    "airtime_code": "PR",
    "clearance": "C",
    "rate": "10.00",
    "billing_code": "CASH",
}
BILL = {
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


def test_a_message_is_keyed_by_the_records_id() -> None:
    for cells, key in ((SPOT, b"SP-1"), (BILL, b"I-7/3")):
        verdict = valid(cells)
        (block,) = outcome.written([verdict], CODECS).values()
        assert (block.keys.tobytes(), block.data) == (key, CODECS[verdict.kind].frame + verdict.avro)


@pytest.mark.parametrize(
    "change",
    [
        {"rate_minor": "10"},
        {"rate_minor": 2**63},
        {"broadcast_date": "today"},
        {"advertiser": 1},
    ],
)
def test_a_record_that_cannot_be_written_is_an_error(change: dict[str, Any]) -> None:
    verdict = valid(SPOT)
    with pytest.raises((KeyError, TypeError, ValueError, AttributeError, OverflowError)):
        written({**verdict.record, **change})


@pytest.mark.parametrize("name", ["spot_id", "station"])
def test_a_record_without_a_field_that_it_must_have_is_an_error(name: str) -> None:
    record = valid(SPOT).record
    del record[name]
    with pytest.raises(KeyError):
        written(record)


def written(record: dict[str, Any]) -> list[bytes]:
    return bodies("spot", {name: Column([value]) for name, value in record.items()}, ["0" * 64])


@pytest.mark.parametrize("value", [b"", b"\0\0\0", b"\1\0\0\0\7rest"])
def test_what_is_not_framed_is_an_error(value: bytes) -> None:
    with pytest.raises(ValueError, match="not framed"):
        CODECS["spot"].decode(value)


def test_a_record_of_an_older_or_a_newer_schema_is_read_as_ours() -> None:
    verdict = valid(SPOT)
    other = copy.deepcopy(schema("spot"))
    other["fields"] = [field for field in other["fields"] if field["name"] not in {"revision", "ad_id"}]
    other["fields"].append({"name": "later", "type": ["null", "string"], "default": None})
    written = io.BytesIO(b"\0\0\0\0\1")
    written.seek(5)
    fastavro.schemaless_writer(written, fastavro.parse_schema(other), as_logical(verdict) | {"later": "x"})
    codec = Codec("spot", 1, writer=other)
    assert codec.decode(written.getvalue()) == (verdict.record, verdict.placement_hash)
