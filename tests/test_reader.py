"""Reading a topic from end to end: all that was committed, nothing else, and it ends."""

import socket
import threading
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from confluent_kafka import Message, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from schemas.errors import Problem, Unreachable
from streams.lab.kafka import Broker
from streams.recovery import bookmark, letters
from topics.connection import KafkaSettings
from topics.reader import (
    STABLE_S,
    Compacted,
    beginnings,
    follow,
    read_all,
    read_compacted,
    read_records,
)
from topics.transaction import COMMAND_S, TransactionalProducer

broker_needed = pytest.mark.broker
MakeTopic = Callable[..., str]


@pytest.fixture
def kafka(broker: Broker) -> KafkaSettings:
    return KafkaSettings(bootstrap_servers=broker.bootstrap)


def _values(messages: list[Message]) -> list[bytes]:
    return [message.value() or b"" for message in messages]


def _transactional(kafka: KafkaSettings, name: str) -> Producer:
    producer = Producer(kafka.confluent(transactional_id=name))
    producer.init_transactions(15)
    return producer


def _commit(producer: Producer, topic: str, *values: str, partition: int = 0) -> None:
    producer.begin_transaction()
    for value in values:
        producer.produce(topic, value, partition=partition)
    producer.commit_transaction(15)


@broker_needed
def test_it_ends_behind_a_control_record(kafka: KafkaSettings, make_topic: MakeTopic, unique: str) -> None:
    topic = make_topic(partitions=3)
    producer = _transactional(kafka, unique)
    for partition, values in ((0, "ab"), (1, "c"), (0, "d")):
        _commit(producer, topic, *values, partition=partition)
    begin = time.monotonic()
    found = list(read_all(kafka, topic))
    assert sorted(_values(found)) == [b"a", b"b", b"c", b"d"]
    assert [m.offset() for m in found if m.partition() == 0] == [0, 1, 3]  # 2 and 4 are control records
    assert time.monotonic() - begin < 5


@broker_needed
def test_aborted_records_are_not_read(kafka: KafkaSettings, make_topic: MakeTopic, unique: str) -> None:
    topic = make_topic()
    producer = _transactional(kafka, unique)
    _commit(producer, topic, "kept")
    producer.begin_transaction()
    producer.produce(topic, "aborted")
    producer.flush(15)
    producer.abort_transaction(15)
    assert _values(list(read_all(kafka, topic))) == [b"kept"]


@broker_needed
@pytest.mark.parametrize("commits", [True, False])
def test_it_waits_for_an_open_transaction(
    kafka: KafkaSettings, make_topic: MakeTopic, unique: str, commits: bool
) -> None:
    topic = make_topic(partitions=2)
    producer = _transactional(kafka, unique)
    _commit(producer, topic, "kept")
    producer.begin_transaction()
    producer.produce(topic, "open", partition=0)
    producer.flush(15)
    end = threading.Timer(1, producer.commit_transaction if commits else producer.abort_transaction)
    end.start()
    assert _values(list(read_all(kafka, topic))) == [b"kept", b"open"][: 1 + commits]
    end.join()


@broker_needed
def test_a_transaction_that_stays_open_is_a_problem(
    kafka: KafkaSettings, make_topic: MakeTopic, unique: str
) -> None:
    topic = make_topic()
    producer = _transactional(kafka, unique)
    producer.begin_transaction()
    producer.produce(topic, "open")
    producer.flush(15)
    with pytest.raises(
        Problem, match=f"{topic}: a transaction has been open since offset 0 for 1 s; end the"
    ):
        list(read_all(kafka, topic, stable_s=1))
    producer.abort_transaction(15)


@broker_needed
def test_a_command_that_is_killed_in_its_transaction_lets_readers_go_on_in_time(
    kafka: KafkaSettings, make_topic: MakeTopic, unique: str
) -> None:
    """Who reads a dead letter while a redrive is killed, say: the broker ends the transaction by itself."""
    topic = make_topic()
    killed = TransactionalProducer(kafka, unique, timeout_s=COMMAND_S)
    killed.fence()
    killed._producer.begin_transaction()
    killed._producer.produce(topic, "open")
    killed._producer.flush(15)
    assert list(read_all(kafka, topic)) == []


@pytest.mark.parametrize(
    "command", [letters.Pen, partial(bookmark.Bookmark, arguments="")], ids=["redrive", "replay"]
)
def test_readers_outwait_the_broker_that_ends_a_command_s_transaction(
    monkeypatch: pytest.MonkeyPatch, command: Callable[[KafkaSettings], object]
) -> None:
    looks_every_s = 10  # transaction.abort.timed.out.transaction.cleanup.interval.ms
    given = []

    class Told:
        def __init__(self, *_: object, timeout_s: float, **__: object) -> None:
            given.append(timeout_s)

        def fence(self) -> None:
            """Nothing."""

    for module in (letters, bookmark):
        monkeypatch.setattr(module, "TransactionalProducer", Told)
    command(KafkaSettings())
    assert given[0] + looks_every_s < STABLE_S


@broker_needed
def test_what_was_committed_a_moment_ago_is_read(
    kafka: KafkaSettings, make_topic: MakeTopic, unique: str
) -> None:
    topic = make_topic(partitions=8)
    producer = _transactional(kafka, unique)
    for number in range(1, 6):
        producer.begin_transaction()
        for partition in range(8):
            producer.produce(topic, str(number), partition=partition)
        producer.commit_transaction(15)
        assert len(list(read_all(kafka, topic))) == 8 * number


@broker_needed
def test_the_end_is_where_it_stood_at_the_call(kafka: KafkaSettings, make_topic: MakeTopic) -> None:
    topic = make_topic()
    producer = Producer(kafka.confluent())
    for number in range(5):
        producer.produce(topic, str(number))
    producer.flush(15)
    found = []
    for message in read_all(kafka, topic):
        found.append(message)
        producer.produce(topic, "later")
        producer.flush(15)
    assert _values(found) == [b"0", b"1", b"2", b"3", b"4"]


@broker_needed
def test_many_records_of_many_partitions_in_order(kafka: KafkaSettings, make_topic: MakeTopic) -> None:
    topic = make_topic(partitions=4)
    # Idempotent: what is sent again, as while a new topic finds its leaders, keeps its order.
    producer = Producer(kafka.confluent(linger_ms=20, enable_idempotence=True))
    for number in range(30_000):
        producer.produce(topic, b"%d" % number, partition=number % 4)
        producer.poll(0)
    producer.flush(15)
    found = list(read_all(kafka, topic))
    for partition in range(4):
        values = [int(m.value() or b"") for m in found if m.partition() == partition]
        assert values == list(range(partition, 30_000, 4))


@broker_needed
def test_a_topic_with_nothing_in_it(kafka: KafkaSettings, make_topic: MakeTopic) -> None:
    topic = make_topic(partitions=2)
    assert list(read_all(kafka, topic)) == []
    assert beginnings(kafka, topic) == {0: 0, 1: 0}


@broker_needed
def test_compacted_keeps_the_latest_value_and_drops_tombstones(
    kafka: KafkaSettings, make_topic: MakeTopic
) -> None:
    topic = make_topic(config={"cleanup.policy": "compact"})
    producer = Producer(kafka.confluent())
    for key, value in (("a", "1"), ("b", "1"), ("a", "2"), ("b", None), ("c", "1"), ("d", None), ("d", "9")):
        producer.produce(topic, value, key)
    producer.flush(15)
    assert read_compacted(kafka, topic) == {b"a": b"2", b"c": b"1", b"d": b"9"}


@broker_needed
def test_what_is_made_of_the_latest_values_is_made_once_and_alone_is_held(
    kafka: KafkaSettings, make_topic: MakeTopic
) -> None:
    topic = make_topic(config={"cleanup.policy": "compact"})
    producer, made = Producer(kafka.confluent()), []
    compacted = Compacted(kafka, topic, lambda key, value: made.append(key + value) or len(made))
    for key, value in (("a", "1"), ("b", "1")):
        producer.produce(topic, value, key)
    producer.flush(15)
    assert compacted.refresh() == {b"a": 1, b"b": 2}
    for key, value in (("b", None), ("c", "1")):
        producer.produce(topic, value, key)
    producer.flush(15)
    assert compacted.refresh() == {b"a": 1, b"c": 3}
    assert compacted.refresh() == {b"a": 1, b"c": 3}
    assert made == [b"a1", b"b1", b"c1"]


@broker_needed
def test_given_offsets_are_found_and_those_without_a_record_left_out(
    kafka: KafkaSettings, make_topic: MakeTopic, unique: str
) -> None:
    topic = make_topic(partitions=2)
    producer = _transactional(kafka, unique)
    _commit(producer, topic, *(str(number) for number in range(25_000)), partition=1)
    _commit(producer, topic, "last", partition=1)
    wanted = [24_999, 3, 25_000, 25_001, 25_002, 99_999, 0]  # 25,000 and 25,002 are control records
    found = read_records(kafka, topic, 1, wanted)
    assert {offset: message.value() for offset, message in found.items()} == {
        0: b"0",
        3: b"3",
        24_999: b"24999",
        25_001: b"last",
    }
    assert read_records(kafka, topic, 1, []) == {}
    assert read_records(kafka, topic, 0, [0]) == {}


@broker_needed
def test_following_goes_on_after_the_broker_was_away(tmp_path: Path, unique: str) -> None:
    """The one test that kills a broker here: it has its own."""
    with Broker(tmp_path / "kafka") as own:
        kafka = KafkaSettings(bootstrap_servers=own.bootstrap)
        admin = AdminClient(kafka.confluent())
        admin.create_topics([NewTopic(unique, 2, 1)])[unique].result(15)
        _commit(_transactional(kafka, "before"), unique, "a", "b")
        found: list[bytes] = []
        with closing(follow(kafka, unique, None)) as chunks:

            def read_until(count: int) -> None:
                deadline = time.monotonic() + 60
                while len(found) < count:
                    found.extend(_values(next(chunks)))
                    assert time.monotonic() < deadline

            read_until(2)
            own.kill()
            for _ in range(40):  # two seconds in which nobody answers
                assert next(chunks) == []
            own.start()
            _commit(_transactional(kafka, "after"), unique, "c", partition=1)
            read_until(3)
    assert found == [b"a", b"b", b"c"]


@broker_needed
def test_a_topic_that_is_not_there_is_a_problem_and_stays_away(kafka: KafkaSettings, unique: str) -> None:
    for _ in range(2):
        with pytest.raises(Problem, match=f"{unique}: no such topic; .*spotstream topics apply"):
            list(read_all(kafka, unique))


def test_a_broker_that_is_not_there_is_unreachable_in_time() -> None:
    with socket.socket() as listener:  # bound, but nobody listens
        listener.bind(("127.0.0.1", 0))
        kafka = KafkaSettings(bootstrap_servers=f"127.0.0.1:{listener.getsockname()[1]}", timeout_s=1)
        begin = time.monotonic()
        with pytest.raises(Unreachable, match="no Kafka broker answered"):
            list(read_all(kafka, "any"))
        assert time.monotonic() - begin < 4
