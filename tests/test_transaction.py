"""What a broker refuses for good ends a transaction with a problem that names the topic, at once."""

import os

import pytest

from schemas.errors import Problem
from topics.connection import KafkaSettings
from topics.transaction import TransactionalProducer

pytestmark = pytest.mark.broker


@pytest.mark.parametrize(
    ("config", "key", "size"),
    [
        ({"cleanup.policy": "compact"}, None, 9),
        ({"max.message.bytes": "1000"}, b"k", 100_000),
        ({}, b"k", 30_000_000),
    ],
    ids=["no key", "too large for the topic", "too large for any"],
)
def test_a_record_that_is_refused_for_good(broker, make_topic, unique, config, key, size):
    topic = make_topic(config=config)
    producer = TransactionalProducer(KafkaSettings(bootstrap_servers=broker.bootstrap), unique, timeout_s=15)
    producer.fence()
    with pytest.raises(Problem, match=r"refused, and would be again .*spotstream topics plan") as caught:
        producer.commit(lambda inner: inner.produce(topic, os.urandom(size), key))
    assert caught.value.where == topic
