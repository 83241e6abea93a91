"""Delivery: a batch is sent until Avstar has booked or refused it, however long that takes.

It knows nothing of where batches come from. Retry-After, the account's limit and refused credentials
concern every batch, so they pause the whole worker (:mod:`.throttle`); what failed for one request
alone backs off alone, with full jitter: random(0, min(cap, base * 2^n)).
"""

import asyncio
from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol, cast

from tenacity import AsyncRetrying, Future, RetryCallState, wait_random_exponential

from schemas.batch import Batch
from schemas.letter import now
from streams import log, traces
from streams.dispatch.answer import Answer, Booked, NoToken, Refused, Unauthorized, Unavailable, Unsettled
from streams.dispatch.throttle import Throttle
from streams.settings import DispatchSettings

_log = log.get(__name__)


class Sender(Protocol):
    """What delivery needs of a client: one attempt, no exception for what the network does."""

    async def send(self, key: str, body: bytes, headers: dict[str, str], records: int) -> Answer:
        """Send once."""
        ...


class Delivered(NamedTuple):
    """How a batch ended; ``Unavailable``: it was given up.

    The failures are times (RFC 3339), empty when the first attempt was booked. ``breaker``: its state at the
    last attempt.
    """

    answer: Booked | Refused | Unavailable
    attempts: int
    first_failure: str
    last_failure: str
    breaker: Literal["closed", "half-open"]


class _Attempt(NamedTuple):
    answer: Answer
    breaker: Literal["closed", "half-open"]


class Delivery:
    """Delivers batches, when ``throttle`` lets it send.

    ``observe`` is told every answer, the unsettled ones too.
    """

    def __init__(
        self,
        client: Sender,
        settings: DispatchSettings,
        throttle: Throttle,
        *,
        observe: Callable[[Answer], None] = lambda _: None,
    ) -> None:
        self._client, self._throttle = client, throttle
        self._observe = observe
        self._give_up_after = settings.give_up_after_attempts
        self._backoff = wait_random_exponential(settings.backoff_base_s, settings.backoff_cap_s)
        self._under_way = 0

    @property
    def holds(self) -> bool:
        """Whether no more batches are wanted: the breaker is not closed, and there is one to try with."""
        return self._throttle.breaker.state != "closed" and self._under_way > 0

    async def deliver(self, batch: Batch) -> Delivered:
        """Send ``batch`` until it is settled or, where the settings say so, given up.

        Cancelled at any moment, it leaves nothing behind here.
        What was cancelled in flight may have been booked: to send it again, under its key, finds out.
        """
        failures: list[str] = []
        key = batch.key  # retrying is part of a cycle: it must not keep the batch until that is found
        retrying = AsyncRetrying(
            sleep=asyncio.sleep,
            retry=self._goes_on,
            wait=self._wait,
            before_sleep=lambda state: failures.append(_failed(state, key)),
        )
        self._under_way += 1
        try:
            last: _Attempt = await retrying(self._attempt, batch)
        finally:
            self._under_way -= 1
        answer = cast("Booked | Refused | Unavailable", last.answer)
        if not isinstance(answer, Booked):
            failures.append(now())
        ends = (failures[0], failures[-1]) if failures else ("", "")
        return Delivered(answer, retrying.statistics["attempt_number"], *ends, last.breaker)

    async def _attempt(self, batch: Batch) -> _Attempt:
        headers = {"Content-Type": batch.content_type, "Content-Encoding": batch.content_encoding}
        async with self._throttle.admitted() as permit:
            with traces.request("POST /v2/ingest") as span:
                answer = await self._client.send(batch.key, batch.body, headers, batch.records)
                span.set_attributes(_told(answer, batch))
            permit.learn(answer)
        self._observe(answer)
        return _Attempt(answer, permit.breaker)

    def _goes_on(self, state: RetryCallState) -> bool:
        """Whether to send again. A batch is given up only when it fails while Avstar takes others."""
        answer = _outcome(state).answer
        if not isinstance(answer, Unsettled):
            return False
        patient = not self._give_up_after or state.attempt_number < self._give_up_after
        return patient or not isinstance(answer, Unavailable) or self._throttle.breaker.state != "closed"

    def _wait(self, state: RetryCallState) -> float:
        """How long this batch waits before it gets in line again; the whole worker's waits are there."""
        answer = _unsettled(state)
        own_s = self._backoff(state)
        if isinstance(answer, Unavailable) and answer.retry_after_s is None:
            return own_s if self._throttle.breaker.state == "closed" else 0.0
        self._throttle.pause(own_s if answer.retry_after_s is None else answer.retry_after_s)
        return 0.0


def _told(answer: Answer, batch: Batch) -> traces.Attributes:
    return {
        "http.request.method": "POST",
        "http.request.body.size": len(batch.body),
        "http.response.status_code": answer.exchange.get("status", 0),
        "spotstream.answer": type(answer).__name__.lower(),
    }


def _outcome(state: RetryCallState) -> _Attempt:
    attempt: _Attempt = cast("Future", state.outcome).result()  # there is one after an attempt
    return attempt


def _unsettled(state: RetryCallState) -> Unsettled:
    return cast("Unsettled", _outcome(state).answer)


def _failed(state: RetryCallState, key: str) -> str:
    """Log the attempt that failed, and say when it did."""
    answer = _unsettled(state)
    tell = _log.error if isinstance(answer, Unauthorized | NoToken) else _log.warning
    tell("delivery_failed", key=key, attempt=state.attempt_number, why=answer.why)
    return now()
