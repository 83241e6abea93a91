"""Framing of UTF-16: each code unit stands as one byte before a framer that looks for ASCII. Pure.

So a line feed is one only where it is a whole code unit, and records keep the bytes that they had.
"""

from collections.abc import Callable

import numpy as np

from streams.formats.framing import HEAD, Framed, Framing, Oversized

#: Stands for every code unit beyond Latin-1; no delimiter, quote or markup is this byte.
OTHER = 0xFF

_BEYOND = bytes([0]) + bytes([OTHER]) * 255

#: Code units that a framer may still want to see of what is above its limit.
_KEPT = 4096


def narrow(data: bytes, *, little: bool) -> bytes:
    """One byte for each code unit of ``data`` (an even number of bytes)."""
    low, high = (data[0::2], data[1::2]) if little else (data[1::2], data[0::2])
    if high.count(0) == len(high):
        return low
    beyond = int.from_bytes(high.translate(_BEYOND), "little")
    return (int.from_bytes(low, "little") | beyond).to_bytes(len(low), "little")


class WideFramer:
    """Frames a file in UTF-16, see :class:`.framing.Framing`.

    ``make`` builds the framer of code units from a limit, a position, a number and pending units. A last odd
    byte belongs to what it follows. Where the file grows after all, the other half of that code unit belongs
    to what it precedes; by itself it ends and opens nothing.
    """

    def __init__(
        self,
        make: Callable[[int, int, int, int], Framing],
        limit: int,
        *,
        little: bool,
        position: int = 0,
        number: int = 0,
        pending: int = 0,
    ) -> None:
        self._units = make(limit // 2, position // 2, number, 0)
        self._limit, self._little = limit, little
        self._start, self._end = position, position - pending  # the latter of the last record
        self._raw, self._begin = b"", position  # what was fed of the file from offset ``_begin`` on
        self._taken = bytes([OTHER]) * (position % 2)  # for the half of a code unit before the first byte
        self._half = b""
        self._head = b""  # of what is above the limit, once its middle is not in ``_raw`` any more
        self._head_at = 0
        self._missing = 0  # half a code unit at the end of the file

    @property
    def position(self) -> int:
        """See :class:`.framing.Framing`."""
        return max(2 * self._units.position - self._missing, self._start)

    @property
    def number(self) -> int:
        """See :class:`.framing.Framing`."""
        return self._units.number

    @property
    def pending(self) -> int:
        """See :class:`.framing.Framing`."""
        return self.position - self._end

    @property
    def held(self) -> int:
        """See :class:`.framing.Framing`."""
        return self._begin + len(self._raw) + len(self._half) - self.position

    def feed(self, block: bytes, *, final: bool = False) -> Framed:
        """See :class:`.framing.Framing`."""
        block = self._half + block
        taken = self._taken if block else b""
        whole = len(block) - (len(taken) + len(block)) % 2
        units = narrow(taken + block[:whole], little=self._little)
        if final and whole < len(block):
            units += bytes([OTHER])
            self._missing, whole = 1, len(block)
        self._taken = self._taken[len(taken) :]
        self._raw, self._half = self._raw + block[:whole], block[whole:]
        framed = self._widened(self._units.feed(units, final=final))
        self._forget()
        return framed

    def _widened(self, framed: Framed) -> Framed:
        end = self._begin + len(self._raw)
        offsets = np.maximum(2 * framed.offsets, self._start)
        ends = np.minimum(2 * (framed.offsets + framed.sizes), end)
        skipped = offsets.copy()
        skipped[:1] -= self._end
        skipped[1:] -= ends[:-1]
        self._end = int(ends[-1]) if len(ends) else self._end
        oversized = [self._widened_line(line, end) for line in framed.oversized]
        starts = offsets - self._begin
        return Framed(self._raw, starts, ends - offsets, offsets, framed.numbers, skipped, oversized)

    def _widened_line(self, line: Oversized, end: int) -> Oversized:
        offset = max(2 * line.offset, self._start)
        length = min(2 * (line.offset + line.length), end) - offset
        return line._replace(offset=offset, length=length, head=self._head_of(offset, length))

    def _head_of(self, offset: int, length: int) -> bytes:
        if self._head and offset == self._head_at:
            return self._head
        place = offset - self._begin
        return self._raw[place : place + min(length, HEAD)]

    def _forget(self) -> None:
        """Keep what was not framed yet; of what is above the limit its head and its end."""
        position = self.position
        if self._head and position > self._head_at:
            self._head = b""  # it has ended, or was a comment
        place = max(position - self._begin, 0)
        if not self._head and len(self._raw) - place > max(self._limit, HEAD) + 4 * _KEPT:
            self._head, self._head_at = self._raw[place : place + HEAD], position
        if self._head:
            place = max(place, len(self._raw) - 2 * _KEPT)
        self._raw, self._begin = self._raw[place:], self._begin + place
