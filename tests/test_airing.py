"""When a batch's spots air, by the hour, told in a header."""

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from exports import descriptor, line, records
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import airing
from schemas.records import Valid
from streams.validate.judge import Judge

BEGIN = datetime(2026, 3, 1, 10, 59, 59, tzinfo=UTC)
BEGIN_MS = int(BEGIN.timestamp() * 1000)

HOURS = st.integers(-100, 1000).map(lambda ahead: (BEGIN + timedelta(hours=ahead)).strftime("%Y-%m-%dT%H"))


@given(st.lists(st.one_of(HOURS, st.just(""))))
@settings(max_examples=50)
def test_what_is_written_is_read_back(hours):
    """But what aired before it was read, and what airs in more than 31 days."""
    text = airing.header(hours, BEGIN_MS)
    counted = {at: n for at, n in Counter(hours).items() if "2026-03-01T10" <= at <= "2026-04-01T10"}
    assert airing.read(text) == counted


def test_a_header_is_bounded():
    hours = [(BEGIN + timedelta(hours=ahead)).strftime("%Y-%m-%dT%H") for ahead in range(-2000, 20_000)]
    assert len(airing.header(hours * 10, BEGIN_MS)) < 13_000


@pytest.mark.parametrize("text", ["x", "2026-03-01T11", "2026-03-01T11=", "2026-03-01=3", "2026-03-01T11=3,"])
def test_what_is_no_header(text):
    with pytest.raises(ValueError, match=r".+"):
        airing.read(text)


def test_which_hours_are_the_next():
    """The present clock hour and as many after it."""
    counted = {f"2026-03-01T{hour:02}": 10**place for place, hour in enumerate((9, 10, 11, 12))}
    assert airing.between(counted, BEGIN, 1) == 110
    assert airing.between(counted, BEGIN, 4) == 1110
    assert airing.between(counted, BEGIN + timedelta(seconds=1), 1) == 1100


def test_only_scheduled_spots_with_a_time_count():
    spot = {"record_type": "spot", "clearance": "scheduled", "aired_at": "2026-03-01T11:30:00.000Z"}
    assert airing.hour(spot) == "2026-03-01T11"
    for other in ({"clearance": "cleared"}, {"clearance": "preempted"}, {"record_type": "makegood"}):
        assert airing.hour(spot | other) == ""
    assert airing.hour({"record_type": "spot", "clearance": "scheduled"}) == ""


@given(st.lists(records(), min_size=1, max_size=8))
@settings(max_examples=30)
def test_validation_tells_of_each_record_when_it_airs(cells):
    for verdict in Judge(descriptor()).judge([line(one) for one in cells]):
        assert isinstance(verdict, Valid)
        assert verdict.airs == airing.hour(verdict.record)
