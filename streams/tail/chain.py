"""A chained hash over a file's bytes: it can be told at any place, and gone on with from a checkpoint."""

from collections.abc import Callable
from hashlib import sha256

#: Bytes in a block of the grid. The chain's links lie on its lines, whatever blocks are read.
GRID = 1_048_576

_FIRST = bytes(32)


class Chain:
    """``link`` covers the whole blocks before ``begin``, which lies on the grid; feed what follows."""

    def __init__(self, link: bytes = _FIRST, begin: int = 0) -> None:
        self._link = link or _FIRST
        self._room = GRID
        self._block = sha256()
        self.end = begin

    def feed(self, data: bytes | memoryview) -> None:
        """Take the bytes that follow."""
        view = memoryview(data)
        while view:
            part = view[: self._room]
            self._block.update(part)
            self._room -= len(part)
            if not self._room:
                self._link = self._linked()
                self._block, self._room = sha256(), GRID
            view = view[len(part) :]
        self.end += len(data)

    def _linked(self) -> bytes:
        return sha256(self._link + self._block.digest()).digest()

    def state(self) -> tuple[str, str]:
        """The link of the whole blocks, and the digest of everything up to here, as hex."""
        return self._link.hex(), self._linked().hex()


def start(position: int) -> int:
    """Where the block begins that ``position`` lies in."""
    return position - position % GRID


def resumed(link: str, position: int, read: Callable[[int, int], bytes]) -> Chain:
    """The chain at ``position`` from the link before it, or from none; ``read(offset, size)`` gives bytes."""
    begin = start(position) if link else 0
    chain = Chain(bytes.fromhex(link), begin)
    while chain.end < position and (data := read(chain.end, min(GRID, position - chain.end))):
        chain.feed(data)
    return chain


def digest(position: int, read: Callable[[int, int], bytes]) -> str:
    """The digest of the first ``position`` bytes; of fewer where there are no more."""
    return resumed("", position, read).state()[1]
