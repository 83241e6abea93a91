"""Framing: any split into reads gives the same records, nothing is lost, no record costs its neighbours."""

import csv
import io

import pytest
from framers import Whole, delimited, together
from framers import frame as frame_by
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.formats.framing import HEAD, Framer
from streams.formats.grammar import LINES, Dialect, Grammar, line_ends

CSV = Dialect()
LIMIT = 1_048_576

#: Inputs made of what framing looks at, so that short ones reach every rule.
tangles = st.lists(
    st.sampled_from([b"a", b"bc", b",", b'"', b'""', b"\n", b"\r\n", b"\r", b"#", b" ", b"\t", b"\xc3\xa9"]),
    max_size=40,
).map(b"".join)
fields = st.lists(st.sampled_from(["a", "é", ",", '"', "\n", "\r\n", " ", "#"]), max_size=6).map("".join)
rows = st.lists(fields, min_size=2, max_size=5).filter(lambda row: not row[0].startswith("#"))


def frame(data: bytes, cuts: list[int] = [], *, limit: int = LIMIT, dialect: Dialect = CSV) -> Whole:  # noqa: B006
    return frame_by(delimited(dialect), data, cuts, limit=limit)


def pieces(data: bytes, framed: Whole) -> bytes:
    """What was skipped and the records, put together by what their keys will say."""
    found, end = b"", 0
    for record, offset, skipped in zip(framed.records, framed.offsets, framed.skipped, strict=True):
        assert offset - skipped == end
        found += data[offset - skipped : offset] + record
        end = offset + len(record)
    return found + data[end:]


@given(tangles, st.lists(st.integers(0, 60), max_size=8), st.sampled_from([6, 15, LIMIT]))
def test_any_split_into_reads_gives_the_same_records(data: bytes, cuts: list[int], limit: int) -> None:
    assert frame(data, cuts, limit=limit) == frame(data, limit=limit)


@given(tangles, st.sampled_from([6, LIMIT]))
def test_skipped_bytes_and_records_are_the_input(data: bytes, limit: int) -> None:
    framed = frame(data, limit=limit)
    assert pieces(data, framed) == data
    given_out = sorted([*framed.numbers, *(line.number for line in framed.oversized)])
    assert given_out == list(range(1, len(given_out) + 1))


@given(tangles, st.integers(0, 60), st.sampled_from([6, LIMIT]))
def test_framing_goes_on_from_a_checkpoint(data: bytes, cut: int, limit: int) -> None:
    """A framer that knows only the numbers of a checkpoint continues as the first one would have."""
    first = Framer(CSV, limit)
    before = first.feed(data[:cut])
    second = Framer(CSV, limit, position=first.position, number=first.number, pending=first.pending)
    after = second.feed(data[first.position :], final=True)
    assert together([before, after]) == frame(data, limit=limit)


@given(tangles, st.sampled_from([CSV, Dialect(b"\t"), Dialect(b",", b"'"), Dialect(b"\xc3\xa9", b'"')]))
def test_lines_with_open_quotes_are_those_that_a_reading_byte_by_byte_finds(
    data: bytes, dialect: Dialect
) -> None:
    grammar = Grammar(dialect)
    lines = io.BytesIO(data).readlines()
    expected = [
        at for at, line in enumerate(lines) if not grammar.is_noise(line) and leaves_open(line, dialect)
    ]
    assert grammar.open_lines(data, line_ends(data, final=True)) == expected


def leaves_open(line: bytes, dialect: Dialect) -> bool:
    """Whether its last field begins with a quote and that quote is not closed."""
    at = 0
    while True:
        if line.startswith(dialect.quote, at):
            at += 1
            while (close := line.find(dialect.quote, at)) >= 0 and line.startswith(dialect.quote, close + 1):
                at = close + 2
            if close < 0:
                return True
            at = close + 1
        following = line.find(dialect.delimiter, at)
        if following < 0:
            return False
        at = following + len(dialect.delimiter)


@given(st.lists(rows, max_size=12), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_well_formed_rows_are_the_csv_module_s(expected: list[list[str]], end: str, last: bool) -> None:
    """The csv module writes the rows, and reads each record back by itself."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator=end).writerows(expected)
    data = text.getvalue().encode()
    if last and len(expected[-1:]) and data.endswith(end.encode()):
        data = data[: -len(end)]  # a last row without its line end
    records = frame(data).records
    assert [next(csv.reader(io.StringIO(record.decode(), newline=""))) for record in records] == expected


@given(
    st.lists(
        st.lists(st.text("a,\" #'é", max_size=5), min_size=2, max_size=4).filter(lambda r: r[0][:1] != "#"),
        min_size=1,
        max_size=10,
    ),
    st.integers(0, 10),
    st.sampled_from(['x,"open', '"open,y', 'x,"o""pen,"" z', 'x,"']),
)
def test_a_quote_that_never_closes_costs_its_neighbours_nothing(
    good: list[list[str]], index: int, bad: str
) -> None:
    lines = []
    for row in good:
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerow(row)
        lines.append(text.getvalue().encode())
    lines.insert(min(index, len(lines)), bad.encode() + b"\n")
    assert frame(b"".join(lines)).records == lines


@pytest.mark.parametrize(
    ("data", "records"),
    [
        pytest.param(b"a,b\r\nc,d\ne,f\r\n", [b"a,b\r\n", b"c,d\n", b"e,f\r\n"], id="CRLF and LF mixed"),
        pytest.param(b"a\rb,c\nd\n", [b"a\rb,c\n", b"d\n"], id="a lone CR is data"),
        pytest.param(
            b'\n\r\n  \t\na,b\n\n# x "y\n#\nc,d\n\n', [b"a,b\n", b"c,d\n"], id="blanks and comments"
        ),
        pytest.param(
            b'a,"# no\n# comment\n\n",b\nc\n', [b'a,"# no\n# comment\n\n",b\n', b"c\n"], id="in quotes"
        ),
        pytest.param(b'# a,"b\nc",d\n', [b'c",d\n'], id="a quote in a comment opens nothing"),
        pytest.param(b" " * 70_000 + b"a\n", [b" " * 70_000 + b"a\n"], id="blank only at first sight"),
        pytest.param(b'a,5" tape,"b"\nc\n', [b'a,5" tape,"b"\n', b"c\n"], id="a stray quote is a letter"),
        pytest.param(b'a,"b"c,d\ne\n', [b'a,"b"c,d\n', b"e\n"], id="text after a closing quote"),
        pytest.param(b'a,"b ""c"" d",""\n', [b'a,"b ""c"" d",""\n'], id="doubled quotes"),
        pytest.param(b'a,"b\nc,d\n', [b'a,"b\n', b"c,d\n"], id="open at the end of the file"),
        pytest.param(
            b'a,"b\nc,"d"\ne,"f\ng"\n', [b'a,"b\n', b'c,"d"\n', b'e,"f\ng"\n'], id="open, then others"
        ),
        pytest.param(b"a,b", [b"a,b"], id="no line end at the end"),
        pytest.param(b'a,"b\nc"', [b'a,"b\nc"'], id="line break in quotes, no line end at the end"),
        pytest.param(b"", [], id="empty"),
    ],
)
def test_rules(data: bytes, records: list[bytes]) -> None:
    assert frame(data).records == records
    assert frame(data, list(range(0, len(data), 1 + len(data) // 1000))).records == records


def test_other_dialects() -> None:
    tabs = Dialect(b"\t", b"", b"")
    assert frame(b'# a\t"b\n\t\n"c\td\n', dialect=tabs).records == [b'# a\t"b\n', b"\t\n", b'"c\td\n']
    wide = Dialect("¦".encode(), b"'", b"//")
    data = "// x\na¦'b¦\nc'¦d\ne¦'f\ng¦'h'\n".encode()
    assert frame(data, dialect=wide).records == [
        "a¦'b¦\nc'¦d\n".encode(),
        "e¦'f\n".encode(),
        "g¦'h'\n".encode(),
    ]


def test_an_unfinished_record_is_held() -> None:
    framer = Framer(CSV, LIMIT)
    assert framer.feed(b'a,b\nc,"d\n').records == [b"a,b\n"]
    assert (framer.position, framer.held) == (4, 5)
    assert framer.feed(b'e",').records == []
    assert framer.feed(b"f").records == []
    assert framer.feed(b"\ng").records == [b'c,"d\ne",f\n']
    assert framer.feed(b"", final=True).records == [b"g"]


def test_an_open_quote_is_not_waited_for_when_it_cannot_close_well() -> None:
    framer = Framer(CSV, LIMIT)
    assert framer.feed(b'a,"b\nc,"d').records == [b'a,"b\n']


def test_an_open_quote_ends_after_so_many_lines_or_bytes() -> None:
    lines = [b'a,"b\n', *[b"c,d\n"] * LINES]
    assert Framer(CSV, LIMIT).feed(b"".join(lines)).records == lines
    assert frame(b"".join(lines) + b'",e\n').records == [*lines, b'",e\n']
    whole = b"".join(lines[1:]).replace(b"c", b'c,"', 1)[: -len(b"c,d\n")] + b'"\n'
    assert frame(whole).records == [whole]
    lines = [b'a,"b\n', b"c" * 600 + b"\n", b"d" * 600 + b"\n"]
    assert Framer(CSV, 1000).feed(b"".join(lines)).records == lines
    assert frame(b"".join(lines) + b'",e\n', limit=1000).records == [*lines, b'",e\n']


def test_bytes_skipped_between_two_blocks_are_counted_once() -> None:
    framer = Framer(CSV, LIMIT)
    assert framer.feed(b"# c\n").records == []
    assert [framer.feed(data).skipped.tolist() for data in (b"a\n", b"b\nc\n")] == [[4], [0, 0]]


def test_a_line_above_the_limit_keeps_its_number_and_its_head() -> None:
    long = b"x" * (HEAD + 5000)
    data = b"a\n" + long + b"\nb\n#" + long + b"\nc\n" + long
    for cuts in ([], [10], list(range(0, len(data), 4096))):
        framed = frame(data, cuts, limit=2000)
        assert framed.records == [b"a\n", b"b\n", b"c\n"]
        assert list(framed.numbers) == [1, 3, 4]
        assert framed.skipped == [0, len(long) + 1, len(long) + 2]
        assert [(line.offset, line.number, line.length) for line in framed.oversized] == [
            (2, 2, len(long) + 1),
            (2 * len(long) + 9, 5, len(long)),
        ]
        assert [line.head for line in framed.oversized] == [long[:HEAD]] * 2


def test_memory_is_bounded_however_long_a_line_is() -> None:
    framer = Framer(CSV, 10_000)
    for _ in range(1000):
        framer.feed(b"x" * 100_000)
    assert framer.held == 100_000_000
    assert len(framer._held) + len(framer._long) <= HEAD


@settings(max_examples=30)
@given(
    st.lists(st.sampled_from([b"a,b,c\n", b'a,"b,c",d\n', b'a,"b\nc",d\r\n', b"# x\n", b"\n"]), max_size=400)
)
def test_blocks_of_all_sorts_give_the_same_records_as_single_bytes(lines: list[bytes]) -> None:
    data = b"".join(lines)
    expected = [line for line in lines if line not in (b"# x\n", b"\n")]
    assert frame(data).records == expected
    assert frame(data, list(range(0, len(data), 97))).records == expected
