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

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from streams.formats.grammar import Dialect, Grammar, Ints, line_ends

#: What is kept of a record that is too large.
HEAD = 65_536


class Oversized(NamedTuple):
    """A line above the limit: its place, its length in bytes and its first :data:`HEAD` bytes."""

    offset: int
    number: int
    length: int
    head: bytes


@dataclass(frozen=True, slots=True, eq=False)
class Framed:
    """What a block completed, without an object for each record.

    The records, terminators included, lie in ``data`` from ``starts`` on and have ``sizes``. Each has its
    offset in the file, its number in it from 1, and the bytes skipped before it. An oversized line takes a
    number; its bytes are skipped.
    """

    data: bytes
    starts: Ints
    sizes: Ints
    offsets: Ints
    numbers: Ints
    skipped: Ints
    oversized: list[Oversized]

    @classmethod
    def placed(
        cls, data: bytes, places: Sequence[tuple[int, int, int, int, int]], oversized: list[Oversized]
    ) -> "Framed":
        """From a start, size, offset, number and bytes skipped for each record."""
        starts, sizes, offsets, numbers, skipped = np.array(places, np.int64).reshape(-1, 5).T
        return cls(data, starts, sizes, offsets, numbers, skipped, oversized)

    @property
    def count(self) -> int:
        """How many records."""
        return len(self.starts)

    @property
    def size(self) -> int:
        """Bytes of all records."""
        return int(self.sizes.sum())

    @property
    def records(self) -> list[bytes]:
        """The records themselves. For millions of them there is no need of this."""
        places = zip(self.starts.tolist(), (self.starts + self.sizes).tolist(), strict=True)
        return [self.data[start:end] for start, end in places]


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
        self._grammar = Grammar(dialect)
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
        ends = self._ends(data, final=final)
        framed = self._take(data, ends, oversized)
        self._held = data[int(ends[-1]) :] if len(ends) else data
        if len(self._held) > self._limit and b"\n" not in self._held:
            self._long, self._long_size, self._held = self._held[:HEAD], len(self._held), b""
        return framed

    def _ends(self, data: bytes, *, final: bool) -> Ints:
        """Where the complete records and skippable lines of ``data`` end, one behind the other."""
        ends = line_ends(data, final=final)
        grammar = self._grammar
        if not len(ends):
            return ends
        whole, done = int(ends[-1]), 0
        inner = np.zeros(len(ends), np.bool_)  # ends of lines within a record
        for index in grammar.open_lines(data, ends):
            if index < done:
                continue
            start = int(ends[index - 1]) if index else 0
            record = grammar.record(data, start, whole, self._limit)
            if not record and not final and grammar.may_close(data, start, self._limit):
                return ends[:index][~inner[:index]]
            done = index + max(1, record.count(b"\n") + (not record.endswith(b"\n")))
            inner[index : done - 1] = True
        return ends[~inner] if done else ends

    def _take(self, data: bytes, ends: Ints, oversized: list[Oversized]) -> Framed:
        """Sort out what ends at ``ends``, and move on."""
        starts = np.empty_like(ends)
        starts[:1], starts[1:] = 0, ends[:-1]
        sizes = ends - starts
        numbers, kept = self._sift(data, starts, sizes, oversized)
        size, number = (int(ends[-1]), int(numbers[-1])) if len(ends) else (0, self.number)
        if kept is not None:
            starts, sizes, numbers = starts[kept], sizes[kept], numbers[kept]
        skipped = starts.copy()
        skipped[:1] += self.pending
        skipped[1:] -= starts[:-1] + sizes[:-1]
        framed = Framed(data, starts, sizes, starts + self.position, numbers, skipped, oversized)
        self.pending = size - int(starts[-1] + sizes[-1]) if len(starts) else self.pending + size
        self.position += size
        self.number = number
        return framed

    def _sift(
        self, data: bytes, starts: Ints, sizes: Ints, oversized: list[Oversized]
    ) -> tuple[Ints, NDArray[np.bool_] | None]:
        """Each line's number, or that of the last before it that has one; which are records, if not all."""
        odd = self._grammar.may_be_noise(data, starts) | (sizes > self._limit)
        numbered = np.ones(len(starts), np.int64)
        if not odd.any():
            return numbered.cumsum() + self.number, None
        kept = np.ones(len(starts), np.bool_)
        for index in np.flatnonzero(odd).tolist():
            start, size = int(starts[index]), int(sizes[index])
            if size > self._limit:
                kept[index] = False
                numbered[index] = not self._grammar.is_comment(data[start : start + HEAD])
            elif self._grammar.is_noise(data[start : start + size]):
                kept[index] = numbered[index] = False
        numbers = numbered.cumsum() + self.number
        for index in np.flatnonzero(~kept & (numbered == 1)).tolist():
            start, size = int(starts[index]), int(sizes[index])
            head = data[start : start + min(size, HEAD)]
            oversized.append(Oversized(self.position + start, int(numbers[index]), size, head))
        return numbers, kept

    def _run_over(self, block: bytes, oversized: list[Oversized], *, final: bool) -> bytes:
        """Pass over the rest of a line above the limit; gives what lies behind it."""
        end = block.find(b"\n") + 1 or len(block)
        self._long_size += end
        self._long += block[: min(end, HEAD - len(self._long))]
        if not final and not block.endswith(b"\n", 0, end):
            return b""
        if not self._grammar.is_comment(self._long):
            self.number += 1
            oversized.append(Oversized(self.position, self.number, self._long_size, self._long))
        self.position += self._long_size
        self.pending += self._long_size
        self._long, self._long_size = b"", 0
        return block[end:]
