"""Reading a topic without a group, all of it or from a moment on: for audits, dead letters, subscribers."""

import logging
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Generic, TypeVar

from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from schemas.errors import Problem, Unreachable
from topics.admin import EARLIEST, LATEST, Asker, denial
from topics.connection import KafkaSettings
from topics.passing import DISCONNECTED, NO_LEADER_YET

_CHUNK = 10_000
#: For those who keep what becomes of a chunk: few enough to stay in the processor's cache.
_SMALL_CHUNK = 1000
#: For those who follow: whatever comes at once, it is not gigabytes of dead letters of a megabyte.
_FOLLOWED = 20
#: How long librdkafka waits to fill a chunk: of what has an end, which costs as much, and of what has none.
_POLL_S, _FOLLOW_S = 0.01, 0.05
#: So few messages that they are taken one by one, and the last is not waited behind.
_FEW = 100
#: What a reader that follows waits out.
_PASSING = NO_LEADER_YET | DISCONNECTED | {KafkaError._TIMED_OUT}
#: How often a reader that follows looks for new partitions.
_PARTITIONS_S = 5.0
#: How long a transaction may be open before a reader gives up. What ends those of killed writers is sooner.
STABLE_S = 40.0
#: Reading on is cheaper than a seek, which empties librdkafka's queue, up to about this many records.
_SEEK_BEYOND = 20_000

logger = logging.getLogger(__name__)

T = TypeVar("T")


def read_all(
    kafka: KafkaSettings, topic: str, *, timeout_s: float = 0, stable_s: float = STABLE_S
) -> Iterator[Message]:
    """Every committed message of all partitions, from the beginning to the high watermark at the call.

    In order within a partition, partitions mixed, in bounded memory. Waits for transactions that are open,
    and for those committed just now: a producer is told so before ``read_committed`` shows it. Raises
    :class:`Problem` when there is no such topic or a transaction stays open for ``stable_s``, and
    :class:`Unreachable` when the broker is silent for ``timeout_s`` (0: for ``kafka.timeout_s``).
    """
    ends = _offsets(kafka, topic, LATEST)
    # Offset 0, and a reset where retention has taken it: to ask for the beginning takes half a second longer.
    begin = [TopicPartition(topic, partition, 0) for partition, end in ends.items() if end]
    with _consumer(kafka) as consumer:
        yield from _Reading(consumer, kafka, timeout_s or kafka.timeout_s, stable_s).messages(begin, ends)


def read_since(
    kafka: KafkaSettings, topic: str, since: datetime | None
) -> Generator[list[Message], None, None]:
    """As :func:`read_all`, in chunks, and only what was written at ``since`` or later (None: everything)."""
    ends = _offsets(kafka, topic, LATEST)
    starts = _starts(kafka, topic, since)
    begin = [
        TopicPartition(topic, partition, starts[partition])
        for partition, end in ends.items()
        if 0 <= starts.get(partition, end) < end
    ]
    with _consumer(kafka) as consumer:
        yield from _Reading(consumer, kafka, kafka.timeout_s, stable_s=STABLE_S).chunks(
            begin, ends, _SMALL_CHUNK
        )


def follow(kafka: KafkaSettings, topic: str, since: datetime | None) -> Generator[list[Message], None, None]:
    """As :func:`read_since`, but then what is committed later, without end: close it.

    Partitions that are added are read from their beginning, a broker that goes away is waited for. Every
    :data:`_FOLLOW_S` a chunk comes, empty when there is nothing, so that whoever reads can stop.
    """
    yield from follow_all(kafka, {topic: since})


def follow_all(
    kafka: KafkaSettings, topics: Mapping[str, datetime | None], **options: Any
) -> Generator[list[Message], None, None]:
    """As :func:`follow`, of several topics: by name, since when.

    ``options``: of the consumer, in librdkafka's names, underscores for dots.
    """
    begin = [place for topic, since in topics.items() for place in _begins(kafka, topic, since)]
    named = {name.replace("_", "."): value for name, value in options.items()}
    with _consumer(kafka, {"fetch.wait.max.ms": 50, "error_cb": _warn} | named) as consumer:
        consumer.assign(begin)
        looked = time.monotonic()
        while True:
            chunk = consumer.consume(_FOLLOWED, timeout=_FOLLOW_S)
            errors = [(error, message) for message in chunk if (error := message.error()) is not None]
            for error, message in errors:
                if error.code() not in (KafkaError._PARTITION_EOF, *_PASSING):
                    raise _problem(error, kafka, message.topic() or ", ".join(topics))
            yield [message for message in chunk if message.error() is None] if errors else chunk
            if time.monotonic() - looked > _PARTITIONS_S:
                for topic in topics:
                    _take_up_new(consumer, topic)
                looked = time.monotonic()


def _begins(kafka: KafkaSettings, topic: str, since: datetime | None) -> list[TopicPartition]:
    ends = _offsets(kafka, topic, LATEST)
    starts = _starts(kafka, topic, since)
    # -1: nothing is as young as that yet.
    return [TopicPartition(topic, at, ends[at] if starts.get(at, -1) < 0 else starts[at]) for at in ends]


def read_between(
    kafka: KafkaSettings, topic: str, begins: Mapping[int, int], ends: dict[int, int], stable_s: float
) -> Generator[Message, None, None]:
    """As :func:`read_all`, of each partition from an offset up to another, which is above it."""
    begin = [TopicPartition(topic, partition, offset) for partition, offset in begins.items()]
    with _consumer(kafka) as consumer:
        yield from _Reading(consumer, kafka, kafka.timeout_s, stable_s).messages(begin, ends)


def _starts(kafka: KafkaSettings, topic: str, since: datetime | None) -> dict[int, int]:
    """By partition, where the records begin that were written then or later; -1 where there are none."""
    if since is None:
        return _offsets(kafka, topic, EARLIEST)
    # Before 1970 the protocol's numbers have other meanings.
    return _offsets(kafka, topic, max(0, int(since.timestamp() * 1000)))


def _take_up_new(consumer: Consumer, topic: str) -> None:
    try:
        there = consumer.list_topics(topic, timeout=_PARTITIONS_S).topics[topic].partitions
    except KafkaException:
        return  # the broker is away: the next time will tell
    known = {at.partition for at in consumer.assignment() if at.topic == topic}
    if new := sorted(there.keys() - known):
        consumer.incremental_assign([TopicPartition(topic, partition, 0) for partition in new])


def _warn(error: KafkaError) -> None:
    logger.warning("waiting for Kafka: %s", error.str())


def read_compacted(kafka: KafkaSettings, topic: str) -> dict[bytes, bytes]:
    """The latest value of every key; keys whose latest value is a tombstone are left out."""
    latest: dict[bytes, bytes] = {}
    _keep_latest(latest, read_all(kafka, topic), lambda _, value: value)
    return latest


def _keep_latest(
    latest: dict[bytes, T], messages: Iterable[Message], made: Callable[[bytes, bytes], T]
) -> None:
    for message in messages:
        key, value = message.key() or b"", message.value()
        if value is None:
            latest.pop(key, None)
        else:
            latest[key] = made(key, value)


class Compacted(Generic[T]):
    """What is ``made`` of the latest key and value of every key, kept: :meth:`refresh` reads what is new."""

    def __init__(self, kafka: KafkaSettings, topic: str, made: Callable[[bytes, bytes], T]) -> None:
        self._kafka, self._topic, self._asker, self._made = kafka, topic, Asker(kafka), made
        self._latest: dict[bytes, T] = {}
        self._ends: dict[int, int] = {}

    def refresh(self) -> dict[bytes, T]:
        """By key, in the order of their first messages. Raises what :func:`read_compacted` does."""
        ends = _offsets(self._kafka, self._topic, LATEST, self._asker)
        begin = [
            TopicPartition(self._topic, partition, self._ends.get(partition, 0))
            for partition, end in ends.items()
            if end > self._ends.get(partition, 0)
        ]
        if begin:
            # A consumer that is kept may take a second to begin anew, which connecting never does.
            with _consumer(self._kafka) as consumer:
                reading = _Reading(consumer, self._kafka, self._kafka.timeout_s, stable_s=STABLE_S)
                waiting = sum(ends[part.partition] - part.offset for part in begin)
                # consume() waits until it has as many as are asked for, or for its timeout.
                for chunk in reading.chunks(begin, ends, 1 if waiting < _FEW else _CHUNK):
                    _keep_latest(self._latest, chunk, self._made)
        self._ends = ends
        return self._latest


def read_records(
    kafka: KafkaSettings, topic: str, partition: int, offsets: Iterable[int]
) -> dict[int, Message]:
    """The messages at ``offsets`` of one partition; offsets that hold none (any more) are left out."""
    low = beginnings(kafka, topic)
    end = _offsets(kafka, topic, LATEST)
    wanted = sorted({at for at in offsets if low.get(partition, 0) <= at < end.get(partition, 0)})
    found: dict[int, Message] = {}
    with _consumer(kafka) as consumer:
        reading = _Reading(consumer, kafka, kafka.timeout_s, kafka.timeout_s)
        for stretch in _stretches(wanted):
            begin = [TopicPartition(topic, partition, stretch[0])]
            wants = set(stretch)
            for message in reading.messages(begin, {partition: stretch[-1] + 1}):
                if message.offset() in wants:
                    found[message.offset()] = message
    return found


def beginnings(kafka: KafkaSettings, topic: str) -> dict[int, int]:
    """The first offset that each partition still holds; above 0 once retention has deleted something."""
    return _offsets(kafka, topic, EARLIEST)


def ends(kafka: KafkaSettings, topic: str, asker: Asker | None = None) -> dict[int, int]:
    """The offset after the last record or marker of each partition, open transactions included."""
    return _offsets(kafka, topic, LATEST, asker)


def _stretches(offsets: list[int]) -> Iterator[list[int]]:
    start = 0
    for index in range(1, len(offsets) + 1):
        if index == len(offsets) or offsets[index] - offsets[index - 1] > _SEEK_BEYOND:
            yield offsets[start:index]
            start = index


@contextmanager
def _consumer(kafka: KafkaSettings, others: Mapping[str, Any] | None = None) -> Iterator[Consumer]:
    """For what reads up to an end; ``others``: its options in librdkafka's names, where they differ."""
    options = kafka.reading(
        queued_max_messages_kbytes=32_768,
        fetch_queue_backoff_ms=10,  # by default fetching rests a second whenever the queue is full
    )
    ends = {"fetch.wait.max.ms": 5}  # an answer without records tells that there are no more
    consumer = Consumer(options | ends | dict(others or {}))
    try:
        yield consumer
    finally:
        consumer.close()


def _offsets(kafka: KafkaSettings, topic: str, which: int, asker: Asker | None = None) -> dict[int, int]:
    """By partition, an offset as uncommitted reading shows it: open transactions hide nothing."""
    asker = asker or Asker(kafka)
    deadline = time.monotonic() + kafka.timeout_s
    while True:
        try:
            wanted = dict.fromkeys(asker.topic(topic).partitions, which)
            return asker.offsets(topic, wanted, kafka.timeout_s)
        except KafkaException as error:
            # A partition that was just created or is changing its leader has an answer in a moment.
            if error.args[0].code() not in NO_LEADER_YET or time.monotonic() > deadline:
                raise _problem(error.args[0], kafka, topic) from None
            time.sleep(_POLL_S)


class _Reading:
    """Reads with a consumer that tells the ends of partitions."""

    def __init__(self, consumer: Consumer, kafka: KafkaSettings, timeout_s: float, stable_s: float) -> None:
        self._consumer, self._kafka = consumer, kafka
        self._timeout_s, self._stable_s = timeout_s, stable_s

    def messages(self, begin: list[TopicPartition], ends: dict[int, int]) -> Iterator[Message]:
        """The messages of all :meth:`chunks`."""
        for chunk in self.chunks(begin, ends):
            yield from chunk

    def chunks(
        self, begin: list[TopicPartition], ends: dict[int, int], most: int = _CHUNK
    ) -> Iterator[list[Message]]:
        """Yield until each partition of ``begin`` has reached its end.

        What stands before the end may be a control record, so a partition is done when librdkafka reports to
        have come as far, or when it gives a message from there because writers went on.
        """
        self._consumer.assign(begin)
        self._consumer.resume(begin)  # librdkafka keeps a partition paused through a new assignment
        left = {part.partition: part for part in begin}
        stopped: dict[int, int] = {}  # where a partition seems to end, though it does not
        silent_s = 0.0
        while left:
            chunk = self._consumer.consume(most, timeout=_POLL_S)
            silent_s = 0.0 if chunk else silent_s + _POLL_S
            self._check_patience(silent_s, begin[0].topic, [stopped.get(partition) for partition in left])
            wanted: list[Message] = []
            for message in chunk:
                partition, error = message.partition(), message.error()
                if error is None:
                    reached = message.offset() + 1
                    if reached <= ends[partition]:
                        wanted.append(message)
                elif error.code() == KafkaError._PARTITION_EOF:
                    reached = stopped[partition] = message.offset()
                else:
                    raise _problem(error, self._kafka, begin[0].topic)
                if reached >= ends[partition] and partition in left:
                    self._consumer.pause([left.pop(partition)])
            if wanted:
                yield wanted

    def _check_patience(self, silent_s: float, topic: str, stopped: list[int | None]) -> None:
        """Raise when nothing has come for too long; longer where the broker answers that it is the end."""
        if silent_s > self._timeout_s and None in stopped:
            what = f"no answer for {self._timeout_s:g} s while reading {topic}"
            raise Unreachable(what, where=self._kafka.bootstrap_servers)
        if silent_s > self._stable_s:
            what = f"a transaction has been open since offset {stopped[0]} for {self._stable_s:g} s"
            raise Problem(what, where=topic, remedy="end the producer that holds it, then try again")


def _problem(error: KafkaError, kafka: KafkaSettings, topic: str) -> Problem:
    if error.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC):
        return Problem("no such topic", where=topic, remedy="create it with `spotstream topics apply`")
    return denial(error, kafka, topic) or Unreachable(
        f"the broker cannot be reached: {error.str()}",
        where=kafka.bootstrap_servers,
        remedy="check kafka.bootstrap_servers and that the broker runs",
    )
