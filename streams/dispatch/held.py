"""What a worker holds of batches: their bytes, over all partitions, bounded however large they are."""

import asyncio

#: Some 30 large batches, twice what is in flight: what is read ahead is there to be sent, not to be kept.
_MOST_BYTES = 16_777_216


class Held:
    """Counts bytes. Full from :data:`_MOST_BYTES` on, until it is half of that again."""

    def __init__(self, most_bytes: int = _MOST_BYTES) -> None:
        self._most, self._bytes = most_bytes, 0
        self._waiting: set[asyncio.Event] = set()
        self.is_full = False

    def take(self, size: int) -> None:
        """A batch of ``size`` bytes has come."""
        self._bytes += size
        self.is_full = self.is_full or self._bytes >= self._most

    def give(self, size: int) -> None:
        """It has ended."""
        self._bytes -= size
        if self.is_full and self._bytes <= self._most // 2:
            self.is_full = False
            for waiting in self._waiting:
                waiting.set()
            self._waiting.clear()

    def tell(self, waiting: asyncio.Event) -> None:
        """Set this event when there is room again."""
        self._waiting.add(waiting)
