"""The throttle: when a request may be sent, by the account's limits, the API's latency and the breaker.

Whoever wants to send waits in one line, so the batch that has waited longest goes first.
"""

import asyncio
import contextlib
import math
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Literal

from streams import log
from streams.dispatch.answer import Answer, Booked, Limited, Refused, Unavailable
from streams.dispatch.breaker import Breaker, Counts, State
from streams.dispatch.concurrency import Concurrency
from streams.dispatch.pace import Pace
from streams.settings import BreakerSettings, DispatchSettings

_log = log.get(__name__)


class Permit:
    """Leave to send one request. ``breaker``: its state then; half-open: this is the probe."""

    def __init__(self, throttle: "Throttle", ticket: int, breaker: Literal["closed", "half-open"]) -> None:
        self.breaker = breaker
        self._throttle, self._ticket = throttle, ticket

    def learn(self, answer: Answer) -> None:
        """Let the throttle know how the request ended."""
        self._throttle._learn(answer, self._ticket)


class Throttle:
    """One worker's, over all its partitions. Belongs to an event loop.

    ``observe`` is told each state that the breaker enters, ``waited`` how long each request waited here, in
    seconds.
    """

    def __init__(
        self,
        dispatch: DispatchSettings,
        breaker: BreakerSettings,
        *,
        observe: Callable[[State], None] = lambda _: None,
        waited: Callable[[float], None] = lambda _: None,
    ) -> None:
        self._at_once = dispatch.requests_at_once
        self._spread_s = dispatch.backoff_base_s
        self._observe, self._waited = observe, waited
        self.breaker = Breaker(breaker, time.monotonic, self._breaker_became)
        self.pace = Pace(dispatch.requests_per_minute, time.monotonic)
        self.concurrency = Concurrency(dispatch.requests_at_once)
        self._line = asyncio.Lock()
        self._moved = asyncio.Event()

    def share(self, owned: int, total: int) -> None:
        """This worker holds ``owned`` of ``total`` partitions from now on, and that share of the account."""
        part = max(owned, 1) / total
        self.pace.take(part)
        self.concurrency.take(max(1, int(self._at_once * part)))
        _log.info("share", owned=owned, total=total)
        self._moved.set()

    def pause(self, seconds: float) -> None:
        """Send nothing for ``seconds`` and a little: workers that wait together do not come back together."""
        self.pace.pause(seconds + random.uniform(0, self._spread_s))

    @asynccontextmanager
    async def admitted(self) -> AsyncIterator[Permit]:
        """Wait until a request may be sent, and count it while it is. May be cancelled at any moment."""
        since = time.monotonic()
        async with self._line:
            while wait_s := self._wait_s:
                await self._until_moved(wait_s)
            ticket, probe = self.breaker.enter(), self.breaker.state == "half-open"
            self.pace.enter()
            self.concurrency.enter()
        try:
            self._waited(time.monotonic() - since)
            yield Permit(self, ticket, "half-open" if probe else "closed")
        finally:
            self.breaker.leave(ticket, None)
            self.concurrency.leave()
            self._moved.set()

    @property
    def _wait_s(self) -> float:
        return math.inf if self.concurrency.full else max(self.breaker.wait_s, self.pace.wait_s)

    async def _until_moved(self, at_most_s: float) -> None:
        self._moved.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if math.isinf(at_most_s) else at_most_s):
                await self._moved.wait()

    def _learn(self, answer: Answer, ticket: int) -> None:
        if answer.limit:
            self.pace.learn(answer.limit)
        if isinstance(answer, Booked):
            self.concurrency.learn(answer.latency_ms / 1000)
        elif isinstance(answer, Limited):
            self.concurrency.refused()
        self.breaker.leave(ticket, _failed(answer))

    def _breaker_became(self, state: State, counts: Counts) -> None:
        tell = _log.warning if state == "open" else _log.info
        tell("breaker", state=state, calls=counts.calls, errors=counts.errors)
        self._observe(state)


def _failed(answer: Answer) -> bool | None:
    """Whether it tells of a failure of the API; None: it tells nothing about its health."""
    if isinstance(answer, Booked | Refused):
        return False
    return True if isinstance(answer, Unavailable) and answer.is_error else None
