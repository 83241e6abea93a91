"""The generator: the same bytes every time, as many bad records as asked, of every sort, each known."""

import io
import re

import orjson
import pytest
from typer.testing import CliRunner

from schemas import profile
from streams.cli import app
from streams.lab.blemishes import BLEMISHES
from streams.lab.generate import HEADINGS, Format, Line, generate, write
from streams.lab.placements import COLUMNS


def _records(records: int, bad_rate: float, seed: int = 7) -> list[Line]:
    return [line for line in generate(records, seed, bad_rate) if line.number]


def test_the_same_arguments_give_the_same_bytes_and_another_seed_gives_others() -> None:
    first, again, other = (b"".join(line.data for line in generate(500, seed, 0.1)) for seed in (3, 3, 4))
    assert first == again
    assert first != other


@pytest.mark.parametrize(
    ("records", "rate", "bad"), [(1000, 0.1, 100), (333, 0.01, 3), (50, 1.0, 50), (50, 0.0, 0)]
)
def test_exactly_the_asked_share_is_bad(records: int, rate: float, bad: int) -> None:
    lines = _records(records, rate)
    assert [line.number for line in lines] == list(range(1, records + 1))
    assert sum(line.fault is not None for line in lines) == bad


def test_a_small_log_already_has_every_sort_of_fault() -> None:
    lines = _records(len(BLEMISHES), 1.0)
    assert {line.fault for line in lines} == {blemish.name for blemish in BLEMISHES}


def test_good_records_differ_in_their_ids() -> None:
    rows = [line.data.split(b",") for line in _records(5000, 0.0) if b'"' not in line.data]
    ids = [b"|".join(row[i] for i in (4, 15, 22, 23, 28)).strip().upper() for row in rows]
    assert len(set(ids)) == len(rows) > 2000


def test_all_kinds_are_mixed_and_the_text_is_as_rough_as_a_real_log() -> None:
    lines = list(generate(5000, 1, 0.0))
    data = b"".join(line.data for line in lines)
    spots = sum(line.record_type == "spot" for line in lines)
    assert {line.record_type for line in lines if line.number} == set(COLUMNS)
    assert 3000 < spots < 4000
    assert re.search(rb"[^\r]\n", data)
    assert b"\r\n" in data
    assert b"\n# page" in data
    assert re.search(rb'"[^"\n]*\n[^"\n]*"', data)  # a line break inside quotes
    assert b'""Original""' in data
    assert "Café".encode() in data
    assert re.search(rb'"\d,\d{3}\.\d\d"|"\d\d,\d{3}\.\d\d"', data)


def test_the_avion_profile_knows_every_heading() -> None:
    layout = profile.load("avion").layout(tuple(HEADINGS.values()))
    assert layout.columns == tuple(HEADINGS)


@pytest.mark.parametrize("format_", ["csv", "tsv"])
def test_rows_are_as_wide_as_the_header(format_: Format) -> None:
    delimiter = {"csv": b",", "tsv": b"\t"}[format_]
    for line in generate(300, 1, 0.0, format_):
        if line.number and b'"' not in line.data:
            assert line.data.count(delimiter) == len(HEADINGS) - 1


def test_the_truth_counts_what_was_written() -> None:
    log, known = io.BytesIO(), io.BytesIO()
    truth = write(log, generate(400, 2, 0.25), known)
    *bad, total = [orjson.loads(line) for line in known.getvalue().splitlines()]
    assert log.getvalue() == b"".join(line.data for line in generate(400, 2, 0.25))
    assert (truth.records, truth.bad, len(bad)) == (400, 100, 100)
    assert total == {
        "records": 400,
        "bad": 100,
        "by_kind": dict(truth.by_kind),
        "by_fault": dict(truth.by_fault),
    }
    assert sum(truth.by_kind.values()) == 400
    assert sum(truth.by_fault.values()) == 100
    expected = [line for line in _records(400, 0.25, 2) if line.fault]
    assert [(b["number"], b["fault"], tuple(b["fields"])) for b in bad] == [
        (line.number, line.fault, line.fields) for line in expected
    ]


def test_the_command_writes_the_log_to_stdout_and_the_truth_to_a_file(tmp_path) -> None:
    truth = tmp_path / "truth.ndjson"
    arguments = ["generate", "--records", "100", "--seed", "5", "--bad-rate", "0.2", "--truth", str(truth)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0
    assert result.stdout_bytes == b"".join(line.data for line in generate(100, 5, 0.2))
    assert orjson.loads(truth.read_bytes().splitlines()[-1])["bad"] == 20
