"""The window: records of one partition, gathered until they are enough or have waited long enough."""

from collections import deque
from collections.abc import Sequence
from math import inf
from typing import Generic, TypeVar

R = TypeVar("R")


class Window(Generic[R]):
    """Gathers records in order. Pure: the time, in seconds, is an argument.

    A window is due when it holds ``limit`` records, or ``seconds`` after its first record came.
    """

    def __init__(self, limit: int, seconds: float) -> None:
        self._limit, self._seconds = limit, seconds
        self._waiting: deque[tuple[float, Sequence[R]]] = deque()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, records: Sequence[R], now: float) -> None:
        """Take ``records``, which came at ``now``."""
        if records:
            self._waiting.append((now, records))
            self._size += len(records)

    def due_in(self, now: float, early: float = inf) -> float | None:
        """Seconds until the window is due, 0.0 when it is; None while it is empty.

        ``early``: seconds after its first record that are enough now.
        """
        if not self._size:
            return None
        if self._size >= self._limit:
            return 0.0
        return max(0.0, self._waiting[0][0] + min(self._seconds, early) - now)

    def take(self) -> list[R]:
        """The first records, at most ``limit``; the others stay, each as long as it has waited."""
        taken: list[R] = []
        while self._waiting and len(taken) < self._limit:
            came, records = self._waiting.popleft()
            room = self._limit - len(taken)
            taken.extend(records[:room])
            if len(records) > room:
                self._waiting.appendleft((came, records[room:]))
        self._size -= len(taken)
        return taken
