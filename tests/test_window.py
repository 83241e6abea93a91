"""The window: order, size and patience, whatever pattern records arrive in."""

from hypothesis import given
from hypothesis import strategies as st

from streams.validate.window import Window

#: (seconds since the last arrival, records that arrive), as a consumer might get them.
ARRIVALS = st.lists(st.tuples(st.floats(0, 3, allow_nan=False), st.integers(0, 25)), max_size=40)
LIMITS = st.integers(1, 20)
BYTES = st.integers(1, 60)
SECONDS = st.floats(0.01, 2)


def size_of(records):
    """0 to 6 bytes each."""
    return sum(record % 7 for record in records)


def is_whole(got, limit, most):
    """As many records as one window holds, and no more."""
    assert 0 < len(got) <= limit
    assert size_of(got[:-1]) < most
    return len(got) == limit or size_of(got) >= most


@given(arrivals=ARRIVALS, limit=LIMITS, seconds=SECONDS, most=BYTES)
def test_windows_keep_order_size_and_patience(arrivals, limit, seconds, most):
    """Driven as the lane drives it: whenever a window is due, it is taken; none waits longer than allowed."""
    window, now, number = Window(limit, seconds, most, size_of), 0.0, 0
    came, taken = {}, []

    def take_due(until):
        """Take all windows that are due up to ``until``, each at its moment."""
        at = now
        while (due := window.due_in(at)) is not None and at + due <= until:
            at += due
            got = window.take()
            assert is_whole(got, limit, most) or at >= came[got[0]] + seconds - 1e-9
            for record in got:
                assert at <= came[record] + seconds + 1e-9
            taken.extend(got)

    for pause, count in arrivals:
        take_due(now + pause)
        now += pause
        records = list(range(number, number + count))
        number += count
        came.update(dict.fromkeys(records, now))
        window.add(records, now)
        take_due(now)
        assert len(window) == number - len(taken) < limit
        assert not window.is_full
    take_due(now + seconds + 1e-6)
    assert taken == list(range(number))
    assert len(window) == 0
    assert window.due_in(now) is None


@given(st.lists(st.integers(0, 30), max_size=20), LIMITS, BYTES)
def test_nothing_is_lost_however_late_windows_are_taken(sizes, limit, most):
    """A lane that is busy takes windows late: full ones first, in order, down to the last record."""
    window, number = Window(limit, 1.0, most, size_of), 0
    for moment, size in enumerate(sizes):
        window.add(range(number, number + size), float(moment))
        number += size
    taken = []
    while len(window):
        waiting = range(len(taken), number)
        assert window.is_full == (len(waiting) >= limit or size_of(waiting) >= most)
        got = window.take()
        assert is_whole(got, limit, most) or len(got) == len(waiting)
        taken += got
    assert taken == list(range(number))


def test_what_stays_keeps_the_time_that_it_has_waited():
    """Records that a full window leaves behind do not start waiting anew."""
    window = Window(3, 1.0, 1000, size_of)
    window.add([1, 2], 10.0)
    window.add([3, 4], 10.5)
    assert window.take() == [1, 2, 3]
    assert window.due_in(11.0) == 0.5
    assert window.due_in(11.5) == 0.0


def test_a_window_may_be_wanted_earlier_but_not_later():
    window = Window(3, 1.0, 1000, size_of)
    window.add([1], 10.0)
    assert window.due_in(10.0) == 1.0
    assert window.due_in(10.0, early=0.25) == 0.25
    assert window.due_in(10.5, early=0.25) == 0.0
    assert window.due_in(10.0, early=2.0) == 1.0
