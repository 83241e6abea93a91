"""Delimited records that Arrow reads many at once are the rows that they are one by one."""

import csv
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from exports import AVION, HEADER, descriptor, line, records
from hypothesis import example, given, settings
from hypothesis import strategies as st

from schemas.letter import Reason
from streams.formats import catalogue, rows, table
from streams.formats.parser import Parser
from streams.formats.rows import DelimitedRows, Row
from streams.validate.judge import Judge


@pytest.fixture(autouse=True, scope="module")
def few() -> object:
    """However few they are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "FEW", 0)
        patch.setattr(table, "FEW", 0)
        yield


def read(reader: rows.Rows, values: list[bytes]) -> list[Row | Reason]:
    """The rows, put together from the tables' columns."""
    tables, reasons = reader.tables(values)
    found: list[Row | Reason | None] = [reasons.get(place, [None])[0] for place in range(len(values))]
    for one in tables:
        places = one.places.tolist()
        every = np.arange(len(places))
        columns = [column.each() for column in one.columns(reader_header(reader), every)]
        for place, *cells in zip(places, *columns, strict=True):
            assert found[place] is None
            found[place] = cells
    return found


def reader_header(reader: rows.Rows) -> range:
    assert isinstance(reader, DelimitedRows)
    return range(reader.width)


def cut(row: Row | Reason, width: int) -> Row | Reason:
    """Without the blank cells that a row may have beyond the heading row's."""
    return row if isinstance(row, dict) else list(row[:width])


@st.composite
def raw(draw: st.DrawFn, delimiter: str, encoding: str) -> bytes:
    """A raw record: well-formed by Python's module, or anything."""
    end = draw(st.sampled_from(["\n", "\r\n", "\r\n", "\n", ""]))
    letters = st.sampled_from(list(f'ab {delimiter}"""\r\n\0é\ufeff☃'))
    if draw(st.booleans()):
        text = io.StringIO()
        cells = draw(st.lists(st.text(letters, max_size=4), min_size=1, max_size=5))
        csv.writer(text, delimiter=delimiter, lineterminator=end).writerow(cells)
        return text.getvalue().encode(encoding, "replace")
    anything = st.text(letters, max_size=12).map(lambda text: (text + end).encode(encoding, "replace"))
    return draw(anything | st.binary(max_size=8))


@pytest.mark.parametrize(
    ("kind", "delimiter", "quote", "encoding", "width"),
    [
        ("csv", ",", '"', "utf-8", 3),
        ("csv", ";", '"', "utf-8", 2),
        ("csv", ",", '"', "utf-8", 1),
        ("csv", "§", '"', "utf-8", 2),
        ("csv", ",", "'", "cp1252", 3),
        ("tsv", "\t", "", "latin-1", 3),
        ("csv", ",", '"', "utf-16-le", 2),
    ],
)
@given(st.data())
@settings(max_examples=100)
def test_rows_are_the_same(kind: str, delimiter: str, quote: str, encoding: str, width: int, data) -> None:
    used = AVION.model_copy(update={"format": kind, "delimiter": delimiter, "quote": quote})
    reader = catalogue.rows(descriptor([f"c{n}" for n in range(width)], used, encoding))
    values = data.draw(st.lists(raw(delimiter, encoding), max_size=12))
    assert read(reader, values) == [cut(row, width) for row in reader.read(values)]


@given(st.lists(st.binary(max_size=60) | records().map(line), max_size=30))
@settings(max_examples=60)
@example([b"\n", b"\r\n", b"\xef\xbb\xbf\n", b"\n"])
def test_verdicts_are_those_of_each_record_alone(values: list[bytes]) -> None:
    judge = Judge(descriptor())
    assert judge.judge(values) == [judge.judge([value])[0] for value in values]


def test_plain_records_are_not_read_one_by_one() -> None:
    """Else all is as slow as before and no other test knows."""
    parser = Parser("utf-8", ",", '"', 3)
    plain = [b'a,"b ""c"", d",\r\n', b"1,2,3\n", '"",é,\n'.encode(), b' a ," ", b\n']
    odd = [
        b'a,b "c",d\n',
        b'a,"b" ,c\n',
        b"a,b\n",
        b"a,b,c",
        b"a\0,b,c\n",
        b"a,b\rc,d\n",
        b'a,"b\nc",d\n',
        b"\xff,,\n",
    ]
    parsed, left = parser.parse([*plain, *odd, *plain])
    assert parsed is not None
    assert left == [place for place in range(16) if 4 <= place < 12]
    assert parsed.columns([1], np.arange(8))[0].each() == ['b "c", d', "2", "é", " "] * 2


def test_a_large_record_is_read_by_itself() -> None:
    parser = Parser("utf-8", ",", '"', len(HEADER))
    large = b"x" * (1 << 17) + b"," * (len(HEADER) - 1) + b"\n"
    parsed, left = parser.parse([large, line({"station": "WABC"}), large])
    assert (parsed is not None, left) == (True, [0, 2])


@pytest.mark.parametrize("used", ["avion", "avion-fixed"])
def test_pandas_is_not_imported(used: str) -> None:
    """Arrow does where it can, and a worker would be 45 MB larger."""
    code = (
        "import sys; from exports import descriptor, line; from schemas import profile;"
        "from streams.validate.judge import Judge;"
        f"found = Judge(descriptor(used=profile.load({used!r}))).judge([line({{}})] * 1000);"
        "sys.exit(len(found) != 1000 or 'pandas' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, check=True, timeout=60)
