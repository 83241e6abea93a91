"""Delivery against the sandbox: whatever it does, every batch is settled once, and nobody hurries a limit."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from schemas.batch import Batch, build
from streams.answer import Answer, Booked, Limited, Refused, Unauthorized
from streams.avstar import Avstar
from streams.delivery import Delivery
from streams.lab.faults import Script
from streams.lab.sandbox import Options, Sandbox, running
from streams.settings import AvstarSettings, BreakerSettings, DispatchSettings
from streams.throttle import Throttle


def batch(*numbers: int) -> Batch:
    bodies = [b'{"n":%d,"record_type":"spot"}' % number for number in numbers]
    return build([(sha256(body).hexdigest(), body) for body in bodies])


class Line:
    """A delivery to a running sandbox, and when it got which answer."""

    def __init__(
        self, sandbox: Sandbox, avstar: Avstar, settings: DispatchSettings, breaker: BreakerSettings
    ) -> None:
        self.sandbox = sandbox
        self.seen: list[tuple[float, Answer]] = []
        self.throttle = Throttle(settings, breaker)
        self.delivery = Delivery(avstar, settings, self.throttle, observe=self._observe)

    def _observe(self, answer: Answer) -> None:
        self.seen.append((time.monotonic(), answer))

    def faults(self, *faults: dict[str, Any], seed: int = 0) -> None:
        self.sandbox.faults.play(Script.model_validate({"seed": seed, "faults": faults}))

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await asyncio.sleep(0.005)


@asynccontextmanager
async def line(
    *,
    options: Options | None = None,
    timeout_s: float = 5.0,
    key_file: Path | None = None,
    breaker: BreakerSettings | None = None,
    **settings: Any,
) -> AsyncIterator[Line]:
    quick = {"backoff_base_s": 0.01, "backoff_cap_s": 0.05}
    dispatch = DispatchSettings(**(quick | settings))
    patient = breaker or BreakerSettings(minimum_calls=10_000)
    async with running(options or Options()) as started:
        section = AvstarSettings(
            base_url=started.url,
            api_key=SecretStr("sandbox-key"),
            api_key_file=key_file,
            request_timeout_s=timeout_s,
        )
        avstar = Avstar(section, requests_at_once=dispatch.requests_at_once, policy=dispatch.policy)
        try:
            yield Line(started.sandbox, avstar, dispatch, patient)
        finally:
            await avstar.aclose()


async def test_a_batch_that_is_taken_at_once_has_no_failure() -> None:
    async with line() as sut:
        delivered = await sut.delivery.deliver(batch(1, 2))
    assert isinstance(delivered.answer, Booked)
    assert delivered[1:] == (1, "", "", "closed")


async def test_a_refused_batch_is_not_sent_again() -> None:
    async with line() as sut:
        sut.faults({"kind": "status", "status": 422})
        delivered = await sut.delivery.deliver(batch(1))
        assert isinstance(delivered.answer, Refused)
        assert delivered.attempts == 1
        assert delivered.first_failure == delivered.last_failure > ""
        assert sut.sandbox.ledger.totals()["requests"] == 1


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "reset"},
        {"kind": "lost_answer"},
        {"kind": "truncated"},
        {"kind": "not_json"},
        {"kind": "hang", "seconds": 60},
        {"kind": "status", "status": 401},
        {"kind": "status", "status": 404},
        {"kind": "status", "status": 409},
        {"kind": "status", "status": 429},
        {"kind": "status", "status": 429, "retry_after": 0},
        {"kind": "status", "status": 500},
        {"kind": "status", "status": 503, "retry_after": 0, "retry_after_form": "date"},
    ],
)
async def test_every_fault_is_outlasted_under_the_same_key(fault: dict[str, Any]) -> None:
    async with line(timeout_s=0.2) as sut:
        sut.faults(fault | {"count": 3})
        delivered = await sut.delivery.deliver(batch(1, 2))
        assert isinstance(delivered.answer, Booked)
        # Booked in one piece: under another key the second try would have found duplicates.
        assert (delivered.answer.accepted, delivered.answer.duplicates) == (2, 0)
        assert delivered.attempts >= 4  # a key that is still in flight may cost one more
        assert "" < delivered.first_failure <= delivered.last_failure
        totals = sut.sandbox.ledger.totals()
        assert (totals["requests"], totals["batches"], totals["duplicates_booked"]) == (
            delivered.attempts,
            1,
            0,
        )


async def test_retry_after_pauses_everybody() -> None:
    async with line(requests_at_once=3) as sut:
        sut.faults({"kind": "status", "status": 429, "retry_after": 1, "count": 1})
        everything = await asyncio.gather(*(sut.delivery.deliver(batch(n)) for n in range(12)))
        limited_at = next(at for at, answer in sut.seen if isinstance(answer, Limited))
        # Those that were in flight beside it may end meanwhile; nothing is started before the second is over.
        meanwhile = [at for at, _ in sut.seen if limited_at + 0.2 < at < limited_at + 1.0]
        assert meanwhile == []
        assert sum(at >= limited_at + 1.0 for at, _ in sut.seen) >= 12 - 3
        assert sorted(one.attempts for one in everything) == [1] * 11 + [2]
        assert sut.sandbox.ledger.totals()["requests"] == 13


async def test_an_overloaded_api_s_retry_after_pauses_everybody_too() -> None:
    async with line(requests_at_once=1) as sut:
        sut.faults({"kind": "status", "status": 503, "retry_after": 1, "count": 1})
        first = asyncio.create_task(sut.delivery.deliver(batch(1)))
        await sut.until(lambda: sut.throttle.pace.paused_s > 0)
        started = time.monotonic()
        await sut.delivery.deliver(batch(2))
        assert time.monotonic() - started >= 0.9
        await first


async def test_a_failing_request_does_not_hold_up_the_others() -> None:
    async with line(requests_at_once=1, backoff_base_s=30, backoff_cap_s=60) as sut:
        sut.faults({"kind": "status", "status": 500, "field": "n", "value": 1})
        random.seed(1)
        stuck = asyncio.create_task(sut.delivery.deliver(batch(1)))
        await sut.until(lambda: len(sut.seen) == 1)
        delivered = await asyncio.wait_for(sut.delivery.deliver(batch(2)), 2)
        assert delivered.attempts == 1
        assert not stuck.done()
        stuck.cancel()


async def test_wrong_credentials_wait_for_the_right_ones(tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    key_file.write_text("wrong")
    async with line(key_file=key_file) as sut:
        tasks = [asyncio.create_task(sut.delivery.deliver(batch(n))) for n in range(5)]
        await sut.until(lambda: len(sut.seen) >= 8)
        assert all(isinstance(answer, Unauthorized) for _, answer in sut.seen)
        key_file.write_text("sandbox-key")
        settled = await asyncio.gather(*tasks)
        assert all(isinstance(one.answer, Booked) for one in settled)


async def test_no_more_requests_at_once_than_allowed() -> None:
    async with line(options=Options(requests_at_once=3), requests_at_once=3) as sut:
        sut.faults({"kind": "latency", "seconds": 0.02})
        settled = await asyncio.gather(*(sut.delivery.deliver(batch(n)) for n in range(20)))
        assert [one.attempts for one in settled] == [1] * 20


async def test_backoff_is_full_jitter_within_its_cap() -> None:
    async with line(backoff_base_s=0.02, backoff_cap_s=0.08) as sut:
        sut.faults({"kind": "status", "status": 500, "count": 12})
        delivered = await sut.delivery.deliver(batch(1))
        assert delivered.attempts == 13
        times = [at for at, _ in sut.seen]
        gaps = [after - before for before, after in pairwise(times)]
        slack = 0.05
        for number, gap in enumerate(gaps):
            assert gap <= min(0.08, 0.02 * 2**number) + slack
        assert sum(gaps) <= 12 * 0.08 * 0.9 + slack  # jitter: not the whole cap each time
        assert sum(gaps) >= 0.08


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "hang", "seconds": 60},
        {"kind": "status", "status": 429, "retry_after": 60},
        {"kind": "status", "status": 500},
    ],
)
async def test_every_wait_ends_when_it_is_cancelled(fault: dict[str, Any]) -> None:
    async with line(requests_at_once=1, backoff_base_s=30, backoff_cap_s=60, timeout_s=60) as sut:
        sut.faults(fault)
        waiting = [asyncio.create_task(sut.delivery.deliver(batch(n))) for n in range(3)]
        await sut.until(lambda: sut.sandbox.ledger.totals()["requests"] >= 1)
        await asyncio.sleep(0.05)
        for task in waiting:
            task.cancel()
        started = time.monotonic()
        ended = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(one, asyncio.CancelledError) for one in ended)
        assert time.monotonic() - started < 0.5
        sut.faults()
        if fault.get("status") != 429:  # a slot is free again, and the pause, if there is one, still holds
            assert (await asyncio.wait_for(sut.delivery.deliver(batch(9)), 2)).attempts == 1
        else:
            assert sut.throttle.pace.paused_s > 50


async def test_a_third_of_all_requests_failing_costs_nothing() -> None:
    async with line() as sut:
        sut.faults(
            {"kind": "status", "status": 429, "probability": 0.09, "retry_after": 0},
            {"kind": "status", "status": 503, "probability": 0.09},
            {"kind": "reset", "probability": 0.1},
            {"kind": "lost_answer", "probability": 0.1},
            {"kind": "reject", "field": "n", "value": 17},
            seed=3,
        )
        batches = [batch(*range(n * 10, n * 10 + 10)) for n in range(150)]
        settled = await asyncio.gather(*map(sut.delivery.deliver, batches))
        answers = [one.answer for one in settled]
        assert all(isinstance(answer, Booked) for answer in answers)
        assert sum(answer.accepted for answer in answers if isinstance(answer, Booked)) == 1499
        assert sum(len(answer.rejected) for answer in answers if isinstance(answer, Booked)) == 1
        totals = sut.sandbox.ledger.totals()
        assert (totals["records"], totals["batches"], totals["duplicates_booked"]) == (1499, 150, 0)
        failed = len(sut.seen) - 150
        assert 40 <= failed <= 120
        assert sum(one.attempts for one in settled) == totals["requests"] == len(sut.seen)
