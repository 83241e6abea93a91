"""The pace: no minute of the account above its ceiling, whoever joins, leaves or dies; nothing saved up."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.dispatch.pace import Pace
from streams.dispatch.rate_limit import RateLimit, read
from streams.dispatch.retry_after import CAP_S


class Clock:
    def __init__(self) -> None:
        self.now = 5000.0

    def __call__(self) -> float:
        return self.now


def sent(clock: Clock, pace: Pace, until: float, late_s: float = 0.0) -> list[float]:
    """The times of a worker's requests that always has one to send, each ``late_s`` after it was due."""
    times = []
    while clock.now + pace.wait_s + late_s < until:
        clock.now += pace.wait_s + late_s
        pace.enter()
        times.append(clock.now)
    clock.now = until
    return times


def most_in(times: list[float], window_s: float) -> int:
    """The most of ``times`` (ascending) in any half-open window."""
    most = first = 0
    for last, at in enumerate(times):
        while times[first] <= at - window_s:
            first += 1
        most = max(most, last - first + 1)
    return most


def test_without_a_ceiling_there_is_no_wait() -> None:
    pace = Pace(0, Clock())
    for _ in range(100):
        assert pace.wait_s == 0
        pace.enter()


@pytest.mark.parametrize("late_s", [0.0, 0.004, 0.02])
def test_requests_are_evenly_spaced_and_timers_delays_do_not_add_up(late_s: float) -> None:
    clock = Clock()
    pace = Pace(600, clock)
    times = sent(clock, pace, clock.now + 120, late_s)
    gaps = [after - before for before, after in pairwise(times)]
    assert min(gaps) >= 0.1
    assert max(gaps) <= 0.11
    assert 0.9 * 600 <= most_in(times, 60) <= 600


def test_nothing_is_saved_up_while_idle() -> None:
    clock = Clock()
    pace = Pace(60, clock)
    clock.now += 600
    assert pace.wait_s == 0
    pace.enter()
    assert pace.wait_s >= 1


def test_a_new_owner_starts_with_a_wait() -> None:
    clock = Clock()
    pace = Pace(600, clock)
    clock.now += 600
    pace.take(1 / 4)
    assert 0.4 <= pace.wait_s <= 0.45


@settings(max_examples=60)
@given(
    per_minute=st.integers(10, 3000),
    total=st.integers(1, 12),
    moves=st.lists(
        st.tuples(st.floats(0.5, 40), st.integers(1, 5), st.integers(0, 2**16), st.booleans()),
        min_size=2,
        max_size=6,
    ),
    late_s=st.sampled_from([0.0, 0.001, 0.02]),
)
def test_no_minute_is_above_the_ceiling_while_partitions_move(
    per_minute: int, total: int, moves: list[tuple[float, int, int, bool]], late_s: float
) -> None:
    """Each move is one generation of the group: for so long, so many workers, partitions dealt to them."""
    clock = Clock()
    times: list[float] = []
    workers = 1
    paces: dict[int, Pace] = {}
    for lasts_s, members, dealing, survive in moves:
        workers = max(workers, members)
        began = clock.now
        owned = [sum(1 for p in range(total) if (p + dealing) % members == m) for m in range(members)]
        if not survive:
            paces.clear()
        for member, partitions in enumerate(owned):
            clock.now = began
            if not partitions:
                continue
            pace = paces.setdefault(member, Pace(per_minute, clock))
            pace.take(partitions / total)
            times += sent(clock, pace, began + lasts_s, late_s)
        clock.now = began + lasts_s
    # A minute that holds the end of one generation and the start of the next may round up once per worker.
    assert most_in(sorted(times), 60) <= per_minute + workers


@pytest.mark.parametrize("workers", [1, 2, 3, 8])
@pytest.mark.parametrize("per_minute", [5, 60, 600, 601, 6000])
def test_a_steady_group_uses_the_ceiling_and_keeps_it(per_minute: int, workers: int) -> None:
    times: list[float] = []
    for member in range(workers):
        clock = Clock()
        pace = Pace(per_minute, clock)
        pace.take(len(range(member, 8, workers)) / 8)
        clock.now += member * 0.0137  # they are not in step
        times += sent(clock, pace, 5000 + 180, late_s=0.001)
    times.sort()
    if per_minute >= workers:
        assert most_in(times, 60) <= per_minute
    if per_minute >= 600:
        assert len([at for at in times if 5060 <= at < 5120]) >= 0.9 * per_minute


def test_a_pause_holds_everything_and_then_the_pace_goes_on() -> None:
    clock = Clock()
    pace = Pace(600, clock)
    pace.pause(30)
    pace.pause(10)  # a shorter one does not shorten it
    assert pace.wait_s == pace.paused_s == 30
    times = sent(clock, pace, clock.now + 40)
    assert times[0] == 5030
    assert all(after - before >= 0.1 for before, after in pairwise(times))


def test_the_api_s_own_ceiling_is_kept_where_it_is_lower() -> None:
    clock = Clock()
    pace = Pace(0, clock)
    pace.learn(RateLimit(float("inf"), 0, 60))
    assert most_in(sent(clock, pace, clock.now + 120), 60) in range(54, 61)
    slow = Pace(30, clock)
    slow.learn(RateLimit(float("inf"), 0, 60))
    assert most_in(sent(clock, slow, clock.now + 120), 60) <= 30


@pytest.mark.parametrize(
    "policy", ['"a";q=1;w=600', '"d";q=1;w=31536000', '"burst";q=60;w=60, "month";q=10000;w=2592000']
)
@pytest.mark.parametrize("left", ["", '"d";r=1;t=31536000', '"month";r=3;t=999999'])
def test_no_policy_of_the_api_s_stops_it_for_good(policy: str, left: str) -> None:
    clock = Clock()
    pace = Pace(0, clock)
    pace.take(1 / 64)
    if told := read(left, policy):
        pace.learn(told)
    for _ in range(3):
        assert pace.wait_s <= CAP_S
        clock.now += pace.wait_s
        pace.enter()


def test_what_is_left_is_spread_over_the_time_that_is_left() -> None:
    clock = Clock()
    pace = Pace(600, clock)
    pace.take(1 / 2)
    pace.enter()
    pace.learn(RateLimit(10, 20, 600))  # 5 of the 10 are ours
    times = sent(clock, pace, clock.now + 20)
    assert len(times) in (4, 5)
    assert all(after - before >= 3.9 for before, after in pairwise(times))
    assert len(sent(clock, pace, clock.now + 20)) >= 90  # the quota is whole again: 5 a second are ours


def test_with_nothing_left_it_waits_until_the_quota_is_whole() -> None:
    clock = Clock()
    pace = Pace(600, clock)
    pace.learn(RateLimit(0, 17, 600))
    assert pace.wait_s == 17
