"""Blocks of messages handed to librdkafka without a Python object for each."""

from ctypes import string_at

import numpy as np
import pytest
from confluent_kafka import KafkaError, KafkaException, Producer
from conftest import MakeTopic
from hypothesis import given
from hypothesis import strategies as st

from schemas import rawkey, rawkeys
from streams.lab.kafka import Broker
from topics import block as block_module
from topics.block import Block, send_blocks
from topics.connection import KafkaSettings
from topics.reader import read_all

NOWHERE = {"bootstrap.servers": "127.0.0.1:1", "log_level": 0}


def block(values: list[bytes], gap: bytes = b"") -> Block:
    """With ``gap`` before each value, and keys of four bytes that count."""
    sizes = np.array([len(value) for value in values], np.int64)
    starts = np.cumsum(sizes + len(gap)) - sizes
    keys = np.arange(len(values), dtype=">u4").view(np.uint8).reshape(-1, 4)
    return Block.of(keys, b"".join(gap + value for value in values), starts, sizes)


def test_what_is_sent_waits_in_the_producer() -> None:
    """So the ``rd_kafka_t`` is where it is looked for."""
    producer, other = Producer(NOWHERE), Producer(NOWHERE)
    send_blocks(producer, "topic", [block([b"x"] * 1234)], 0)
    assert len(producer) >= 1234 > len(other)  # errors wait there, too
    producer.purge()


def test_a_full_queue_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the queue holds is given up here after a while, for want of a broker."""
    monkeypatch.setattr(block_module, "QUEUE", 10)
    monkeypatch.setattr(block_module, "_SLICE", 5)
    limits = {"queue.buffering.max.messages": 10, "message.timeout.ms": 100, "linger.ms": 0}
    producer = Producer(NOWHERE | limits)
    send_blocks(producer, "topic", [block([b"x"] * 25)], 0)
    assert len(producer) <= 10


def test_a_message_that_is_not_taken_is_told() -> None:
    producer = Producer(NOWHERE | {"message.max.bytes": 1000})
    with pytest.raises(KafkaException) as refused:
        send_blocks(producer, "topic", [block([b"x", b"x" * 2000, b"x"])], 0)
    assert refused.value.args[0].code() == KafkaError.MSG_SIZE_TOO_LARGE
    producer.purge()


@given(st.lists(st.tuples(st.binary(max_size=9), st.binary(max_size=9))), st.binary(max_size=5))
def test_joined_messages_are_found_where_they_are_said_to_lie(
    pairs: list[tuple[bytes, bytes]], head: bytes
) -> None:
    made = Block.joined([key for key, _ in pairs], [value for _, value in pairs], head)
    found = [
        (string_at(int(m["key"]), int(m["key_len"])), string_at(int(m["payload"]), int(m["len"])))
        for m in made.messages
    ]
    assert found == [(key, head + value) for key, value in pairs]


@pytest.mark.broker
def test_keys_say_where_joined_messages_go(broker: Broker, make_topic: MakeTopic) -> None:
    """As confluent-kafka's own ``produce`` has it, under the same partitioner."""
    topics = make_topic("ours", 7), make_topic("theirs", 7)
    producer = Producer({"bootstrap.servers": broker.bootstrap, "partitioner": "murmur2_random"})
    keys = [b"SP-%d" % number for number in range(500)]
    send_blocks(producer, topics[0], [Block.joined(keys, keys)])
    for key in keys:
        producer.produce(topics[1], key, key)
    assert producer.flush(30) == 0
    kafka = KafkaSettings(bootstrap_servers=broker.bootstrap)
    ours, theirs = ({m.key(): m.partition() for m in read_all(kafka, topic)} for topic in topics)
    assert ours == theirs
    assert set(ours) == set(keys)


@pytest.mark.broker
def test_messages_arrive_as_they_lie_in_memory_and_in_order(broker: Broker, make_topic: MakeTopic) -> None:
    topic = make_topic(partitions=3)
    producer = Producer({"bootstrap.servers": broker.bootstrap, "enable.idempotence": True})
    values = [b"%d" % number * (number % 40) for number in range(5000)]
    send_blocks(producer, topic, [block(values, b"# between\n"), block([b"last"])], 1)
    assert producer.flush(30) == 0
    found = list(read_all(KafkaSettings(bootstrap_servers=broker.bootstrap), topic))
    assert {message.partition() for message in found} == {1}
    assert [message.value() for message in found] == [*values, b"last"]
    assert [int.from_bytes(message.key()) for message in found] == [*range(5000), 0]


places = st.lists(st.tuples(*[st.integers(0, 2**62)] * 3), max_size=5)


@given(st.binary(min_size=16, max_size=16), places)
def test_keys_packed_together_are_those_packed_one_by_one(
    descriptor: bytes, given_places: list[tuple[int, int, int]]
) -> None:
    offsets, numbers, skipped = np.array(given_places, np.int64).reshape(-1, 3).T
    keys = rawkeys.pack(descriptor, offsets, numbers, skipped)
    assert [row.tobytes() for row in keys] == [rawkey.pack(descriptor, *place) for place in given_places]
