"""How many requests may be in flight: up to a ceiling, and fewer while the API queues them. Pure.

Requests that queue at the API are answered later, and not one more of them a second. So the limit grows by
one at a time while latency stays near the lowest of late, and shrinks by a factor when it rises. It shrinks
by more than latency may rise: each time the queue is gone for a moment, so the lowest latency stays that of
an API without a queue, however long it is slow. While it does not shrink, it dips now and then to the same
end: a queue that grows slowly would be taken for an API that gets slower.
"""

import math
from collections import deque
from statistics import median

_ROUND = 12  # answers, at least, before anything is changed
_ROUNDS = 25  # of which the lowest latency is kept: a rise that is not ours is got used to after so many
_DIP = 20, 22  # rounds since it last shrank, from and to; in the first the queue goes
_TOLERANCE = 1.6  # times the lowest latency
_NOISE_S = 0.03  # more than that in any case
_SHRINK = 0.6


class Concurrency:
    """The limit, from 1 to ``ceiling``; it starts at a quarter and doubles until latency first rises."""

    def __init__(self, ceiling: int) -> None:
        self._ceiling = ceiling
        self._limit = max(1.0, ceiling / 4)
        self._starting = True
        self._round: list[float] = []
        self._lowest: deque[float] = deque(maxlen=_ROUNDS)
        self._rounds = 0  # since it shrank or dipped
        self._refused = self._used_up = False
        self.in_flight = 0

    @property
    def limit(self) -> int:
        """Requests that may be in flight now."""
        limit = min(self._limit, self._ceiling)
        return max(1, int(limit * _SHRINK if self._dips else limit))

    @property
    def _dips(self) -> bool:
        return self._rounds >= _DIP[0]

    @property
    def full(self) -> bool:
        """Whether none more may be sent."""
        return self.in_flight >= self.limit

    def take(self, ceiling: int) -> None:
        """Own a ceiling of ``ceiling``, at least 1, from now on."""
        self._ceiling = ceiling

    def enter(self) -> None:
        """A request is sent."""
        self.in_flight += 1
        self._used_up = self._used_up or self.full

    def leave(self) -> None:
        """It has ended, in whatever way."""
        self.in_flight -= 1

    def learn(self, latency_s: float) -> None:
        """A request was answered as it should be, after ``latency_s``."""
        self._round.append(latency_s)
        if len(self._round) >= max(_ROUND, self.limit):
            self._end_round(median(self._round))

    def refused(self) -> None:
        """The API said that these were too many: shrink, once a round."""
        if not self._refused:
            self._refused = True
            self._shrink()

    def _end_round(self, latency_s: float) -> None:
        self._lowest.append(latency_s)
        lowest = min(self._lowest)
        if not self._refused and not self._dips:
            if latency_s > max(lowest * _TOLERANCE, lowest + _NOISE_S):
                self._shrink()
            elif self._used_up:
                self._limit = min(self._ceiling, self._limit * 2 if self._starting else self._limit + 1)
        self._rounds = (self._rounds + 1) % _DIP[1]
        self._round.clear()
        self._refused = self._used_up = False

    def _shrink(self) -> None:
        self._starting, self._rounds = False, 0
        self._limit = max(1.0, math.floor(min(self._limit, self._ceiling) * _SHRINK))
