"""Reading a topic from end to end, without a group: what the audit and the dead-letter commands stand on."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from schemas.errors import Problem, Unreachable
from topics.connection import KafkaSettings

_CHUNK = 10_000
#: How long librdkafka waits to fill a chunk: the price of each topic's end.
_POLL_S = 0.05
#: Reading on is cheaper than a seek, which empties librdkafka's queue, up to about this many records.
_SEEK_BEYOND = 20_000


def read_all(kafka: KafkaSettings, topic: str, *, timeout_s: float | None = None) -> Iterator[Message]:
    """Every committed message of all partitions, from the beginning to the end as it stood at the call.

    In order within a partition, partitions mixed. Memory is bounded. Raises :class:`Problem` when there is no
    such topic, :class:`Unreachable` when the broker is silent for ``timeout_s``
    (by default ``kafka.timeout_s``).
    """
    with _consumer(kafka) as consumer:
        ends = {partition: end for partition, (_, end) in _watermarks(consumer, kafka, topic).items()}
        begin = [
            TopicPartition(topic, partition, OFFSET_BEGINNING) for partition, end in ends.items() if end > 0
        ]
        yield from _read(consumer, kafka, begin, ends, timeout_s or kafka.timeout_s)


def read_compacted(kafka: KafkaSettings, topic: str) -> dict[bytes, bytes]:
    """The latest value of every key; keys whose latest value is a tombstone are left out."""
    latest: dict[bytes, bytes] = {}
    for message in read_all(kafka, topic):
        key, value = message.key() or b"", message.value()
        if value is None:
            latest.pop(key, None)
        else:
            latest[key] = value
    return latest


def read_records(
    kafka: KafkaSettings, topic: str, partition: int, offsets: Iterable[int]
) -> dict[int, Message]:
    """The messages at ``offsets`` of one partition; offsets that hold none (any more) are left out."""
    wanted = sorted(set(offsets))
    found: dict[int, Message] = {}
    with _consumer(kafka) as consumer:
        low, end = _watermarks(consumer, kafka, topic).get(partition, (0, 0))
        wanted = [offset for offset in wanted if low <= offset < end]
        for stretch in _stretches(wanted):
            begin = [TopicPartition(topic, partition, stretch[0])]
            wants = set(stretch)
            for message in _read(consumer, kafka, begin, {partition: stretch[-1] + 1}, kafka.timeout_s):
                if message.offset() in wants:
                    found[message.offset()] = message
    return found


def beginnings(kafka: KafkaSettings, topic: str) -> dict[int, int]:
    """The first offset that each partition still holds; above 0 once retention has deleted something."""
    with _consumer(kafka) as consumer:
        return {partition: low for partition, (low, _) in _watermarks(consumer, kafka, topic).items()}


def _stretches(offsets: list[int]) -> Iterator[list[int]]:
    start = 0
    for index in range(1, len(offsets) + 1):
        if index == len(offsets) or offsets[index] - offsets[index - 1] > _SEEK_BEYOND:
            yield offsets[start:index]
            start = index


@contextmanager
def _consumer(kafka: KafkaSettings) -> Iterator[Consumer]:
    # librdkafka insists on a group id; nothing is ever subscribed or committed under it.
    consumer = Consumer(
        kafka.confluent(
            group_id="spotstream-reader",
            enable_auto_commit=False,
            enable_auto_offset_store=False,
            enable_partition_eof=True,
            isolation_level="read_committed",
            auto_offset_reset="earliest",
            queued_max_messages_kbytes=32_768,
            fetch_wait_max_ms=50,
        )
    )
    try:
        yield consumer
    finally:
        consumer.close()


def _watermarks(consumer: Consumer, kafka: KafkaSettings, topic: str) -> dict[int, tuple[int, int]]:
    try:
        metadata = consumer.list_topics(topic, timeout=kafka.timeout_s).topics[topic]
        _check(metadata.error, kafka, topic)
        return {
            partition: consumer.get_watermark_offsets(
                TopicPartition(topic, partition), timeout=kafka.timeout_s, cached=False
            )
            for partition in metadata.partitions
        }
    except KafkaException as error:
        raise _problem(error.args[0], kafka, topic) from None


def _read(
    consumer: Consumer,
    kafka: KafkaSettings,
    begin: list[TopicPartition],
    ends: dict[int, int],
    timeout_s: float,
) -> Iterator[Message]:
    """Yield until each partition of ``begin`` has reached its end.

    The last message of a transactional topic is followed by a control record, so a partition is done when
    librdkafka reports its end, or when a message at or beyond the end arrives because writers went on.
    """
    consumer.assign(begin)
    consumer.resume(begin)  # librdkafka keeps a partition paused through a new assignment
    left = {part.partition: part for part in begin}
    silent_s = 0.0
    while left:
        chunk = consumer.consume(_CHUNK, timeout=_POLL_S)
        silent_s = 0.0 if chunk else silent_s + _POLL_S
        if silent_s > timeout_s:
            what = f"no answer for {timeout_s:g} s while reading {begin[0].topic}"
            raise Unreachable(what, where=kafka.bootstrap_servers)
        for message in chunk:
            partition, error = message.partition(), message.error()
            if error is None:
                if message.offset() < ends[partition]:
                    yield message
                if message.offset() < ends[partition] - 1:
                    continue
            elif error.code() != KafkaError._PARTITION_EOF:
                _check(error, kafka, begin[0].topic)
            if partition in left:
                consumer.pause([left.pop(partition)])


def _check(error: KafkaError | None, kafka: KafkaSettings, topic: str) -> None:
    if error is not None:
        raise _problem(error, kafka, topic)


def _problem(error: KafkaError, kafka: KafkaSettings, topic: str) -> Problem:
    if error.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC):
        return Problem("no such topic", where=topic, remedy="create it with `spotstream topics apply`")
    return Unreachable(
        f"the broker cannot be reached: {error.str()}",
        where=kafka.bootstrap_servers,
        remedy="check kafka.bootstrap_servers and that the broker runs",
    )
