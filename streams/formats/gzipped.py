"""Gzip files as if they were plain: offsets count the bytes inside. Members one after the other are one file.

What is inside is streamed, so a bomb costs time but no memory; a file may grow while it is read, even in the
middle of a member. Where reading goes back, or on from a checkpoint, it begins again at the last member that
is known to lie before, or at the start. A file that ends in the middle of a member may still grow; one that
is corrupt is told, and all is given out that lies before the first byte that cannot be inflated.
"""

from bisect import bisect_right
from typing import Any, NamedTuple, Protocol

from isal import isal_zlib

MAGIC = b"\x1f\x8b"

_CHUNK = 65_536  #: compressed bytes that are inflated at a time
_PIECE = 1_048_576  #: bytes that they make at the most
_HEAD = 1024  #: bytes of the start that are asked for again and again
_KEPT, _MOST_KEPT = 65_536, 16_777_216  #: bytes behind the last one read that are kept
_APART = 1_048_576  #: bytes between members that are remembered


class Raw(Protocol):
    """The compressed file."""

    def read(self, offset: int, size: int) -> bytes: ...


class Member(NamedTuple):
    """Where a member begins: the offset of what is inside it, and its own in the compressed file."""

    inside: int
    at: int


START = Member(0, 0)


class DamagedError(OSError):
    """The rest of a file cannot be read; ``strerror`` says why."""

    def __init__(self, why: str) -> None:
        super().__init__(None, why)


class Gunzip:
    """What is inside a gzip file, by offset."""

    def __init__(self, raw: Raw) -> None:
        self._raw = raw
        self._members = [START]
        self._inflater = _Inflater(raw, START)
        self._window, self._kept = b"", _KEPT  # the bytes before the inflater's place
        self._head = b""
        self._fault = ""

    @property
    def inside(self) -> int:
        """Bytes that have been inflated."""
        return self._inflater.inside

    @property
    def consumed(self) -> int:
        """Bytes of the compressed file that have been read."""
        return self._inflater.at

    @property
    def whole(self) -> bool:
        """Whether it ends with a member, as far as it has been read."""
        return self._inflater.between

    def read(self, offset: int, size: int) -> bytes:
        """Up to ``size`` bytes at ``offset``; less only where there are no more yet or it is damaged."""
        if offset + size <= len(self._head):
            return self._head[offset : offset + size]
        self._go_to(offset)
        pieces = [self._window]
        while self._inflater.inside < offset + size and (piece := self._step()):
            pieces.append(piece)
        data = b"".join(pieces)
        begin = self._inflater.inside - len(data)
        self._window = data[-self._kept :]
        if not begin and len(self._head) < _HEAD:
            self._head = data[:_HEAD]
        return data[offset - begin : offset - begin + size]

    def check(self, *, final: bool) -> None:
        """Raise :class:`DamagedError` when nothing can follow; ``final`` says that the file does not grow."""
        if self._fault:
            raise DamagedError(self._fault)
        if final and not self.whole:
            raise DamagedError(f"gzip: it ends in the middle of a member, at byte {self.consumed}")

    def member(self, inside: int) -> Member:
        """The last one known to begin at or before the offset ``inside``: where reading can go on from."""
        return self._members[bisect_right(self._members, (inside, 1 << 62)) - 1]

    def know(self, member: Member) -> None:
        """Take a checkpoint's word for a member; :data:`START` takes it back."""
        self._members = sorted({START, member})
        self._inflater, self._window, self._fault = _Inflater(self._raw, START), b"", ""

    def _go_to(self, offset: int) -> None:
        """Bring the window to ``offset``, by way of the best member."""
        inside, member = self._inflater.inside, self.member(offset)
        behind = offset < inside - len(self._window)
        if behind:
            # Whoever goes back once will again, as records that are held go on.
            self._kept = min(max(self._kept, 2 * (inside - offset)), _MOST_KEPT)
        if behind or member.inside > inside:
            self._inflater, self._window, self._fault = _Inflater(self._raw, member), b"", ""
        while self._inflater.inside < offset and (piece := self._step()):
            keep = max(self._kept, self._inflater.inside - offset)
            self._window = (self._window + piece)[-keep:]

    def _step(self) -> bytes:
        if self._fault:
            return b""
        inflater = self._inflater
        try:
            piece = inflater.step()
        except _CorruptError as error:
            if inflater.slow:
                self._fault = f"gzip: corrupt at byte {inflater.at}: {error}"
                return b""
            return self._salvage()
        if inflater.member.inside >= self._members[-1].inside + _APART:
            self._members.append(inflater.member)
        return piece

    def _salvage(self) -> bytes:
        """Inflate the chunk that is corrupt once more, byte by byte, so that nothing readable is lost."""
        failed = self._inflater
        if failed.begin == failed.member:
            # It was a checkpoint's word, perhaps, and the file another one.
            self._members = [START, *(known for known in self._members[1:] if known < failed.begin)]
        self._inflater = again = _Inflater(self._raw, self.member(failed.inside), slow_from=failed.chunk_at)
        piece = b""
        while again.inside <= failed.inside and (piece := self._step()):
            pass
        return piece[len(piece) - max(again.inside - failed.inside, 0) :]


class _CorruptError(Exception):
    """What cannot be inflated."""


class _Inflater:
    """Inflates from the start of a member on, through those that follow.

    A chunk at ``slow_from`` is inflated byte by byte.
    """

    def __init__(self, raw: Raw, begin: Member, *, slow_from: int = -1) -> None:
        self._raw, self._slow_from = raw, slow_from
        self.slow = slow_from >= 0
        self.begin = self.member = begin
        self.inside, self.at = begin
        self.chunk_at = self.at
        self._decoder: Any = None
        self._input = b""
        self._pending = False  # whether the decoder has more of what it was given

    @property
    def between(self) -> bool:
        """Whether a member has ended and none begun."""
        return self._decoder is None

    def step(self) -> bytes:
        """The next bytes; none where the compressed file has no more. Raises :class:`_CorruptError`."""
        while self._pending or self._fetch():
            try:
                piece: bytes = self._decoder.decompress(self._input, _PIECE)
            except isal_zlib.error as error:  # type: ignore[misc] # isal's stub calls it an instance
                raise _CorruptError(error) from None
            self._input = self._decoder.unconsumed_tail
            self._pending = bool(self._input) or len(piece) == _PIECE
            self.inside += len(piece)
            if self._decoder.eof:
                self.at -= len(self._decoder.unused_data)
                self.member = Member(self.inside, self.at)
                self._decoder, self._input, self._pending = None, b"", False
            if piece:
                return piece
        return b""

    def _fetch(self) -> bool:
        """Take the next chunk; gives whether there was one."""
        while True:
            self.chunk_at = self.at
            chunk = self._raw.read(self.at, self._chunk_size())
            self.at += len(chunk)
            if self._decoder is not None or not chunk:
                break
            # Zeros fill the last block of a tape; gzip passes over them, too.
            chunk = chunk.lstrip(b"\0")
            if chunk:
                self._input = chunk
                self._decoder = isal_zlib.decompressobj(wbits=31)
                return True
        self._input = chunk
        return bool(chunk)

    def _chunk_size(self) -> int:
        if not self.slow or self.at >= self._slow_from + _CHUNK:
            return _CHUNK
        return min(_CHUNK, self._slow_from - self.at) if self.at < self._slow_from else 1
