"""Feeds on a real broker: a program's records, each once, whatever becomes of the program."""

import asyncio
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from base64 import b64decode
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from confluent_kafka import Producer
from mortal import STEPS
from tailing import HEADER, line, lines, whole

from schemas.descriptor import Descriptor
from schemas.errors import Problem, Unreachable, UsageError
from schemas.rawkey import RawKey
from streams.audit.account import audit
from streams.feed import AsyncFeed, Feed, Row
from streams.feed.parcel import Bookmark, Parcel
from streams.formats.framing import HEAD
from streams.lab.kafka import Broker
from streams.settings import Settings, TailSettings
from streams.tail import checkpoint
from streams.tail.publisher import Publisher
from topics.catalogue import DLQ, FILES, RAW
from topics.connection import KafkaSettings
from topics.reader import read_all

pytestmark = pytest.mark.broker

HEADINGS = tuple(HEADER.decode().strip().split(","))


class Source:
    """Makes feeds of one name, and reads what they published."""

    def __init__(self, bootstrap: str, name: str) -> None:
        self.name, self.path = name, f"feed:{name}"
        self.kafka = KafkaSettings(bootstrap_servers=bootstrap, timeout_s=10)

    def settings(self, **tail: Any) -> Settings:
        return Settings(kafka=self.kafka, tail=TailSettings(**tail))

    def feed(self, **tail: Any) -> Feed:
        return Feed(self.settings(**tail), self.name, profile="avion", header=HEADINGS)

    def async_feed(self) -> AsyncFeed:
        return AsyncFeed(self.settings(), self.name, profile="avion", header=HEADINGS)

    def published(self) -> list[tuple[RawKey, bytes]]:
        """As it lies on the topic."""
        described = ((m.key(), Descriptor.load(m.value())) for m in read_all(self.kafka, FILES.name))
        ours = {key for key, found in described if found.path == self.path}
        raw = ((RawKey.unpack(m.key()), m.value()) for m in read_all(self.kafka, RAW.name))
        return [(key, value) for key, value in raw if key.descriptor in ours]

    def values(self) -> list[bytes]:
        return [value for _, value in self.published()]

    def committed(self) -> int:
        """How many records its checkpoint says."""
        known = checkpoint.read(self.kafka).files.get(self.path)
        return known.records if known else 0

    def program(self, records: int, *death: object) -> int:
        """Run a program that feeds so many lines; its exit status."""
        variables = {"SPOTSTREAM_KAFKA__BOOTSTRAP_SERVERS": self.kafka.bootstrap_servers}
        feeder = str(Path(__file__).with_name("feeder.py"))
        command = [sys.executable, feeder, self.name, str(records), *map(str, death)]
        return subprocess.run(command, env=os.environ | variables, timeout=60, check=False).returncode


@pytest.fixture
def source(kafka: Broker, unique: str) -> Source:
    return Source(kafka.bootstrap, unique[-60:])


def test_rows_are_published_in_order_and_the_position_comes_back(source: Source) -> None:
    with source.feed() as feed:
        assert (feed.position, feed.records) == (None, 0)
        feed.publish(lines(0, 3), {"page": 1, "of": ["a", 2.5, None]})
        feed.flush()
        assert (feed.position, feed.records) == ({"page": 1, "of": ["a", 2.5, None]}, 3)
        feed.publish((line(number) for number in range(3, 2000)), "the end")
    with source.feed() as feed:
        assert (feed.position, feed.records) == ("the end", 2000)
        feed.publish([], "nothing here")
        feed.publish([dict(zip(HEADINGS, ["SPOT", "WABC", 7], strict=False))], 0)
    with source.feed() as feed:
        assert (feed.position, feed.records) == (0, 2001)
    values = [*lines(0, 2000), b"SPOT,WABC,7,,,,,,,,,,\r\n"]
    records = source.published()
    assert [value for _, value in records] == values
    assert whole(records, size=sum(map(len, values)))


def test_a_position_alone_is_committed(source: Source) -> None:
    with source.feed() as feed:
        feed.publish(lines(0, 1), 1)
    with source.feed() as feed:
        feed.publish([], 2)
    with source.feed() as feed:
        assert feed.position == 2


@pytest.mark.parametrize("step", STEPS["tail"])
def test_a_program_killed_at_a_step_and_run_again(source: Source, step: str) -> None:
    """The first transaction claims the name. Twice, so that it is noticed if positions have their own."""
    for transaction in (2, 3):
        assert source.program(3000, step, transaction) == -signal.SIGKILL
    assert source.program(3000) == 0
    assert source.values() == lines(0, 3000)
    assert whole(source.published(), size=sum(map(len, lines(0, 3000))))


def test_a_second_program_of_the_name_ends_the_first(source: Source) -> None:
    """The first learns it when it publishes, and its program by the exception that leaves the ``with``."""

    def first_program() -> None:
        with source.feed() as first:
            first.publish(lines(0, 5), 5)
            first.flush()
            with source.feed() as second:
                assert second.position == 5
                second.publish(lines(5, 8), 8)
                second.flush()
                first.publish(lines(5, 7), 7)
                with pytest.raises(Problem, match="took over"):
                    first.flush()
                second.publish(lines(8, 9), 9)
            first.publish(lines(7, 9), 9)

    with pytest.raises(Problem, match=f"^feed:{source.name}: another process took over; run only one"):
        first_program()
    assert source.values() == lines(0, 9)


def test_a_feed_and_a_tailer_of_one_name_do_not_meet(source: Source) -> None:
    with source.feed(name=source.name) as feed:
        thief = Producer(source.kafka.confluent(transactional_id=f"spotstream-tail-{source.name}"))
        thief.init_transactions(10)
        feed.publish(lines(0, 5), 5)
    assert source.values() == lines(0, 5)


def test_a_fenced_feed_whose_name_was_not_taken_goes_on(source: Source) -> None:
    """As when the broker ended a transaction that was open too long."""
    with source.feed() as feed:
        for done in range(0, 30, 10):
            thief = Producer(source.kafka.confluent(transactional_id=f"spotstream-tail-{source.path}"))
            thief.init_transactions(10)
            feed.publish(lines(done, done + 10), done + 10)
            feed.flush()
    assert source.values() == lines(0, 30)


def test_a_parcel_whose_answer_was_lost_is_not_published_again(source: Source) -> None:
    """A position without records included."""
    publisher = Publisher(source.settings(), feed=source.name)
    publisher.start()
    described = source.feed()._descriptor
    first = Bookmark.first(described, publisher.partitions)
    parcel = Parcel(first, described, source.settings().tail, publisher.partitions)
    for rows, position in ((lines(0, 5), "5"), ([], "6"), ([], "7"), (lines(5, 9), "7")):
        parcel.add(rows, position)
        for _ in range(2):
            thief = Producer(source.kafka.confluent(transactional_id=f"spotstream-tail-{source.path}"))
            thief.init_transactions(10)
            publisher.publish(parcel)
        with source.feed() as feed:
            assert feed.position == int(position)
        publisher = Publisher(source.settings(), feed=source.name)
        publisher.start()
        parcel = parcel.following()
    assert source.values() == lines(0, 9)


def test_what_an_exception_leaves_behind(source: Source) -> None:
    """What was given before is committed; of the rows that failed, none."""

    def broken() -> Iterator[bytes]:
        yield line(5)
        raise ZeroDivisionError

    def program(rows: Iterable[Row]) -> None:
        with source.feed() as feed:
            done = feed.position or 0
            feed.publish(lines(done, done + 5), done + 5)
            feed.publish(rows, done + 10)

    with pytest.raises(ZeroDivisionError):
        program(broken())
    with pytest.raises(UsageError, match=f"^feed:{source.name}, row 2: Len: a float"):
        program([line(5), (*("",) * 8, 0.5)])
    with source.feed() as feed:
        assert feed.position == 10
    assert source.values() == lines(0, 10)


@pytest.mark.parametrize(
    "position",
    [None, {1, 2}, (1, 2), float("nan"), {1: 2}, b"x", object, "x" * 70_000],
    ids=["none", "set", "tuple", "nan", "keys", "bytes", "object", "long"],
)
def test_a_position_has_to_come_back_as_it_was(source: Source, position: Any) -> None:
    with source.feed() as feed:
        feed.publish(lines(0, 1), 1)
        with pytest.raises(UsageError, match=f"^feed:{source.name}: .*; a position is text, a number"):
            feed.publish(lines(1, 2), position)
    assert source.values() == lines(0, 1)


def test_too_much_for_one_position(source: Source) -> None:
    with source.feed() as feed, pytest.raises(UsageError, match="for one position; give fewer at once"):
        feed.publish(itertools.repeat(line(1)), 1)
    assert source.values() == []


def test_a_record_above_the_limit_goes_to_the_dead_letters(source: Source) -> None:
    """And the audit knows what became of it."""
    long = line(1, b"x" * 200_000)
    rows = [line(0), long, line(2), long]
    with source.feed(max_record_bytes=2000) as feed:
        feed.publish(rows, 4)
        feed.flush()
        feed.publish([line(4)], 5)
    records = source.published()
    assert [(key.number, value) for key, value in records] == [(1, line(0)), (3, line(2)), (5, line(4))]
    assert [key.skipped for key, _ in records] == [0, len(long), len(long)]
    letters = [orjson.loads(m.value()) for m in read_all(source.kafka, DLQ.name)]
    ours = (letter for letter in letters if letter["place"]["path"] == source.path)
    found = sorted(ours, key=lambda letter: letter["place"]["number"])
    assert [(letter["reason"], letter["place"]["number"]) for letter in found] == [
        ("too_large", 2),
        ("too_large", 4),
    ]
    assert b64decode(found[0]["original"]) == long[:HEAD]
    total = audit(source.settings(), source.path).statement.total
    assert (total.records, total.published, total.rejected) == (5, 3, 2)
    assert total.missing == 3, "the audit would miss them for as long as no worker has batched them"
    known = checkpoint.read(source.kafka).files[source.path]
    assert (known.records, known.oversized, known.position) == (5, 2, sum(map(len, [*rows, line(4)])))


def test_another_header_describes_the_records_after_it(source: Source) -> None:
    with source.feed() as feed:
        feed.publish(lines(0, 2), 2)
    other = (*HEADINGS[:-1], "Billing Code")
    with Feed(source.settings(), source.name, profile="avion", header=other) as feed:
        feed.publish(lines(2, 4), 4)
    records = source.published()
    assert [value for _, value in records] == lines(0, 4)
    assert whole(records, size=sum(map(len, lines(0, 4))))
    assert len({key.descriptor for key, _ in records}) == 2
    assert audit(source.settings(), source.path).statement.total.published == 4


def test_rounds_spread_over_all_partitions(source: Source) -> None:
    with source.feed(partitioning="block") as feed:
        for done in range(0, 80, 5):
            feed.publish(lines(done, done + 5), done + 5)
            feed.flush()
    ours = {key.descriptor for key, _ in source.published()}
    partitions = {m.partition() for m in read_all(source.kafka, RAW.name) if m.key()[:16] in ours}
    assert partitions == set(range(RAW.partitions))
    assert sorted(source.values()) == lines(0, 80)
    assert audit(source.settings(), source.path).statement.total.published == 80


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "a b"}, "feed:a b: a name has 1 to 64 letters"),
        ({"profile": "nobody"}, "no such profile"),
        ({"header": ()}, "the profile avion maps headings; give the header"),
        ({"header": ("Name", "Street")}, "unknown layout"),
        ({"header": "Type,Call Sign"}, "a header is a list of texts"),
        ({"header": (1, 2)}, "a header is a list of texts"),
        ({"profile": "avion-xml"}, "the profile avion-xml has columns of its own; give no header"),
    ],
)
def test_a_feed_that_cannot_be_made(source: Source, change: dict[str, Any], said: str) -> None:
    given = {"name": source.name, "profile": "avion", "header": HEADINGS} | change
    with pytest.raises(UsageError, match=said):
        Feed(source.settings(), given.pop("name"), **given)


def test_a_feed_is_entered_first(source: Source) -> None:
    with pytest.raises(RuntimeError, match="with statement"):
        source.feed().publish([], 1)


def test_a_broker_that_is_not_there_is_unreachable(source: Source) -> None:
    settings = Settings(kafka=KafkaSettings(bootstrap_servers="127.0.0.1:9", timeout_s=1))
    with (
        pytest.raises(Unreachable, match=r"127\.0\.0\.1:9"),
        Feed(settings, "x", profile="avion", header=HEADINGS),
    ):
        pytest.fail("entered")


async def test_many_tasks_publish_one_record_each(source: Source) -> None:
    async with source.async_feed() as feed:
        for done in range(1000):
            await feed.publish([line(done)], done + 1)
        await feed.flush()
        assert (feed.position, feed.records) == (1000, 1000)
        await asyncio.gather(*(feed.publish([line(done)], done + 1) for done in range(1000, 1500)))
    assert source.values() == lines(0, 1500)
    async with source.async_feed() as feed:
        assert feed.position == 1500


async def test_a_cancelled_task_leaves_what_it_gave(source: Source) -> None:
    async def endless() -> None:
        async with source.async_feed() as feed:
            for done in itertools.count():
                await feed.publish([line(done)], done + 1)
                await asyncio.sleep(0)

    task = asyncio.create_task(endless())
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with source.async_feed() as feed:
        assert source.values() == lines(0, feed.position or 0) != []


def test_a_broker_that_is_away_holds_the_program_back(kafka: Broker, source: Source) -> None:
    """Two rounds are taken, no more; and when it is back, all goes on."""
    chunk = lines(0, 10_000)
    size = sum(map(len, chunk))
    given = 0

    def work() -> None:
        nonlocal given
        with source.feed() as feed:
            feed.publish(lines(0, 1), 1)
            feed.flush()
            assert source.values() == lines(0, 1)  # its markers are written: see docs/decisions.md
            kafka.kill()
            for number in range(30):
                feed.publish(chunk, number)
                given += size

    thread = threading.Thread(target=work)
    thread.start()
    held_back(lambda: given)
    assert 0 < given <= 2 * (4_194_304 + size)
    kafka.start()
    thread.join(60)
    assert not thread.is_alive()
    assert source.values() == lines(0, 1) + chunk * 30


def held_back(count: Callable[[], int], quiet_s: float = 2.0, timeout_s: float = 60) -> None:
    """Return when the count has begun and stands still."""
    deadline = time.monotonic() + timeout_s
    seen, since = 0, time.monotonic()
    while not seen or time.monotonic() - since < quiet_s:
        assert time.monotonic() < deadline, "never held back"
        if count() != seen:
            seen, since = count(), time.monotonic()
        time.sleep(0.05)
