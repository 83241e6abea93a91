"""The pace: requests evenly spaced, so that all workers together keep the account's ceiling. Pure.

A worker takes the share of the ceiling that it holds of the topic's partitions, so the shares add up to one
whoever joins or leaves, and no worker has to know another. Nothing is saved up: who has just become the owner
starts with one interval's wait.
"""

import math
from collections.abc import Callable

from streams.dispatch.rate_limit import RateLimit
from streams.dispatch.retry_after import CAP_S

_MINUTE_S = 60.0

#: Of the ceiling that is used: some requests take longer to arrive than others, and those of one minute may
#: not spill into the next.
_USED = 0.96

#: How much a request that was sent late may bring the next one nearer, so that timers' delays do not add up.
_LATE_S = 0.05


class Pace:
    """When the next request is due.

    ``per_minute``: the account's ceiling, 0 for none; ``clock``: seconds, monotonic.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float]) -> None:
        self._own = float(per_minute or math.inf)
        self._told = math.inf  # the ceiling that the API told, a minute
        self._share = 1.0
        self._clock = clock
        self._slot = self._resume_at = clock()
        self._slowed_s = self._slowed_until = 0.0

    @property
    def interval_s(self) -> float:
        """Between two requests; 0 while no ceiling is known. What the API told makes it CAP_S at the most."""
        slowed_s = self._slowed_s if self._clock() < self._slowed_until else 0.0
        return max(self._spacing_s(self._own), min(self._spacing_s(self._told), CAP_S), slowed_s)

    def _spacing_s(self, per_minute: float) -> float:
        requests = per_minute * self._share * _USED
        # Whole requests a minute, and a little over a minute for them: then no minute holds one more.
        whole = requests if math.isinf(requests) else math.floor(requests) or requests
        return (_MINUTE_S + _LATE_S) / whole

    @property
    def paused_s(self) -> float:
        """How long :meth:`pause` holds still."""
        return max(0.0, self._resume_at - self._clock())

    @property
    def wait_s(self) -> float:
        """How long until the next request is due."""
        return max(self.paused_s, self._slot + self.interval_s - self._clock(), 0.0)

    def enter(self) -> None:
        """A request is sent now."""
        now, interval = self._clock(), self.interval_s
        due = max(self._slot + interval, self._resume_at)
        self._slot = due if now - due <= min(_LATE_S, interval / 2) else now

    def take(self, share: float) -> None:
        """Own ``share`` (above 0, up to 1) of the account from now on, with nothing saved up."""
        self._share = share
        self._slot = self._clock()

    def pause(self, seconds: float) -> None:
        """Send nothing for ``seconds``."""
        self._resume_at = max(self._resume_at, self._clock() + seconds)

    def learn(self, limit: RateLimit) -> None:
        """Take over what an answer told of the account's limit."""
        self._told = limit.per_minute
        if limit.remaining == 0:
            self.pause(limit.reset_s)
            return
        # What is left for all workers, spread over what is left of the time; then the quota is whole again.
        self._slowed_s = min(limit.reset_s / (limit.remaining * self._share), limit.reset_s)
        self._slowed_until = self._clock() + limit.reset_s
