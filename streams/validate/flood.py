"""The flood guard: when nearly everything fails, the fault is seldom the data's; pause, and say so.

After a bad deployment every record would become a dead letter. Validation always judges alike, so its guard
holds the partition until the worker is started again: with what was mended, or with ``dlq.flood_share = 1``
by somebody who wants the letters. Avstar may be mended meanwhile, so dispatch's guard tries again by itself,
with one request after each ``dlq.flood_pause_s``, which may cost a dead letter each time.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable

from schemas.batch import Batch
from streams import log
from streams.dispatch.answer import Booked, Refused, Unavailable
from streams.dispatch.delivery import Delivered
from streams.dispatch.halving import Deliverer
from streams.settings import DlqSettings

_log = log.get("flood")


class Rejections:
    """The share of records that validation rejected, of the last ones of a partition. Pure."""

    def __init__(self, settings: DlqSettings) -> None:
        self._most, self._enough = settings.flood_share, settings.flood_records
        self._windows: deque[tuple[int, int]] = deque()
        self.records = self.rejected = 0

    def flooded(self, records: int, rejected: int) -> bool:
        """Whether a window of so many records is one too many; it is counted."""
        self._windows.append((records, rejected))
        self.records += records
        self.rejected += rejected
        while self.records - self._windows[0][0] >= self._enough:
            oldest = self._windows.popleft()
            self.records -= oldest[0]
            self.rejected -= oldest[1]
        return self.records >= self._enough and self.rejected / self.records > self._most


class Refusals:
    """A delivery that stops sending when Avstar refuses record after record and books none.

    ``observe`` is told whether it holds, whenever that changes.
    """

    def __init__(
        self, delivery: Deliverer, settings: DlqSettings, *, observe: Callable[[bool], None] = lambda _: None
    ) -> None:
        self._delivery, self._observe = delivery, observe
        self._most, self._pause_s = settings.flood_refused, settings.flood_pause_s
        self._refused = 0
        self._again_at = 0.0
        self._probe = asyncio.Lock()

    @property
    def holds(self) -> bool:
        """Whether it waits before it tries again."""
        return 0 < self._most <= self._refused

    async def deliver(self, batch: Batch) -> Delivered:
        """As the delivery does, once it may; while it holds, one at a time."""
        while self.holds:
            async with self._probe:
                if self.holds:
                    await asyncio.sleep(self._again_at - time.monotonic())
                    return await self._send(batch)
        return await self._send(batch)

    async def _send(self, batch: Batch) -> Delivered:
        delivered = await self._delivery.deliver(batch)
        taken, refused = _counts(batch, delivered.answer)
        held = self.holds
        self._refused = 0 if taken else self._refused + refused
        if self.holds and refused:
            self._again_at = time.monotonic() + self._pause_s
            why = f"{self._refused} records refused and none booked: no more is sent until one is"
            _log.error(
                "flood guard", why=why, tries_again_in_s=self._pause_s, exchange=delivered.answer.exchange
            )
        elif held and not self.holds:
            _log.info("flood guard", why="a record was booked: going on")
        if held != self.holds:
            self._observe(self.holds)
        return delivered


def _counts(batch: Batch, answer: Booked | Refused | Unavailable) -> tuple[int, int]:
    """Records that were booked, now or before, and records that were refused for good."""
    if isinstance(answer, Booked):
        return answer.accepted + answer.duplicates, len(answer.rejected)
    if isinstance(answer, Refused):
        return 0, len(answer.rejected) or int(batch.records == 1)
    return 0, 0
