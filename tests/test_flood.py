"""The flood guard: it holds when nearly all is refused, and only then."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from schemas.batch import Batch
from schemas.letter import Exchange
from streams import metrics
from streams.dispatch.answer import Booked, Refused
from streams.dispatch.delivery import Delivered
from streams.settings import DlqSettings
from streams.validate.flood import Refusals, Rejections

EXCHANGE = Exchange(method="POST", url="http://avstar", request_headers={})


@given(st.lists(st.tuples(st.integers(1, 60), st.floats(0, 1)), min_size=1, max_size=60))
def test_validation_floods_by_the_share_of_the_last_records(windows):
    guard = Rejections(DlqSettings(flood_share=0.5, flood_records=100))
    seen = []
    for records, share in windows:
        rejected = round(records * share)
        seen += [True] * rejected + [False] * (records - rejected)
        flooded = guard.flooded(records, rejected)
        if len(seen) < 100:
            assert not flooded
        if flooded:
            assert sum(seen[-guard.records :]) > 0.5 * guard.records >= 50


def test_a_share_of_one_never_floods():
    guard = Rejections(DlqSettings(flood_share=1, flood_records=1))
    assert not any(guard.flooded(5000, 5000) for _ in range(20))


class Avstar:
    """Refuses while it is ill."""

    def __init__(self):
        self.ill, self.sent = True, 0

    async def deliver(self, batch):
        self.sent += 1
        await asyncio.sleep(0)
        refused = Refused(EXCHANGE, 1, 400, "400")
        answer = refused if self.ill else Booked(EXCHANGE, 1, 200, batch.records, 0, [])
        return Delivered(answer, 1, "", "", "closed")


async def test_dispatch_holds_then_tries_one_at_a_time_until_a_record_is_booked():
    avstar, states = Avstar(), []
    guard = Refusals(avstar, DlqSettings(flood_refused=5, flood_pause_s=0.05), observe=states.append)
    one, many = Batch("k", "b", b"", 1), Batch("k", "b", b"", 100)
    for _ in range(20):
        await guard.deliver(many)  # a refused whole names nobody
    assert not guard.holds
    for _ in range(5):
        await guard.deliver(one)
    assert guard.holds
    assert avstar.sent == 25
    waiting = [asyncio.create_task(guard.deliver(one)) for _ in range(6)]
    await asyncio.sleep(0.12)
    assert avstar.sent in (26, 27)
    avstar.ill = False
    await asyncio.wait_for(asyncio.gather(*waiting), 2)
    assert avstar.sent == 31
    assert states == [True, False]


async def test_a_record_that_is_booked_between_refused_ones_keeps_it_open():
    avstar = Avstar()
    guard = Refusals(avstar, DlqSettings(flood_refused=3, flood_pause_s=60))
    for _ in range(10):
        for ill in (True, True, False):
            avstar.ill = ill
            await guard.deliver(Batch("k", "b", b"", 1))
    assert not guard.holds


def test_the_status_page_can_say_what_is_held():
    metrics.FLOOD_GUARD.labels("avion.raw", 3).set(1)
    metrics.FLOOD_GUARD.labels("avstar.batches", -1).set(1)
    metrics.FLOOD_GUARD.labels("avion.raw", 4).set(0)
    assert sorted(metrics.held()) == ["avion.raw 3", "avstar.batches"]
    metrics.FLOOD_GUARD.clear()
    assert metrics.held() == []


async def test_none_is_no_guard():
    guard = Refusals(Avstar(), DlqSettings(flood_refused=0))
    for _ in range(300):
        await guard.deliver(Batch("k", "b", b"", 1))
    assert not guard.holds
