"""Framing: blocks of a delimited text file become records, byte for byte. Pure.

What is skipped and what is framed, put together in order, is the input again, and no split of the input into
blocks changes the records. Quotes are RFC 4180's, with mercy where mercy harms nobody:

- A quote opens a field only at the field's start; elsewhere in an unquoted field it is a letter.
- Within one line, text after a closing quote belongs to the field.
- A record over several lines must be well-formed: a closing quote is followed by a delimiter or a line end,
  and unquoted fields hold no quotes. So a quote that was never closed does not pair up with the quotes of
  the next records: its line becomes a record by itself, for the judge to reject, and framing goes on with
  the line after it. The same happens after :data:`LINES` lines, ``limit`` bytes, or the end of the file.

Lines end with LF or CRLF; a lone CR is data. Blank lines and comment lines are skipped.
"""

import re
from collections.abc import Sequence
from io import BytesIO
from itertools import accumulate
from typing import NamedTuple, Protocol

#: Lines that one record may span. A field that holds more line breaks was never meant to.
LINES = 1000

#: What is kept of a record that is too large.
HEAD = 65_536


class Dialect(NamedTuple):
    """How fields are told apart, in the file's own bytes. Empty ``quote`` or ``comment``: there are none."""

    delimiter: bytes = b","
    quote: bytes = b'"'
    comment: bytes = b"#"


class Oversized(NamedTuple):
    """A line above the limit: its place, its length in bytes and its first :data:`HEAD` bytes."""

    offset: int
    number: int
    length: int
    head: bytes


class Framed(NamedTuple):
    """What a block completed: records with their terminators, and for each its offset, its number in the
    file from 1, and the bytes skipped before it. An oversized line takes a number; its bytes are skipped.
    """

    records: list[bytes]
    offsets: list[int]
    numbers: Sequence[int]
    skipped: list[int]
    oversized: list[Oversized]


class Framing(Protocol):
    """What frames a file of any format, from its start or from where a checkpoint says.

    ``position`` is the offset up to which everything is framed or skipped, ``number`` the last record's,
    ``pending`` the bytes skipped since that record; with these three another one goes on as this would.
    """

    @property
    def position(self) -> int: ...

    @property
    def number(self) -> int: ...

    @property
    def pending(self) -> int: ...

    @property
    def held(self) -> int:
        """Bytes after ``position`` that were fed and belong to an unfinished record."""
        ...

    def feed(self, block: bytes, *, final: bool = False) -> Framed:
        """Frame what ``block`` completes; ``final`` says that the file ends with it."""
        ...


class Framer:
    """Frames one file. ``position``, ``number`` and ``pending`` are all that is needed to go on from here.

    ``position`` is the offset up to which everything is framed or skipped; ``number`` the last record's;
    ``pending`` the bytes skipped since that record. Memory is bounded by ``limit`` and the block.
    """

    def __init__(
        self, dialect: Dialect, limit: int, *, position: int = 0, number: int = 0, pending: int = 0
    ) -> None:
        self.position, self.number, self.pending = position, number, pending
        self._limit = limit
        self._grammar = _Grammar(dialect)
        self._held = b""
        self._long = b""  # the head of a line that is above the limit and has not ended yet
        self._long_size = 0

    @property
    def held(self) -> int:
        """Bytes after ``position`` that were fed and belong to an unfinished record."""
        return self._long_size or len(self._held)

    def feed(self, block: bytes, *, final: bool = False) -> Framed:
        """Frame what ``block`` completes; ``final`` says that the file ends with it."""
        oversized: list[Oversized] = []
        if self._long_size:
            block = self._run_over(block, oversized, final=final)
        data = self._held + block
        records, end = self._records(data, final=final)
        more = self._take(records, noisy=self._grammar.has_noise(data))
        self._held = data[end:]
        if len(self._held) > self._limit and b"\n" not in self._held:
            self._long, self._long_size, self._held = self._held[:HEAD], len(self._held), b""
        # Only oversized lines come before what the rest of the block holds.
        return more._replace(oversized=[*oversized, *more.oversized])

    def _records(self, data: bytes, *, final: bool) -> tuple[list[bytes], int]:
        """The complete records and skippable lines of ``data``, and where they end."""
        whole = len(data) if final else data.rfind(b"\n") + 1
        lines = BytesIO(data[:whole]).readlines()
        grammar = self._grammar
        if not grammar.quote or grammar.quote not in data:
            return lines, whole
        starts = list(accumulate(map(len, lines), initial=0))
        records: list[bytes] = []
        done = 0
        for index in grammar.open_lines(lines):
            if index < done:
                continue
            records += lines[done:index]
            start = starts[index]
            record = grammar.record(data, start, whole, self._limit)
            if not record and not final and grammar.may_close(data, start, self._limit):
                return records, start
            record = record or lines[index]
            records.append(record)
            done = index + record.count(b"\n") + (not record.endswith(b"\n"))
        return records + lines[done:], whole

    def _take(self, records: list[bytes], *, noisy: bool) -> Framed:
        if not records:
            return Framed([], [], range(0), [], [])
        if noisy or max(map(len, records)) > self._limit:
            return self._take_one_by_one(records)
        offsets = list(accumulate(map(len, records), initial=self.position))
        first, self.position = self.number + 1, offsets.pop()
        skipped = [self.pending] + [0] * (len(records) - 1)
        self.number += len(records)
        self.pending = 0
        return Framed(records, offsets, range(first, self.number + 1), skipped, [])

    def _take_one_by_one(self, records: list[bytes]) -> Framed:
        framed = Framed([], [], numbers := [], [], [])
        for record in records:
            size = len(record)
            if size > self._limit:
                self._refuse(framed.oversized, record[:HEAD], size)
                continue
            if self._grammar.is_noise(record):
                self._skip(size)
                continue
            self.number += 1
            framed.records.append(record)
            framed.offsets.append(self.position)
            numbers.append(self.number)
            framed.skipped.append(self.pending)
            self.position += size
            self.pending = 0
        return framed

    def _skip(self, size: int) -> None:
        self.position += size
        self.pending += size

    def _refuse(self, oversized: list[Oversized], head: bytes, size: int) -> None:
        if not self._grammar.is_comment(head):
            self.number += 1
            oversized.append(Oversized(self.position, self.number, size, head))
        self._skip(size)

    def _run_over(self, block: bytes, oversized: list[Oversized], *, final: bool) -> bytes:
        """Pass over the rest of a line above the limit; gives what lies behind it."""
        end = block.find(b"\n") + 1 or len(block)
        self._long_size += end
        self._long += block[: min(end, HEAD - len(self._long))]
        if not final and not block.endswith(b"\n", 0, end):
            return b""
        self._refuse(oversized, self._long, self._long_size)
        self._long, self._long_size = b"", 0
        return block[end:]


class _Grammar:
    """The dialect as patterns. Everything is possessive: no input makes them backtrack."""

    def __init__(self, dialect: Dialect) -> None:
        self.quote, self._comment = dialect.quote, dialect.comment
        mark, delimiter = re.escape(dialect.quote), re.escape(dialect.delimiter)
        blanks = b"".join(re.escape(b) for b in (b" ", b"\t") if b != dialect.delimiter)
        noise = rb"[%b]*+\r?(?:\n|(?<!\n)\Z)" % blanks
        if dialect.comment:
            noise = rb"(?:%b|%b)" % (re.escape(dialect.comment), noise)
        self.is_noise = re.compile(noise).match
        self._later_noise = re.compile(rb"\n" + noise).search
        if not dialect.quote:
            return
        not_mark = _none_of(mark)
        quoted = rb"%b%b(?:%b%b%b)*+" % (mark, not_mark, mark, mark, not_mark)  # up to the closing quote
        plain = _none_of(delimiter)
        # Of one line, as it stands: every quote that opens a field is closed.
        self._closed = re.compile(
            rb"%b(?:(?:^|(?<=%b))%b%b%b%b|(?!^)(?<!%b)%b%b%b)*+"
            % (not_mark, delimiter, quoted, mark, plain, not_mark, delimiter, mark, plain, not_mark)
        ).fullmatch
        field = rb"(?:%b%b(?=%b|\r?(?:\n|\Z))|%b)" % (
            quoted,
            mark,
            delimiter,
            _none_of(delimiter, mark, rb"\n"),
        )
        self._record = re.compile(rb"%b(?:%b%b)*+\r?(?:\n|\Z)" % (field, delimiter, field)).match
        self._beginning = re.compile(
            rb"(?:%b%b)*+(?:%b%b?+\r?\Z|%b\Z)"
            % (field, delimiter, quoted, mark, _none_of(delimiter, mark, rb"\n"))
        ).match

    def is_comment(self, line: bytes) -> bool:
        """Whether it is a comment line, by its first bytes."""
        return bool(self._comment) and line.startswith(self._comment)

    def has_noise(self, data: bytes) -> bool:
        """Whether any line of ``data`` may have to be skipped; lines inside quotes count too."""
        return bool(self.is_noise(data) or self._later_noise(data))

    def open_lines(self, lines: list[bytes]) -> list[int]:
        """Indexes of the lines that leave a quoted field open, were a record to start there."""
        return [
            index
            for index, closed in enumerate(map(self._closed, lines))
            if not closed and not self.is_noise(lines[index])
        ]

    def record(self, data: bytes, start: int, whole: int, limit: int) -> bytes:
        """The well-formed record over several lines that starts at ``start``; empty if there is none."""
        found = self._record(data, start, whole)
        if not found or found.end() - start > limit or data.count(b"\n", start, found.end()) > LINES:
            return b""
        return found.group()

    def may_close(self, data: bytes, start: int, limit: int) -> bool:
        """Whether what follows can still make a record of what starts at ``start``."""
        if len(data) - start > limit or data.count(b"\n", start) > LINES:
            return False
        return bool(self._beginning(data, start))


def _none_of(*tokens: bytes) -> bytes:
    """A run of bytes in which none of the (escaped) ``tokens`` begins."""
    if all(len(token) == 1 or (len(token) == 2 and token[:1] == b"\\") for token in tokens):
        return rb"[^%b]*+" % b"".join(tokens)
    return rb"(?:(?!%b)[\s\S])*+" % b"|".join(tokens)
