"""Every answer and every fault of the network, at the first try, a retry and the last: what comes of it."""

import asyncio
import random
from typing import Any, NamedTuple

import pytest
from sending import Line, batch, line

from schemas.batch import Batch, Source
from schemas.letter import Exchange
from streams.dispatch import halving
from streams.dispatch.answer import Answer, NoToken
from streams.dispatch.delivery import Delivery
from streams.dispatch.message import Message
from streams.dispatch.settlement import Settlement, settle
from streams.lab.sandbox import Options, running
from streams.lab.service import free_port


class Means(NamedTuple):
    """What an answer means."""

    settles: bool  #: whether it ends the batch; else it is sent again
    letters: list[str]  #: the reasons of the dead letters; if it does not settle, those at the last try
    waits: str  #: who waits before it is sent again: the batch, or the whole worker
    errors: tuple[int, int] = (0, 0)  #: what the breaker counts: calls, errors


TAKEN = Means(True, [], "", (1, 0))
PARTLY = Means(True, ["rejected"], "", (1, 0))
REFUSED = Means(True, ["rejected", "rejected"], "", (1, 0))  # in halves, until each record is told why
RETRY = Means(False, ["gave_up"], "batch", (1, 1))
AGAIN = Means(False, ["gave_up"], "batch")
OVERLOADED = Means(False, ["gave_up"], "worker", (1, 1))
LIMITED = Means(False, [], "worker")
UNAUTHORIZED = Means(False, [], "worker")


def status(number: int, **more: Any) -> dict[str, Any]:
    return {"kind": "status", "status": number} | more


EVERY: dict[str, tuple[dict[str, Any], Means]] = {
    "200": ({"kind": "latency"}, TAKEN),
    "200, slowly": ({"kind": "slow", "seconds": 0.05}, TAKEN),
    "207": ({"kind": "reject", "field": "n", "value": 2}, PARTLY),
    "400": (status(400), REFUSED),
    "401": (status(401), UNAUTHORIZED),
    "403": (status(403), UNAUTHORIZED),
    "404": (status(404), RETRY),
    "408": (status(408), AGAIN),
    "409": (status(409), AGAIN),
    "413": (status(413), REFUSED),
    "418": (status(418), RETRY),
    "422": (status(422), REFUSED),
    "429": (status(429), LIMITED),
    "429, seconds": (status(429, retry_after=1), LIMITED),
    "429, date": (status(429, retry_after=1, retry_after_form="date"), LIMITED),
    "500": (status(500), RETRY),
    "502": (status(502), RETRY),
    "503": (status(503), RETRY),
    "503, seconds": (status(503, retry_after=1), OVERLOADED),
    "503, date": (status(503, retry_after=1, retry_after_form="date"), OVERLOADED),
    "504": (status(504), RETRY),
    "reset before it is read": ({"kind": "reset", "at": "headers"}, RETRY),
    "reset before it is booked": ({"kind": "reset"}, RETRY),
    "answer lost": ({"kind": "lost_answer"}, RETRY),
    "hang": ({"kind": "hang", "seconds": 30}, RETRY),
    "body too slow": ({"kind": "slow", "seconds": 30}, RETRY),
    "half a body": ({"kind": "truncated"}, RETRY),
    "not JSON": ({"kind": "not_json"}, RETRY),
}
TABLE = pytest.mark.parametrize(("fault", "means"), EVERY.values(), ids=EVERY.keys())

SOURCE = Source(0, 100, 101, 2, "0-1")


async def ended(sut: Line, one: Batch) -> Settlement:
    how = await asyncio.wait_for(halving.deliver(sut.delivery, one), 15)
    settled = settle(Message(one, SOURCE, {}), how, {})
    assert settled.receipt
    assert settled.receipt.attempts == how.delivered.attempts
    assert settled.receipt.dlq == [key for key, _ in settled.letters]
    return settled


def is_taken(settled: Settlement) -> bool:
    receipt = settled.receipt
    assert receipt
    return (receipt.status, receipt.accepted, receipt.http_status) == (
        "delivered",
        2,
        200,
    ) and not settled.letters


def timeout_s(fault: dict[str, Any]) -> float:
    """Short only where it is what ends the request: this machine may be busy."""
    return 0.7 if fault.get("seconds") == 30 else 10.0


def strikes(fault: dict[str, Any], means: Means) -> dict[str, Any]:
    """Once; what settles a batch is no accident, and strikes its parts as well."""
    return fault if means.settles else fault | {"count": 1}


def is_as(settled: Settlement, means: Means) -> bool:
    """Whether the receipt and the dead letters say what ``means`` says."""
    receipt = settled.receipt
    assert receipt
    for _, letter in settled.letters:
        assert letter.exchange
        assert letter.exchange["request_headers"]["Authorization"] == "***"
        assert "" < letter.first_failure <= letter.last_failure
        assert letter.attempts == receipt.attempts
    if means.settles:
        assert receipt.accepted == 2 - len(means.letters)
        assert len(receipt.rejected) == len(means.letters)
    assert receipt.status == ("delivered" if means.settles else "dead_lettered")
    return [letter.reason for _, letter in settled.letters] == means.letters


@TABLE
async def test_first_try(fault: dict[str, Any], means: Means) -> None:
    async with line(timeout_s=timeout_s(fault)) as sut:
        sut.faults(strikes(fault, means))
        settled = await ended(sut, batch(1, 2))
        assert settled.receipt
        if means.settles:
            assert is_as(settled, means)
            assert settled.receipt.attempts == (3 if means is REFUSED else 1)
        else:
            assert is_taken(settled)
            assert settled.receipt.attempts >= 2
        assert sut.sandbox.ledger.totals()["duplicates_booked"] == 0


@TABLE
async def test_retry(fault: dict[str, Any], means: Means) -> None:
    async with line(timeout_s=timeout_s(fault)) as sut:
        sut.faults(status(500, count=1), strikes(fault, means))
        settled = await ended(sut, batch(1, 2))
        assert settled.receipt
        if means.settles:
            assert is_as(settled, means)
            assert settled.receipt.attempts == (4 if means is REFUSED else 2)
        else:
            assert is_taken(settled)
            assert settled.receipt.attempts >= 3


@TABLE
async def test_last_try(fault: dict[str, Any], means: Means) -> None:
    async with line(timeout_s=timeout_s(fault), give_up_after_attempts=2) as sut:
        sut.faults(status(500, count=1), strikes(fault, means))
        settled = await ended(sut, batch(1, 2))
        assert settled.receipt
        if means.settles or means.letters:
            assert is_as(settled, means)
            assert settled.receipt.attempts == (4 if means is REFUSED else 2)
        else:  # not the batch's fault: it waits for as long as it takes
            assert is_taken(settled)
            assert settled.receipt.attempts == 3


@TABLE
async def test_who_waits_and_what_the_breaker_counts(fault: dict[str, Any], means: Means) -> None:
    async with line(timeout_s=timeout_s(fault), backoff_base_s=30, backoff_cap_s=60) as sut:
        random.seed(1)  # full jitter may be nearly nothing
        sut.faults(fault | {"count": 1})
        first = asyncio.create_task(sut.delivery.deliver(batch(1, 2)))
        await sut.until(lambda: len(sut.seen) == 1)
        await asyncio.sleep(0)
        assert sut.throttle.breaker.counts == means.errors
        if means.waits == "worker":
            assert sut.throttle.pace.paused_s > max(1, fault.get("retry_after", 0) - 1)
            other = asyncio.create_task(sut.delivery.deliver(batch(3)))
            await asyncio.sleep(0.1)
            assert not other.done()
            other.cancel()
        else:
            assert sut.throttle.pace.paused_s == 0
            await asyncio.wait_for(sut.delivery.deliver(batch(3)), 10)
        assert first.done() == means.settles
        first.cancel()


async def test_nobody_listens() -> None:
    port = free_port()
    async with line() as sut, line(url=f"http://127.0.0.1:{port}", give_up_after_attempts=3) as nowhere:
        settled = await ended(nowhere, batch(1, 2))
        assert is_as(settled, RETRY)
        assert settled.receipt
        assert (settled.receipt.http_status, settled.receipt.attempts) == (0, 3)
        assert nowhere.throttle.breaker.counts == (3, 3)
        async with running(Options(port=port)):
            assert is_taken(await ended(nowhere, batch(1, 2)))
        assert sut.seen == []


class WithoutToken:
    """A client whose token endpoint is ill."""

    async def send(self, key: str, body: bytes, headers: dict[str, str], records: int) -> Answer:
        return NoToken(Exchange(method="POST", url="", request_headers={}), 0, "no token", 20.0)


async def test_without_a_token_the_whole_worker_waits_and_nothing_is_given_up() -> None:
    async with line(give_up_after_attempts=1) as sut:
        delivery = Delivery(WithoutToken(), sut.settings, sut.throttle)
        task = asyncio.create_task(delivery.deliver(batch(1)))
        await sut.until(lambda: sut.throttle.pace.paused_s > 19)
        assert sut.throttle.breaker.counts == (0, 0)
        assert not task.done()
        task.cancel()
