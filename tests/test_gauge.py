"""The gauge: how far the flow is, on as many partitions and brokers as there are."""

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition
from flow import until

from streams.lab.gauge import Gauge
from streams.lab.kafka import Broker
from streams.lab.up import Lab
from streams.settings import load
from topics import provision
from topics.admin import Asker
from topics.catalogue import RAW, VALIDATING
from topics.connection import KafkaSettings
from topics.reader import ends


@pytest.mark.broker
@pytest.mark.parametrize("partitions", [3, 12])
def test_every_partition_counts(tmp_path: Path, partitions: int) -> None:
    with Broker(tmp_path) as broker:
        kafka = KafkaSettings(bootstrap_servers=broker.bootstrap, partitions=partitions)
        provision.apply(kafka)
        gauge = Gauge(load({"kafka": {"bootstrap_servers": broker.bootstrap}}), {})
        assert (gauge.published(), gauge.caught_up(RAW, VALIDATING)) == (0, True)
        producer = Producer(kafka.confluent())
        for partition in range(partitions):
            for _ in range(2):  # one alone could be a transaction's marker
                producer.produce(RAW.name, b"", partition=partition)
        producer.flush()
        assert (gauge.published(), gauge.caught_up(RAW, VALIDATING)) == (2 * partitions, False)
        read = [TopicPartition(RAW.name, at, end) for at, end in ends(kafka, RAW.name).items()]
        reader = Asker(kafka, VALIDATING)
        reader.commit(offsets=read[:-1], asynchronous=False)
        assert not gauge.caught_up(RAW, VALIDATING)
        reader.commit(offsets=read, asynchronous=False)
        until(lambda: gauge.caught_up(RAW, VALIDATING))


class ChangingLeader:
    """Answers like a partition that has just changed its leader, then as it should."""

    def __init__(self, code: int) -> None:
        self.codes = [code]

    def topic(self, name: str) -> Any:
        return SimpleNamespace(partitions={0: None})

    def offsets(self, topic: str, since: Mapping[int, int], timeout_s: float) -> dict[int, int]:
        if self.codes:
            raise KafkaException(KafkaError(self.codes.pop()))
        return {0: 7}


@pytest.mark.parametrize("code", [KafkaError.OFFSET_NOT_AVAILABLE, KafkaError.FENCED_LEADER_EPOCH])
def test_a_new_leader_is_asked_again(code: int) -> None:
    asker: Any = ChangingLeader(code)
    assert ends(KafkaSettings(), RAW.name, asker) == {0: 7}


@pytest.mark.slow
@pytest.mark.broker
def test_a_lab_of_three_brokers_holds_everything_three_times(tmp_path: Path) -> None:
    with Lab(tmp_path, replicated=True, partitions=4) as lab:
        standing = provision.require(lab.kafka)
        assert (standing.partitions[RAW.name], standing.weak) == (4, [])
        lab.brokers[2].kill()
        producer = Producer(lab.kafka.confluent(acks="all"))
        producer.produce(RAW.name, b"", partition=0)
        until(lambda: not producer.flush(1))
        assert sum(ends(lab.kafka, RAW.name).values()) == 1
