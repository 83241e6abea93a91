"""The key of a raw record: where in which file it stood, packed into 40 bytes.

A key instead of headers, because headers cost two thirds of the publishing speed. Big-endian:

    descriptor  16 bytes  id of the file's descriptor on ``avion.files``
    offset       8 bytes  of the record's first byte, counted in the decompressed file
    number       8 bytes  of the record in its file, from 1
    skipped      8 bytes  header, comment and blank lines between the record before and this one

The value is the record's bytes with its line terminator, so that a file is proven whole when for each
record ``offset - skipped`` is where the one before ended (``offset + len(value)``).
"""

from struct import Struct
from typing import NamedTuple

_LAYOUT = Struct(">16sQQQ")
SIZE = _LAYOUT.size

#: Of a byte offset or a number: 9 PB. With any 64 bits, sums of them would not fit into JSON's.
_MOST = 1 << 53

#: ``pack(descriptor, offset, number, skipped)`` → the 40 bytes of a key.
pack = _LAYOUT.pack


class RawKey(NamedTuple):
    """A raw record's place: descriptor id (16 bytes), byte offset, record number from 1, bytes skipped."""

    descriptor: bytes
    offset: int
    number: int
    skipped: int

    def pack(self) -> bytes:
        """The 40 bytes that go on the topic."""
        return _LAYOUT.pack(*self)

    @classmethod
    def unpack(cls, key: bytes) -> "RawKey":
        """Read a key back; raises ``ValueError`` when it is not one of ours."""
        if len(key) != SIZE:
            raise ValueError(f"a raw record's key has {SIZE} bytes, this one has {len(key)}")
        found = cls(*_LAYOUT.unpack(key))
        if max(found.offset, found.number, found.skipped) > _MOST:
            raise ValueError("a raw record's key with a place that no file has")
        return found
