"""The circuit breaker: closed, open, half-open, closed. Pure; its clock is an argument.

It counts over a rolling window, not in a row: an API that fails one request in ten is ill, too, and hardly
ever fails five times running.
"""

import math
from collections import deque
from collections.abc import Callable
from typing import Literal, NamedTuple

from streams.settings import BreakerSettings

State = Literal["closed", "open", "half-open"]

#: Parts of the window; each leaves it as a whole.
_PARTS = 60


class Counts(NamedTuple):
    """Requests that were answered within the window, and how many of them failed."""

    calls: int
    errors: int

    @property
    def error_rate(self) -> float:
        return self.errors / self.calls if self.calls else 0.0


class Breaker:
    """Opens above an error rate; after a while lets one request try, and closes when that one succeeds.

    ``clock`` gives seconds, monotonic; ``observe`` is told each state that it enters, and the counts then.
    """

    def __init__(
        self,
        settings: BreakerSettings,
        clock: Callable[[], float],
        observe: Callable[[State, Counts], None] = lambda *_: None,
    ) -> None:
        self._settings, self._clock, self._observe = settings, clock, observe
        self.state: State = "closed"
        self._ticket = 0  # of the present state: an answer to a request from before says nothing of now
        self._probe_at = 0.0
        self._parts: deque[tuple[int, Counts]] = deque()

    @property
    def wait_s(self) -> float:
        """How long until a request may be sent; infinite while the probe is under way."""
        if self.state == "closed":
            return 0.0
        return math.inf if self.state == "half-open" else max(0.0, self._probe_at - self._clock())

    @property
    def counts(self) -> Counts:
        """What the window holds."""
        oldest = self._part() - _PARTS
        while self._parts and self._parts[0][0] <= oldest:
            self._parts.popleft()
        held = [counts for _, counts in self._parts]
        return Counts(sum(counts.calls for counts in held), sum(counts.errors for counts in held))

    def enter(self) -> int:
        """A request is sent, once ``wait_s`` is 0. To be followed by :meth:`leave` with what this returns."""
        if self.state == "open":
            self._become("half-open")
        return self._ticket

    def leave(self, ticket: int, failed: bool | None) -> None:
        """The request has ended; None: in a way that says nothing about the API's health."""
        if ticket != self._ticket:
            return
        if self.state == "half-open":
            self._judge_probe(failed)
        elif self.state == "closed" and failed is not None:
            self._count(failed)
            counts = self.counts
            if counts.calls >= self._settings.minimum_calls and counts.error_rate > self._settings.error_rate:
                self._open(self._settings.open_s)

    def _judge_probe(self, failed: bool | None) -> None:
        if failed is None:
            self._open(0.0)  # the next request is the probe
        elif failed:
            self._open(self._settings.open_s)
        else:
            self._parts.clear()
            self._become("closed")

    def _open(self, seconds: float) -> None:
        self._probe_at = self._clock() + seconds
        self._become("open")

    def _become(self, state: State) -> None:
        self.state = state
        self._ticket += 1
        self._observe(state, self.counts)

    def _count(self, failed: bool) -> None:
        part = self._part()
        if not self._parts or self._parts[-1][0] != part:
            self._parts.append((part, Counts(0, 0)))
        _, counts = self._parts[-1]
        self._parts[-1] = part, Counts(counts.calls + 1, counts.errors + failed)

    def _part(self) -> int:
        return math.floor(self._clock() * _PARTS / self._settings.window_s)
