"""What dispatch holds of batches is bounded over all partitions, however large they are."""

import asyncio
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
from batches import batch
from hypothesis import given
from hypothesis import strategies as st

from schemas.batch import Batch, Source
from schemas.letter import Exchange
from streams.dispatch.answer import Booked
from streams.dispatch.delivery import Delivered
from streams.dispatch.held import Held
from streams.dispatch.lane import DispatchLane
from streams.settings import DispatchSettings
from topics.connection import KafkaSettings

EXCHANGE = Exchange(method="POST", url="http://avstar", request_headers={})


@given(st.lists(st.integers(1, 40), max_size=60), st.integers(1, 100))
def test_full_from_the_limit_down_to_half_of_it(sizes: list[int], most: int) -> None:
    held, total = Held(most), 0
    for size in sizes:
        held.take(size)
        total += size
        assert held.is_full == (total >= most)
    for size in sizes:
        before = held.is_full
        held.give(size)
        total -= size
        assert held.is_full == (before and total > most // 2)


class Owned:
    """A partition whose commits do nothing; notes whether it is held back."""

    def __init__(self) -> None:
        self.position, self.paused = 0, False

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    def ended(self, task: asyncio.Task[None]) -> None:
        assert task.cancelled() or task.exception() is None

    async def commit(self, produce: Any, position: int) -> None:
        self.position = position


class Avstar:
    """Books when it is let to; counts."""

    def __init__(self) -> None:
        self.open, self.seen = asyncio.Event(), Counter[str]()

    async def deliver(self, sent: Batch) -> Delivered:
        await self.open.wait()
        self.seen[sent.key] += 1
        return Delivered(Booked(EXCHANGE, 1, 200, sent.records, 0, []), 1, "", "", "closed")


def record(offset: int) -> Any:
    made = batch(offset)
    headers = made.headers(Source(0, offset, offset, 1, "0"), ["f"], ["spot"], 0)
    return SimpleNamespace(offset=offset, key=made.key.encode(), value=made.body, headers=headers)


@pytest.mark.parametrize("batches", [1, 3, 40])
async def test_partitions_are_held_back_together_and_none_starves(batches: int) -> None:
    records = [record(offset) for offset in range(2 * batches)]
    held, avstar = Held(3 * len(records[0].value)), Avstar()
    settings = DispatchSettings(per_partition=15)
    owned = Owned(), Owned()
    lanes = [DispatchLane(one, avstar, settings, KafkaSettings(), held=held) for one in owned]  # type: ignore[arg-type]
    lanes[0].feed(records[:batches])
    assert owned[0].paused == (batches >= 3)
    lanes[1].feed(records[batches:])
    assert owned[1].paused == (batches >= 3)
    avstar.open.set()
    async with asyncio.timeout(10):
        while any(one.paused for one in owned) or owned[1].position < 2 * batches:
            await asyncio.sleep(0.01)
    assert avstar.seen == Counter(one.key.decode() for one in records)
    assert not held.is_full
    for lane in lanes:
        await lane.finish()
