"""The embedded broker: it starts, keeps its data, and never outlives its starter."""

import pytest
from confluent_kafka import Consumer, Producer

pytestmark = pytest.mark.broker


def test_takes_and_gives_back_a_message(broker, make_topic, unique):
    topic = make_topic()
    producer = Producer({"bootstrap.servers": broker.bootstrap})
    producer.produce(topic, b"value", b"key")
    assert producer.flush(15) == 0
    consumer = Consumer(
        {"bootstrap.servers": broker.bootstrap, "group.id": unique, "auto.offset.reset": "earliest"}
    )
    consumer.subscribe([topic])
    message = consumer.poll(15)
    consumer.close()
    assert message is not None
    assert (message.key(), message.value()) == (b"key", b"value")
