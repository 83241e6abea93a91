"""Framing of UTF-16: each code unit stands as one byte before a framer that looks for ASCII. Pure.

So a line feed is one only where it is a whole code unit, and records keep the bytes that they had.
"""

from collections.abc import Callable

import numpy as np

from streams.formats.framing import HEAD, Framed, Framing

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
    byte belongs to what it follows.
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
        self._units = make(limit // 2, position // 2, number, pending // 2)
        self._limit, self._little = limit, little
        self._raw, self._begin = b"", position  # what was fed of the file from offset ``_begin`` on
        self._half = b""
        self._head = b""  # of what is above the limit, once its middle is not in ``_raw`` any more
        self._head_at = 0
        self._missing = 0  # half a code unit at the end of the file

    @property
    def position(self) -> int:
        """See :class:`.framing.Framing`."""
        return 2 * self._units.position - self._missing

    @property
    def number(self) -> int:
        """See :class:`.framing.Framing`."""
        return self._units.number

    @property
    def pending(self) -> int:
        """See :class:`.framing.Framing`."""
        return 2 * self._units.pending - self._missing if self._units.pending else 0

    @property
    def held(self) -> int:
        """See :class:`.framing.Framing`."""
        return 2 * self._units.held + len(self._half)

    def feed(self, block: bytes, *, final: bool = False) -> Framed:
        """See :class:`.framing.Framing`."""
        block = self._half + block
        even = len(block) & ~1
        self._half = b"" if final else block[even:]
        units = narrow(block[:even], little=self._little)
        if final and even < len(block):
            units += bytes([OTHER])
            self._missing = 1
        else:
            block = block[:even]
        self._raw += block
        framed = self._widened(self._units.feed(units, final=final))
        self._forget()
        return framed

    def _widened(self, framed: Framed) -> Framed:
        raw, begin, end = self._raw, self._begin, self._begin + len(self._raw)
        offsets = 2 * framed.offsets
        starts = offsets - begin
        sizes = np.minimum(2 * framed.sizes, len(raw) - starts)
        oversized = [
            line._replace(
                offset=2 * line.offset,
                length=min(2 * (line.offset + line.length), end) - 2 * line.offset,
                head=self._head_of(2 * line.offset, 2 * line.length),
            )
            for line in framed.oversized
        ]
        return Framed(raw, starts, sizes, offsets, framed.numbers, 2 * framed.skipped, oversized)

    def _head_of(self, offset: int, length: int) -> bytes:
        if self._head and offset == self._head_at:
            return self._head
        place = offset - self._begin
        return self._raw[place : place + min(length, HEAD)]

    def _forget(self) -> None:
        """Keep what was not framed yet; of what is above the limit its head and its end."""
        position = 2 * self._units.position
        if self._head and position > self._head_at:
            self._head = b""  # it has ended, or was a comment
        place = max(position - self._begin, 0)
        if not self._head and len(self._raw) - place > max(self._limit, HEAD) + 4 * _KEPT:
            self._head, self._head_at = self._raw[place : place + HEAD], position
        if self._head:
            place = max(place, len(self._raw) - 2 * _KEPT)
        self._raw, self._begin = self._raw[place:], self._begin + place
