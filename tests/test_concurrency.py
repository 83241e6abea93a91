"""Adaptive concurrency on simulated links: near the ceiling while the API is well, few while it queues."""

import heapq
import random
from collections.abc import Callable

import pytest

from streams.dispatch.concurrency import Concurrency

Latency = Callable[[float, int], float]  # (seconds since the start, requests in flight) → seconds


class Link:
    """An API that answers after ``latency``, and a client that always has something to send."""

    def __init__(self, latency: Latency, ceiling: int = 15, noise: float = 0.1) -> None:
        self.limit = Concurrency(ceiling)
        self._latency, self._noise = latency, noise
        self._random = random.Random(1)
        self._ends: list[tuple[float, float]] = []
        self.now = 0.0

    def run(self, seconds: float) -> list[int]:
        """Go on for so long; the requests in flight, looked at whenever one ends."""
        seen = []
        until = self.now + seconds
        while self.now < until:
            while not self.limit.full:
                self.limit.enter()
                took = self._latency(self.now, self.limit.in_flight)
                took *= self._random.uniform(1 - self._noise, 1 + self._noise)
                heapq.heappush(self._ends, (self.now + took, took))
            self.now, took = heapq.heappop(self._ends)
            self.limit.leave()
            self.limit.learn(took)
            seen.append(self.limit.in_flight + 1)
        return seen


def mean(seen: list[int]) -> float:
    return sum(seen) / len(seen)


def queue(service_s: float, at_once: Callable[[float], float]) -> Latency:
    """So many requests are served at once; the others wait for their turn."""
    return lambda now, in_flight: service_s * max(1.0, in_flight / at_once(now))


@pytest.mark.parametrize("latency_s", [0.005, 0.1, 1.0])
@pytest.mark.parametrize("noise", [0.0, 0.2, 0.4])
def test_settles_at_the_ceiling_of_an_api_that_is_well(latency_s: float, noise: float) -> None:
    link = Link(lambda *_: latency_s, noise=noise)
    link.run(100 * latency_s)
    assert mean(link.run(1000 * latency_s)) > 13.5


@pytest.mark.parametrize("knee", [2, 4, 8])
def test_shrinks_to_what_the_api_serves_at_once(knee: int) -> None:
    link = Link(queue(0.2, lambda _: knee))
    link.run(30)
    seen = link.run(600)  # for long, too: its idea of a healthy latency does not drift away
    assert 0.6 * knee <= mean(seen) <= 1.6 * knee
    assert mean(seen[-500:]) <= 1.6 * knee


def test_uses_an_api_that_queues_nearly_as_well_as_all_at_once_would() -> None:
    link = Link(queue(0.2, lambda _: 4))
    link.run(30)
    assert len(link.run(300)) / 300 >= 0.85 * 4 / 0.2


def test_finds_its_way_back_when_the_api_recovers() -> None:
    link = Link(queue(0.2, lambda now: 3 if 60 < now < 120 else 100))
    assert mean(link.run(60)[100:]) > 13
    link.run(20)
    assert mean(link.run(40)) < 5
    link.run(15)
    assert mean(link.run(60)) > 13


def test_shrinks_when_capacity_goes_down_slowly() -> None:
    link = Link(queue(0.2, lambda now: max(3.0, 15 - now / 20)))
    link.run(240)
    assert mean(link.run(120)) < 5


def test_a_jump_that_is_not_ours_is_got_used_to() -> None:
    link = Link(lambda now, _: 0.1 if now < 30 else 0.4)
    link.run(30)
    jumped = link.run(20)
    assert min(jumped) < 5  # at first it might be a queue
    link.run(160)
    assert mean(link.run(60)) > 13


def test_a_slow_ramp_that_is_not_ours_costs_little() -> None:
    link = Link(lambda now, _: 0.1 * (1 + now / 300))
    link.run(20)
    assert mean(link.run(580)) > 9


def test_an_idle_link_does_not_grow() -> None:
    limit = Concurrency(15)
    for _ in range(100):
        limit.enter()
        limit.leave()
        limit.learn(0.1)
    assert limit.limit <= 4


def test_shrinks_once_a_round_when_it_is_refused() -> None:
    link = Link(lambda *_: 0.1)
    link.run(20)
    assert link.limit.limit == 15
    for _ in range(10):
        link.limit.refused()
    assert link.limit.limit == 9
    assert mean(link.run(60)) > 13


def test_a_share_of_the_ceiling_is_kept_and_given_back() -> None:
    link = Link(lambda *_: 0.1)
    link.run(20)
    link.limit.take(5)
    link.run(2)
    assert max(link.run(20)) == 5
    link.limit.take(15)
    link.run(20)
    assert mean(link.run(20)) > 13
