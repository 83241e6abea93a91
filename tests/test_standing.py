"""Where groups stand is asked again and again by processes that run on, whatever brokers do."""

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewPartitions
from conftest import MakeTopic
from flow import until

from streams.lab.kafka import Broker
from topics.admin import LATEST, Asker
from topics.connection import KafkaSettings

pytestmark = pytest.mark.broker

ASKING = """
import sys
from confluent_kafka import KafkaException
from topics.admin import Asker
from topics.connection import KafkaSettings
from topics.standing import standing

asker = Asker(KafkaSettings(bootstrap_servers=sys.argv[1]), "nobody")
while True:
    try:
        print("answer" if len(standing(asker, "avion.raw", 0.5)) == 8 else "too few", flush=True)
    except KafkaException:
        print("silence", flush=True)
"""


def test_whoever_asks_outlives_the_broker(kafka: Broker, tmp_path: Path) -> None:
    """librdkafka's admin client does not: SIGSEGV, or an assertion, once the broker goes while it asks."""
    output = tmp_path / "output"
    with output.open("wb") as stream:
        asking = subprocess.Popen([sys.executable, "-c", ASKING, kafka.bootstrap], stdout=stream)

    def says(what: str) -> None:
        begin = len(output.read_text())
        until(lambda: what in output.read_text()[begin:] or asking.poll() is not None)
        assert asking.poll() is None

    try:
        says("answer")
        for _ in range(2):
            kafka.kill()
            says("silence")
            kafka.start()
            says("answer")
    finally:
        asking.kill()
        asking.wait(10)
    assert "too few" not in output.read_text()


def test_what_is_known_of_a_topic_is_asked_for_again(broker: Broker, make_topic: MakeTopic) -> None:
    """librdkafka keeps for minutes what it was told before a topic grew, or by a broker just started."""
    topic = make_topic("grows", 1)
    kafka = KafkaSettings(bootstrap_servers=broker.bootstrap)
    asker, admin = Asker(kafka), AdminClient(kafka.confluent())

    def known(partition: int) -> bool:
        with contextlib.suppress(KafkaException):
            return asker.offsets(topic, {partition: LATEST}, 5) == {partition: 0}
        return False

    until(lambda: known(0), 15)
    admin.create_partitions([NewPartitions(topic, 2)])[topic].result(15)
    until(lambda: known(1), 15)
