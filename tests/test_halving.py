"""Halving: whatever is at fault in a batch, everything else is booked, in few requests."""

from collections.abc import Callable
from hashlib import sha256
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from schemas.batch import Batch, Upload, build, records_of
from schemas.letter import Exchange, RecordRejection
from streams.dispatch.answer import Booked, Refused, Unavailable
from streams.dispatch.delivery import Delivered
from streams.dispatch.halving import Ended, Search, deliver

EXCHANGE = Exchange(method="POST", url="http://avstar", request_headers={})


def refused(status: int, *named: int) -> Refused:
    rejected: list[RecordRejection] = [{"index": at, "code": f"c{at}", "message": "bad"} for at in named]
    return Refused(EXCHANGE, 1, status, f"{status} bad", rejected)


def ask(records: int, answer: Callable[[list[int]], Booked | Refused]) -> tuple[Search, list[list[int]]]:
    """Search a batch of so many records of an Avstar that answers so; gives what it was asked, too."""
    search = Search(records)
    asked = [list(range(records))]
    first = answer(asked[0])
    assert isinstance(first, Refused)
    asking = search.run(first)
    try:
        asked.append(next(asking))
        while True:
            asked.append(asking.send(answer(asked[-1])))
    except StopIteration:
        return search, asked


def booked(part: list[int]) -> Booked:
    return Booked(EXCHANGE, 1, 200, len(part), 0, [])


def holds(
    poison: set[int], status: int = 422, *, names: bool = False
) -> Callable[[list[int]], Booked | Refused]:
    def answer(part: list[int]) -> Booked | Refused:
        found = [at for at, index in enumerate(part) if index in poison]
        return refused(status, *(found if names else ())) if found else booked(part)

    return answer


def check(records: int, poison: set[int], search: Search, asked: list[list[int]]) -> None:
    """Every record was booked once or is at fault, and each at fault was told so by itself or by name."""
    assert set(search.faults) == poison
    taken = [index for part in asked if not poison.intersection(part) for index in part]
    assert sorted(taken) == sorted(set(range(records)) - poison)


@given(st.sets(st.integers(0, 4999), min_size=1, max_size=3))
@example({0, 1, 2})
@example({0, 2500, 4999})
@example({4997, 4998, 4999})
@settings(max_examples=150)
def test_three_poison_records_of_5000_take_at_most_60_requests(poison: set[int]) -> None:
    search, asked = ask(5000, holds(poison))
    check(5000, poison, search, asked)
    assert len(asked) <= 60


@given(st.integers(1, 300), st.data())
@settings(max_examples=100)
def test_any_number_of_faults_is_found_in_no_more_requests_than_asking_each(records: int, data: Any) -> None:
    poison = data.draw(st.sets(st.integers(0, records - 1), min_size=1))
    search, asked = ask(records, holds(poison))
    check(records, poison, search, asked)
    assert len(asked) <= 2 * records + 40
    assert len(asked) == len({tuple(part) for part in asked})  # nothing is asked twice


def test_named_faults_take_two_requests() -> None:
    poison = {7, 2500, 4999}
    search, asked = ask(5000, holds(poison, names=True))
    check(5000, poison, search, asked)
    assert len(asked) == 2
    assert [fault.code for _, fault in sorted(search.faults.items())] == ["c7", "c2500", "c4999"]


@pytest.mark.parametrize("fits", [1, 7, 100, 999, 2500])
def test_what_is_too_large_is_halved_until_it_fits(fits: int) -> None:
    search, asked = (
        ask(1000, lambda part: booked(part) if len(part) <= fits else refused(413))
        if fits < 1000
        else ask(5000, lambda part: booked(part) if len(part) <= fits else refused(413))
    )
    assert not search.faults
    accepted = [part for part in asked if len(part) <= fits]
    assert sorted(index for part in accepted for index in part) == asked[0]
    assert len(asked) <= 2 * (len(asked[0]) // (fits // 2 + 1)) + 12


def test_one_record_that_is_too_large_alone_is_found_and_the_rest_sent_whole() -> None:
    search, asked = ask(5000, holds({1234}, 413))
    check(5000, {1234}, search, asked)
    assert len(asked) <= 60
    assert search.faults[1234].code == "413"


def test_records_that_are_refused_only_together_are_booked() -> None:
    def answer(part: list[int]) -> Booked | Refused:
        return refused(400) if {3, 90} <= set(part) else booked(part)

    search, asked = ask(100, answer)
    assert not search.faults
    assert sorted(i for part in asked if not {3, 90} <= set(part) for i in part) == list(range(100))


class Avstar:
    """Books records but refuses any batch that holds one of these, as a whole."""

    def __init__(self, *poison: str, gives_up_after: int = 1000) -> None:
        self.poison, self.left = set(poison), gives_up_after
        self.sent: list[Batch] = []
        self.taken: list[str] = []

    async def deliver(self, batch: Batch) -> Delivered:
        self.sent.append(batch)
        hashes = [record["idempotency_key"] for record in records_of(batch)]
        self.left -= 1
        if self.left < 0:
            return Delivered(Unavailable(EXCHANGE, 1, "500"), 3, "t1", "t2", "closed")
        if self.poison.intersection(hashes):
            return Delivered(refused(400), 1, "t3", "t3", "closed")
        self.taken += hashes
        return Delivered(Booked(EXCHANGE, 1, 200, len(hashes) - 1, 1, []), 1, "", "", "closed")


def records(count: int) -> list[tuple[str, bytes]]:
    bodies = [orjson.dumps({"a": "\u00fc\n", "n": number, "record_type": "spot"}) for number in range(count)]
    return [(sha256(body).hexdigest(), body) for body in bodies]


@pytest.mark.parametrize("strategy", ["json", "multipart"])
async def test_parts_are_what_their_records_alone_would_be(strategy: Any) -> None:
    whole = records(100)
    avstar = Avstar(whole[17][0], whole[80][0])
    ended = await deliver(avstar, build(whole, Upload(strategy)))
    known = dict(whole)
    for part in avstar.sent[1:]:
        hashes = [record["idempotency_key"] for record in records_of(part)]
        assert part == build([(one, known[one]) for one in hashes], Upload(strategy))
    answer = ended.delivered.answer
    assert isinstance(answer, Booked)
    assert answer.accepted + answer.duplicates == 98
    assert [one["index"] for one in answer.rejected] == [17, 80]
    assert list(ended.exchanges) == [17, 80]
    assert list(ended.parts) == [part.key for part in avstar.sent[1:]]
    assert ended.delivered.attempts == len(avstar.sent)
    assert sorted(avstar.taken) == sorted(known.keys() - avstar.poison)


async def test_a_crash_in_the_middle_sends_the_same_parts_again() -> None:
    whole = records(500)
    first, second = Avstar(whole[9][0]), Avstar(whole[9][0])
    await deliver(first, build(whole))
    await deliver(second, build(whole))
    assert first.sent == second.sent


async def test_a_batch_of_which_a_part_is_given_up_is_given_up() -> None:
    whole = records(10)
    ended = await deliver(Avstar(whole[9][0], gives_up_after=2), build(whole))
    assert isinstance(ended.delivered.answer, Unavailable)
    assert ended.delivered.attempts == 1 + 1 + 3


async def test_what_is_no_batch_of_ours_stays_refused() -> None:
    class Refuses:
        async def deliver(self, batch: Batch) -> Delivered:
            return Delivered(refused(400), 1, "t", "t", "closed")

    for body in (b"no gzip", b""):
        ended: Ended = await deliver(Refuses(), Batch("k", "b", body, 3))
        assert isinstance(ended.delivered.answer, Refused)
