"""Every framer's promises on tangled input, and what hostile input costs."""

import time
import tracemalloc
from collections.abc import Callable, Sequence

import pytest
from framers import CSV, FIXED, MAKES, XML, Make, Whole, check, check_finished, frame, tokens, wide
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.formats.framing import HEAD
from streams.formats.wide import narrow

cuts_ = st.lists(st.integers(0, 80), max_size=6)
Promise = Callable[[Make, bytes, Sequence[int], int], Whole]


@pytest.mark.parametrize("promise", [check, check_finished])
@pytest.mark.parametrize("name", MAKES)
def test_tangled_input_is_published_whole(name: str, promise: Promise) -> None:
    """However it is cut, and wherever it ended before it grew, in the middle of a letter, too.

    And what was skipped and framed is the input, and every record has its number.
    """

    @settings(max_examples=150)
    @given(
        st.lists(st.sampled_from(tokens(name)), max_size=40).map(b"".join),
        cuts_,
        st.sampled_from([8, 30, 1000]),
    )
    def promises(data: bytes, cuts: list[int], limit: int) -> None:
        promise(MAKES[name], data, cuts, limit)

    promises()


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_half_a_code_unit_costs_no_line_but_those_beside_it(encoding: str) -> None:
    """Each byte of a file may be the last one that there is when a run ends."""
    lines = [text.encode(encoding) for text in ("a,b\n", "ਊ,Ċ\n", "c,Ⰰ\r\n", "d\n")]
    data = b"".join(lines)
    for end in range(len(data) + 1):
        whole = check_finished(MAKES[f"csv-{encoding}"], data, [end], 1000)
        assert end % 2 == 0 or b"".join(whole.records) == data
        assert len(set(lines) - set(whole.records)) <= 2


@given(st.text('a,\n\r\t"#é\u0a0a\u0d0d\u2c00\U0001f426', max_size=40), st.booleans())
def test_utf_16_is_framed_as_the_same_text_in_utf_8(text: str, little: bool) -> None:
    encoding = "utf-16-le" if little else "utf-16-be"
    ours = frame(wide(CSV, little=little), text.encode(encoding))
    assert [record.decode(encoding) for record in ours.records] == [
        record.decode() for record in frame(CSV, text.encode()).records
    ]


@given(st.binary(max_size=40), st.booleans())
def test_a_code_unit_is_narrowed_to_its_character_or_to_none(data: bytes, little: bool) -> None:
    data = data[: len(data) & ~1]
    units = [int.from_bytes(data[i : i + 2], "little" if little else "big") for i in range(0, len(data), 2)]
    assert len(narrow(data, little=little)) == len(units)
    for narrowed, unit in zip(narrow(data, little=little), units, strict=True):
        assert narrowed == (unit if unit < 256 else 255)


def test_half_a_code_unit_at_the_end_belongs_to_the_last_record() -> None:
    framed = frame(wide(FIXED, little=True), "a\nb".encode("utf-16-le") + b"x")
    assert framed.records == ["a\n".encode("utf-16-le"), "b".encode("utf-16-le") + b"x"]


def test_the_head_of_a_long_comment_is_not_that_of_a_long_line_after_it() -> None:
    """Found by the fuzzer."""
    make = wide(CSV, little=True)
    comment, line = ("#" + "x" * 200_000 + "\n").encode("utf-16-le"), ("y" * 5000 + "\n").encode("utf-16-le")
    for cuts in ([], list(range(0, 400_000, 50_000))):
        framed = frame(make, comment + line, cuts, limit=2000)
        assert [long.head for long in framed.oversized] == [line[:HEAD]]


LIMIT = 16_384
_TAG = b"<r a='"
HOSTILE: dict[str, tuple[Make, bytes]] = {
    "a line without end": (CSV, b"x" * 8192),
    "NULs": (CSV, bytes(8192)),
    "a quote that never closes": (CSV, b'a,"b\n' + b"c" * 5000 + b"\n"),
    "quotes and nothing else": (CSV, b'"' * 8191 + b"\n"),
    "ten thousand columns": (CSV, b"," * 10_000 + b"\n"),
    "a line without end, fixed": (FIXED, b"x" * 8192),
    "a line without end, UTF-16": (wide(CSV, little=True), b"x\0" * 4096),
    "a record without end": (XML, b"<r>" + b"x" * 8192),
    "text without end": (XML, b"x" * 8192),
    "wrappers without end": (XML, b"<a>" * 2700),
    "records in records": (XML, b"<r>" * 2700),
    "sections without end": (XML, b"<r><![CDATA[" * 680),
    "comments without end": (XML, b"<!-- <r><!--" * 680),
    "instructions without end": (XML, b"<r><?" * 1600),
    "tags without end": (XML, _TAG * 1300),
    "an attribute without end": (XML, b"<r a='" + b"x" * 8192),
    "angle brackets": (XML, b"<" * 8192),
    "end tags": (XML, b"</r>" * 2000),
    "NULs in XML": (XML, b"<r>\0</r>" * 1000),
    "deep nesting": (XML, b"<r>" + b"<a>" * 2700),
    "a record without end, UTF-16": (wide(XML, little=False), "<r".encode("utf-16-be") + b"\0x" * 4096),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_input_costs_bounded_memory_and_time(name: str) -> None:
    make, block = HOSTILE[name]
    block = block[:2048]
    framer = make(LIMIT, 0, 0, 0)
    framer.feed(block)
    begin = time.process_time()
    for _ in range(24):
        framer.feed(block)
    # What grows with the square of the input would take minutes.
    assert time.process_time() - begin < 10
    tracemalloc.start()
    try:
        for _ in range(12):
            framer.feed(block)
        assert tracemalloc.get_traced_memory()[1] < 12 * LIMIT + 2 * HEAD
    finally:
        tracemalloc.stop()


def test_the_longest_line_is_not_copied_with_every_block() -> None:
    framer = XML(LIMIT, 0, 0, 0)
    framer.feed(b"<r>")
    begin = time.process_time()
    for _ in range(5000):
        framer.feed(b"x" * LIMIT)
    assert framer.held == 5000 * LIMIT + 3
    assert time.process_time() - begin < 10
