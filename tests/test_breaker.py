"""The circuit breaker against a clock of its own: when it opens, who may try, what closes it."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.dispatch.breaker import Breaker, State
from streams.settings import BreakerSettings


class Circuit:
    """A breaker that opens above 5 % of at least 20 calls in 60 s, for 5 s; ``now`` is its clock."""

    def __init__(self, **settings: float) -> None:
        self.now = 1000.0
        self.seen: list[State] = []
        usual = {"error_rate": 0.05, "window_s": 60, "minimum_calls": 20, "open_s": 5}
        self.breaker = Breaker(
            BreakerSettings.model_validate(usual | settings),
            lambda: self.now,
            lambda state, _: self.seen.append(state),
        )

    def call(self, *outcomes: bool | None, every_s: float = 0.0) -> None:
        """Requests, one after the other; True: it failed."""
        for failed in outcomes:
            self.breaker.leave(self.breaker.enter(), failed)
            self.now += every_s

    def opened(self) -> "Circuit":
        self.call(*[False] * 18, True, True)
        assert self.breaker.state == "open"
        return self


def test_opens_above_its_error_rate_and_not_at_it() -> None:
    circuit = Circuit()
    circuit.call(*[False] * 19, True)  # 5 %
    assert circuit.breaker.state == "closed"
    circuit.call(True)
    assert circuit.breaker.state == "open"
    assert circuit.breaker.wait_s == 5


def test_a_few_calls_say_nothing() -> None:
    circuit = Circuit()
    circuit.call(*[True] * 19)
    assert circuit.breaker.state == "closed"
    circuit.call(True)
    assert circuit.breaker.state == "open"


def test_what_says_nothing_of_the_api_does_not_count() -> None:
    circuit = Circuit()
    circuit.call(*[None] * 500, *[True] * 19)
    assert circuit.breaker.state == "closed"
    assert circuit.breaker.counts == (19, 19)


def test_errors_leave_the_window() -> None:
    circuit = Circuit()
    circuit.call(*[True] * 10)
    circuit.now += 61
    circuit.call(*[False] * 30)
    assert circuit.breaker.state == "closed"
    assert circuit.breaker.counts == (30, 0)


@given(st.lists(st.tuples(st.floats(0, 30), st.booleans()), max_size=200))
def test_counts_what_the_window_holds(calls: list[tuple[float, bool]]) -> None:
    circuit = Circuit(minimum_calls=10_000)
    times = []
    for pause_s, failed in calls:
        circuit.now += pause_s
        circuit.call(failed)
        times.append((circuit.now, failed))
    counted = circuit.breaker.counts
    # A second of the window comes or goes as a whole.
    for at_least, window_s in ((True, 59), (False, 60)):
        held = [failed for at, failed in times if at > circuit.now - window_s]
        if at_least:
            assert counted.calls >= len(held)
            assert counted.errors >= sum(held)
        else:
            assert counted.calls <= len(held)
            assert counted.errors <= sum(held)


def test_one_request_tries_and_closes_it() -> None:
    circuit = Circuit().opened()
    circuit.now += 4.9
    assert circuit.breaker.wait_s == pytest.approx(0.1)
    circuit.now += 0.2
    assert circuit.breaker.wait_s == 0
    ticket = circuit.breaker.enter()
    assert circuit.breaker.state == "half-open"
    assert math.isinf(circuit.breaker.wait_s)
    circuit.breaker.leave(ticket, failed=False)
    assert circuit.breaker.state == "closed"
    assert circuit.breaker.counts == (0, 0)  # the errors of before do not open it again
    assert circuit.seen == ["open", "half-open", "closed"]


def test_a_failed_probe_opens_it_again() -> None:
    circuit = Circuit().opened()
    for _ in range(3):
        circuit.now += 5
        circuit.call(True)
        assert (circuit.breaker.state, circuit.breaker.wait_s) == ("open", 5)


def test_a_probe_without_an_outcome_leaves_the_turn_to_the_next() -> None:
    circuit = Circuit().opened()
    circuit.now += 5
    circuit.call(None)  # cancelled, or told to come later
    assert circuit.breaker.wait_s == 0
    circuit.call(False)
    assert circuit.breaker.state == "closed"


def test_answers_from_before_say_nothing_of_now() -> None:
    circuit = Circuit()
    early = [circuit.breaker.enter() for _ in range(4)]
    circuit.opened()
    circuit.breaker.leave(early[0], failed=False)
    assert circuit.breaker.state == "open"
    circuit.now += 5
    probe = circuit.breaker.enter()
    circuit.breaker.leave(early[1], failed=True)
    circuit.breaker.leave(early[2], failed=False)
    assert circuit.breaker.state == "half-open"
    circuit.breaker.leave(probe, failed=False)
    circuit.breaker.leave(early[3], failed=True)
    assert circuit.breaker.counts == (0, 0)
