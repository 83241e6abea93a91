"""The window: records of one partition, gathered until they are enough or have waited long enough."""

from collections import deque
from collections.abc import Callable, Sequence
from math import inf
from typing import Generic, NamedTuple, TypeVar

R = TypeVar("R")


class _Arrival(NamedTuple, Generic[R]):
    came: float
    records: Sequence[R]
    size: int


class Window(Generic[R]):
    """Gathers records in order. Pure: the time, in seconds, is an argument.

    A window is due when it holds ``limit`` records or, counted by ``size_of``, ``most`` bytes, or ``seconds``
    after its first record came. Of what is larger than ``most`` one record is a window.
    """

    def __init__(self, limit: int, seconds: float, most: int, size_of: Callable[[Sequence[R]], int]) -> None:
        self._limit, self._seconds = limit, seconds
        self._most, self._size_of = most, size_of
        self._waiting: deque[_Arrival[R]] = deque()
        self._records = self._bytes = 0

    def __len__(self) -> int:
        return self._records

    @property
    def is_full(self) -> bool:
        """Whether there is as much as one window holds."""
        return self._records >= self._limit or self._bytes >= self._most

    def add(self, records: Sequence[R], now: float) -> None:
        """Take ``records``, which came at ``now``."""
        if records:
            self._put(self._waiting.append, now, records)

    def due_in(self, now: float, early: float = inf) -> float | None:
        """Seconds until the window is due, 0.0 when it is; None while it is empty.

        ``early``: seconds after its first record that are enough now.
        """
        if not self._records:
            return None
        if self.is_full:
            return 0.0
        return max(0.0, self._waiting[0].came + min(self._seconds, early) - now)

    def take(self) -> list[R]:
        """The first records, as many as one window holds; the others stay, each as long as it has waited."""
        taken: list[R] = []
        left = self._most
        while self._waiting and len(taken) < self._limit and left > 0:
            arrival = self._waiting.popleft()
            self._records -= len(arrival.records)
            self._bytes -= arrival.size
            fitting = self._fitting(arrival, self._limit - len(taken), left)
            taken.extend(arrival.records[:fitting])
            left -= arrival.size
            if fitting < len(arrival.records):
                self._put(self._waiting.appendleft, arrival.came, arrival.records[fitting:])
                break
        return taken

    def _put(self, put: Callable[[_Arrival[R]], None], came: float, records: Sequence[R]) -> None:
        arrival = _Arrival(came, records, self._size_of(records))
        put(arrival)
        self._records += len(records)
        self._bytes += arrival.size

    def _fitting(self, arrival: _Arrival[R], room: int, left: int) -> int:
        """How many records of it go into a window that takes ``room`` more, and ``left`` bytes."""
        if arrival.size < left:
            return min(room, len(arrival.records))
        for number, record in enumerate(arrival.records[:room]):
            if left <= 0:
                return number
            left -= self._size_of([record])
        return min(room, len(arrival.records))
