"""Delivery: a batch is sent until Avstar has booked or refused it, however long that takes.

It knows nothing of where batches come from. Retry-After, the account's limit and refused credentials
concern every batch, so they pause the whole worker, here and nowhere else; what failed for one request
alone backs off alone, with full jitter: random(0, min(cap, base * 2^n)).
"""

import asyncio
import random
import time
from collections.abc import Callable
from typing import NamedTuple, Protocol, cast

from tenacity import AsyncRetrying, Future, RetryCallState, retry_if_result, wait_random_exponential

from schemas.batch import Batch
from schemas.letter import now
from streams import log
from streams.answer import Answer, Booked, Refused, Unauthorized, Unavailable, Unsettled
from streams.settings import DispatchSettings

_log = log.get(__name__)


class Sender(Protocol):
    """What delivery needs of a client: one attempt, no exception for what the network does."""

    async def send(self, key: str, body: bytes, headers: dict[str, str], records: int) -> Answer:
        """Send once."""
        ...


class Delivered(NamedTuple):
    """How a batch ended. The failures are times (RFC 3339), empty when the first attempt was booked."""

    answer: Booked | Refused
    attempts: int
    first_failure: str
    last_failure: str


class Delivery:
    """Delivers batches, a bounded number of requests at a time over the whole worker.

    ``observe`` is told every answer, the unsettled ones too.
    """

    def __init__(
        self,
        client: Sender,
        settings: DispatchSettings,
        *,
        observe: Callable[[Answer], None] = lambda _: None,
    ) -> None:
        self._client = client
        self._observe = observe
        self._slots = asyncio.Semaphore(settings.requests_at_once)
        self._spread_s = settings.backoff_base_s
        self._backoff = wait_random_exponential(settings.backoff_base_s, settings.backoff_cap_s)
        self._resume_at = 0.0

    @property
    def paused_s(self) -> float:
        """How long no request is sent, 0 when there is no pause."""
        return max(0.0, self._resume_at - time.monotonic())

    async def deliver(self, batch: Batch) -> Delivered:
        """Send ``batch`` until it is settled. Cancelled at any moment, it leaves nothing behind here.

        What was cancelled in flight may have been booked: to send it again, under its key, finds out.
        """
        failures: list[str] = []
        retrying = AsyncRetrying(
            sleep=asyncio.sleep,
            retry=retry_if_result(lambda answer: isinstance(answer, Unsettled)),
            wait=self._wait,
            before_sleep=lambda state: failures.append(_failed(state, batch.key)),
        )
        answer: Booked | Refused = await retrying(self._attempt, batch)
        if isinstance(answer, Refused):
            failures.append(now())
        ends = (failures[0], failures[-1]) if failures else ("", "")
        return Delivered(answer, retrying.statistics["attempt_number"], *ends)

    async def _attempt(self, batch: Batch) -> Answer:
        headers = {"Content-Type": batch.content_type, "Content-Encoding": batch.content_encoding}
        async with self._slots:
            while left_s := self.paused_s:  # noqa: ASYNC110 - another answer may prolong it meanwhile
                # Who waited together does not come back together.
                await asyncio.sleep(left_s + random.uniform(0, self._spread_s))
            answer = await self._client.send(batch.key, batch.body, headers, batch.records)
        self._observe(answer)
        return answer

    def _wait(self, state: RetryCallState) -> float:
        """How long this batch waits before it asks for a slot again; a pause makes it wait there."""
        answer = _answer(state)
        own_s = self._backoff(state)
        if isinstance(answer, Unavailable) and answer.retry_after_s is None:
            return own_s
        pause_s = own_s if answer.retry_after_s is None else answer.retry_after_s
        self._resume_at = max(self._resume_at, time.monotonic() + pause_s)
        return 0.0


def _answer(state: RetryCallState) -> Unsettled:
    answer: Unsettled = cast("Future", state.outcome).result()  # there is one after an attempt
    return answer


def _failed(state: RetryCallState, key: str) -> str:
    """Log the attempt that failed, and say when it did."""
    answer = _answer(state)
    tell = _log.error if isinstance(answer, Unauthorized) else _log.warning
    tell("delivery_failed", key=key, attempt=state.attempt_number, why=answer.why)
    return now()
