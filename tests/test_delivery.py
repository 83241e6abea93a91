"""Delivery against the sandbox: whatever it does, every batch is settled once, and nobody hurries a limit."""

import asyncio
import gc
import random
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from sending import batch, line

from streams.dispatch.answer import Booked, Limited, Refused, Unauthorized
from streams.lab.sandbox import Options
from streams.settings import BreakerSettings


async def test_a_batch_that_is_taken_at_once_has_no_failure() -> None:
    async with line() as sut:
        delivered = await sut.delivery.deliver(batch(1, 2))
    assert isinstance(delivered.answer, Booked)
    assert delivered[1:] == (1, "", "", "closed")


async def test_a_batch_that_has_ended_is_kept_by_nobody() -> None:
    """Not even by a cycle that waits for the collector: batches are large."""
    async with line(backoff_base_s=0.01) as sut:
        sut.faults({"kind": "status", "status": 500, "count": 1})
        one = batch(1, 2)
        before = sys.getrefcount(one)
        gc.disable()
        try:
            await sut.delivery.deliver(one)
            assert sys.getrefcount(one) == before
        finally:
            gc.enable()


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


ILL = BreakerSettings(minimum_calls=10, open_s=0.3, window_s=10)


async def test_an_outage_opens_the_breaker_and_one_probe_after_it_closes_it() -> None:
    async with line(breaker=ILL, requests_at_once=4) as sut:
        sut.faults({"kind": "status", "status": 503})
        tasks = [asyncio.create_task(sut.delivery.deliver(batch(n))) for n in range(20)]
        await sut.until(lambda: sut.throttle.breaker.state == "open")
        assert len(sut.seen) <= 10 + 4  # those that were under way
        assert sut.delivery.holds
        before = sut.sandbox.ledger.totals()["requests"]
        await asyncio.sleep(1.0)
        assert 2 <= sut.sandbox.ledger.totals()["requests"] - before <= 4  # one each 0.3 s
        sut.faults()
        settled = await asyncio.gather(*tasks)
        assert all(isinstance(one.answer, Booked) for one in settled)
        assert [one.breaker for one in settled].count("half-open") == 1
        assert sut.throttle.breaker.state == "closed"
        assert not sut.delivery.holds
        totals = sut.sandbox.ledger.totals()
        assert (totals["batches"], totals["duplicates_booked"]) == (20, 0)


async def test_without_a_batch_to_try_with_more_are_wanted() -> None:
    async with line(breaker=ILL) as sut:
        sut.faults({"kind": "status", "status": 503})
        tasks = [asyncio.create_task(sut.delivery.deliver(batch(n))) for n in range(10)]
        await sut.until(lambda: sut.throttle.breaker.state == "open")
        for task in tasks:  # their partitions were revoked
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert not sut.delivery.holds
        sut.faults()
        delivered = await asyncio.wait_for(sut.delivery.deliver(batch(99)), 5)
        assert delivered.breaker == "half-open"


async def test_a_cancelled_probe_leaves_the_turn_to_another() -> None:
    async with line(breaker=ILL) as sut:
        sut.faults({"kind": "status", "status": 503})
        tasks = [asyncio.create_task(sut.delivery.deliver(batch(n))) for n in range(10)]
        await sut.until(lambda: sut.throttle.breaker.state == "open")
        for task in tasks:
            task.cancel()
        sut.faults({"kind": "hang", "seconds": 60, "count": 1})
        probe = asyncio.create_task(sut.delivery.deliver(batch(20)))
        await sut.until(lambda: sut.throttle.breaker.state == "half-open")
        waiting = asyncio.create_task(sut.delivery.deliver(batch(21)))
        await asyncio.sleep(0.5)
        assert not waiting.done()
        probe.cancel()
        assert isinstance((await asyncio.wait_for(waiting, 2)).answer, Booked)


async def test_limits_and_refusals_leave_the_breaker_closed() -> None:
    async with line(breaker=ILL) as sut:
        sut.faults(
            {"kind": "status", "status": 429, "count": 20, "retry_after": 0},
            {"kind": "status", "status": 422, "count": 10},
            {"kind": "status", "status": 409, "count": 10},
        )
        await asyncio.gather(*(sut.delivery.deliver(batch(n)) for n in range(40)))
        assert sut.throttle.breaker.state == "closed"
        assert sut.throttle.breaker.counts.errors == 0


async def test_a_batch_is_not_given_up_because_avstar_is_down() -> None:
    ill = BreakerSettings(minimum_calls=4, open_s=0.05)
    async with line(breaker=ill, give_up_after_attempts=3) as sut:
        sut.faults({"kind": "status", "status": 503})
        tasks = [asyncio.create_task(sut.delivery.deliver(batch(n))) for n in range(4)]
        await sut.until(lambda: len(sut.seen) >= 4 * 3 + 4)  # each of them was tried more than three times
        assert not any(task.done() for task in tasks)
        sut.faults()
        assert all(isinstance(one.answer, Booked) for one in await asyncio.gather(*tasks))


async def test_requests_are_paced_without_bursts() -> None:
    async with line(requests_per_minute=1200) as sut:  # one each 52 ms
        started = time.time()
        sut.throttle.share(4, 8)  # ours: one each 104 ms
        await asyncio.gather(*(sut.delivery.deliver(batch(n)) for n in range(15)))
        arrivals = [arrival.at for arrival in sut.sandbox._arrivals]
        assert arrivals[0] - started >= 0.1  # a new owner has nothing saved up
        assert arrivals[-1] - arrivals[0] >= 14 * 0.1 - 0.05
        assert min(after - before for before, after in pairwise(arrivals)) > 0.03


async def test_the_limit_that_the_api_tells_is_kept_without_being_refused() -> None:
    async with line(options=Options(requests_per_minute=600)) as sut:
        await asyncio.gather(*(sut.delivery.deliver(batch(n)) for n in range(25)))
        assert len(sut.seen) == 25
        gaps = [after - before for (before, _), (after, _) in pairwise(sut.seen)]
        assert (
            sum(gaps[8:]) / len(gaps[8:]) >= 0.09
        )  # of the first few, some were sent before the first answer


async def test_few_requests_are_in_flight_while_the_api_is_slow() -> None:
    async with line(requests_at_once=12) as sut:
        await asyncio.gather(*(sut.delivery.deliver(batch(n)) for n in range(80)))
        assert sut.throttle.concurrency.limit > 3
        sut.faults({"kind": "latency", "seconds": 0.15})
        await asyncio.gather(*(sut.delivery.deliver(batch(n)) for n in range(100, 160)))
        assert sut.throttle.concurrency.limit <= 5


async def test_the_table_of_statuses_can_be_changed() -> None:
    async with line(policy={"404": "refuse", "5xx": "refuse", "503": "retry"}) as sut:
        sut.faults(
            {"kind": "status", "status": 404, "count": 1},
            {"kind": "status", "status": 503, "count": 2},
            {"kind": "status", "status": 500, "count": 1},
        )
        first = await sut.delivery.deliver(batch(1))
        second = await sut.delivery.deliver(batch(2))
        assert isinstance(first.answer, Refused)
        assert isinstance(second.answer, Refused)
        assert (first.attempts, second.attempts) == (1, 3)
