"""A partition of the raw topic as the audit sees it: one byte for each record's fate, and runs of records."""

import re
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from typing import NamedTuple

#: What became of the record at a raw offset; the greater one wins when a record met several. ``REFUSED`` is
#: rejected by Avstar, ``REPEATED`` published a second time and counted where it was published first.
ABSENT, PUBLISHED, REJECTED, BATCHED, DEAD_LETTERED, REFUSED, DELIVERED, REPEATED = range(8)

#: For ``bytes.translate``: raises every present record to at least this fate.
RAISE = [bytes(max(old, fate) if old else 0 for old in range(256)) for fate in range(8)]


class Run(NamedTuple):
    """Records that follow each other without a gap both in their file and on their partition.

    ``offset`` is the first one's on the partition and ``number`` its number in the file; their bytes, with
    the lines skipped before the first one, reach from ``start`` to ``end``.
    """

    file: int
    partition: int
    offset: int
    number: int
    records: int
    start: int
    end: int


class RawLog:
    """One partition of the raw topic: a byte of fate for each offset, and the runs."""

    def __init__(self, number: int, base: int) -> None:
        self.number, self.base = number, base
        self.fates = bytearray()
        self.rows = array("q")
        self.descriptor = b""
        self.file = self.count = self.start = self.end = 0
        self.first_number = self.next_number = 0
        self.next_offset = base

    def begin(self, file: int, descriptor: bytes, offset: int, *, number: int, start: int, end: int) -> None:
        """Close the run that is open, and open one with this record."""
        self.finish()
        self.fates.extend(bytes(offset - self.base - len(self.fates)))
        self.file, self.descriptor, self.start, self.end = file, descriptor, start, end
        self.first_number, self.next_number, self.next_offset = number, number + 1, offset + 1

    def finish(self) -> None:
        count = self.next_number - self.first_number
        if count:
            first = self.next_offset - count
            self.rows.extend((self.file, self.number, first, self.first_number, count, self.start, self.end))
            self.fates.extend(bytes((PUBLISHED,)) * count)
            self.first_number, self.descriptor = self.next_number, b""

    def run(self, index: int) -> Run:
        return Run._make(self.rows[index * 7 : index * 7 + 7])

    def runs(self) -> Iterator[Run]:
        self.finish()
        for index in range(len(self.rows) // 7):
            yield self.run(index)

    def overlapping(self, first: int, last: int) -> Iterator[Run]:
        """The runs that hold any raw offset of ``first`` to ``last``."""
        total = len(self.rows) // 7
        index = max(bisect_right(range(total), first, key=lambda row: self.rows[row * 7 + 2]) - 1, 0)
        while index < total and (run := self.run(index)).offset <= last:
            if run.offset + run.records > first:
                yield run
            index += 1

    def where(self, first: int, last: int) -> slice:
        """Where the fates of raw offsets ``first`` to ``last`` stand, cut to what is known."""
        return slice(max(first - self.base, 0), max(last + 1 - self.base, 0))

    def raise_to(self, fate: int, first: int, last: int) -> None:
        """Give records a fate, unless they have a greater one."""
        where = self.where(first, last)
        self.fates[where] = self.fates[where].translate(RAISE[fate])

    def stretches(self, fate: int, first: int, last: int) -> Iterator[tuple[int, int]]:
        """The (first, last) offsets within ``first`` to ``last`` that have just this fate."""
        where = self.where(first, last)
        for found in re.finditer(b"[\\x%02x]+" % fate, self.fates[where]):
            yield self.base + where.start + found.start(), self.base + where.start + found.end() - 1
