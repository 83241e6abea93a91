"""What every framer promises, whatever it is fed; for hypothesis and for the fuzzer."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

from streams.formats.framing import Framed, Framer, Framing, Oversized
from streams.formats.grammar import Dialect
from streams.formats.markup import XmlFramer
from streams.formats.wide import WideFramer

#: A framer from a limit, a position, a number and pending bytes.
Make = Callable[[int, int, int, int], Framing]


class Whole(NamedTuple):
    """What several feeds gave, together: for each record what :class:`Framed` says of it."""

    records: list[bytes]
    offsets: list[int]
    numbers: list[int]
    skipped: list[int]
    oversized: list[Oversized]


def delimited(dialect: Dialect) -> Make:
    """Of delimited or fixed-width text."""
    return lambda limit, position, number, pending: Framer(
        dialect, limit, position=position, number=number, pending=pending
    )


def markup(*names: bytes) -> Make:
    """Of XML."""
    return lambda limit, position, number, pending: XmlFramer(
        names, limit, position=position, number=number, pending=pending
    )


def wide(make: Make, *, little: bool) -> Make:
    """Of the same in UTF-16."""
    return lambda limit, position, number, pending: WideFramer(
        make, limit, little=little, position=position, number=number, pending=pending
    )


CSV, TSV = delimited(Dialect()), delimited(Dialect(b"\t"))
FIXED, XML = delimited(Dialect(b",", b"", b"")), markup(b"r", b"s")
MAKES: dict[str, Make] = {
    "csv": CSV,
    "tsv": TSV,
    "fixed": FIXED,
    "xml": XML,
    "csv-utf-16-le": wide(CSV, little=True),
    "csv-utf-16-be": wide(CSV, little=False),
    "fixed-utf-16-le": wide(FIXED, little=True),
    "xml-utf-16-le": wide(XML, little=True),
    "xml-utf-16-be": wide(XML, little=False),
}

#: What framing looks at, so that short inputs reach every rule.
LINES = [b"a", b"bc", b",", b'"', b'""', b"\n", b"\r\n", b"\r", b"#", b" ", b"\t", b"\xc3\xa9", b"\0"]
# fmt: off
TAGS = [
    b"<r>", b"</r>", b"<r ", b"<r/>", b"<rx>", b"</rx>", b"<p:r>", b"</p:r>", b"<s>", b"</s>", b"</r >",
    b"<a b='c'>", b"</a>", b"<!--", b"-->", b"--", b"<![CDATA[", b"]]>", b"<?", b"?>", b">", b"<", b"/", b"a",
    b" ", b'"', b"'", b"\n", b"-", b"]", b"=", b"<!DOCTYPE r [", b":r ", b"\xc3\xa9", b"\0",
]
# fmt: on


def tokens(name: str) -> list[bytes]:
    """Those of a framer of :data:`MAKES`, in its own encoding."""
    plain = TAGS if name.startswith("xml") else LINES
    _, _, encoding = name.partition("-")
    return [*(token.decode().encode(encoding) for token in plain), b"x", b"\n"] if encoding else plain


def frame(make: Make, data: bytes, cuts: Sequence[int] = (), *, limit: int = 1_048_576) -> Whole:
    """All of ``data``, fed in pieces."""
    framer = make(limit, 0, 0, 0)
    bounds = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    parts = [framer.feed(data[a:b]) for a, b in pairwise(bounds)]
    parts.append(framer.feed(b"", final=True))
    assert (framer.position, framer.held) == (len(data), 0)
    return together(parts)


def together(parts: Sequence[Framed]) -> Whole:
    """What several feeds gave, as one."""
    whole = Whole([], [], [], [], [])
    for part in parts:
        whole.records.extend(part.records)
        whole.offsets.extend(part.offsets.tolist())
        whole.numbers.extend(part.numbers.tolist())
        whole.skipped.extend(part.skipped.tolist())
        whole.oversized.extend(part.oversized)
    return whole


def check(make: Make, data: bytes, cuts: Sequence[int], limit: int) -> Whole:
    """Raise ``AssertionError`` where a promise is broken."""
    whole = frame(make, data, limit=limit)
    assert frame(make, data, cuts, limit=limit) == whole
    _check_places(data, whole, limit)
    for cut in cuts:
        first = make(limit, 0, 0, 0)
        before = first.feed(data[:cut])
        second = make(limit, first.position, first.number, first.pending)
        after = second.feed(data[first.position :], final=True)
        assert together([before, after]) == whole
    return whole


def check_finished(make: Make, data: bytes, ends: Sequence[int], limit: int) -> Whole:
    """Raise ``AssertionError`` where a file is not published whole that is taken to its end at each of
    ``ends`` and grows after that; gives its records.
    """
    parts, position, number, pending = [], 0, 0, 0
    for end in [*sorted(ends), len(data)]:
        framer = make(limit, position, number, pending)
        middle = (position + end) // 2
        parts += [framer.feed(data[position:middle]), framer.feed(data[middle:end], final=True)]
        assert (framer.position, framer.held) == (max(position, min(end, len(data))), 0)
        position, number, pending = framer.position, framer.number, framer.pending
    whole = together(parts)
    _check_places(data, whole, limit)
    assert pending == len(data) - (whole.offsets[-1] + len(whole.records[-1]) if whole.records else 0)
    return whole


def _check_places(data: bytes, framed: Whole, limit: int) -> None:
    """Skipped bytes and records are the input, in order, and every number is given out once."""
    end = 0
    for record, offset, skipped in zip(framed.records, framed.offsets, framed.skipped, strict=True):
        assert offset - skipped == end
        assert data[offset : offset + len(record)] == record
        assert 0 < len(record) <= limit
        end = offset + len(record)
    assert end <= len(data)
    for long in framed.oversized:
        assert long.length > limit - 2  # halves of code units at both ends count as whole ones
        assert data[long.offset :].startswith(long.head)
    numbers = sorted([*framed.numbers, *(long.number for long in framed.oversized)])
    assert numbers == list(range(1, len(numbers) + 1))
