"""Where a consumer group stands on a topic, as the broker tells anybody: every partition, whoever owns it."""

from collections.abc import Mapping
from typing import NamedTuple

from confluent_kafka import ConsumerGroupTopicPartitions, IsolationLevel, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec


class Place(NamedTuple):
    """Of one partition: the offset to be read next, and the end of the log, markers and all."""

    position: int
    end: int

    @property
    def behind(self) -> int:
        """Offsets between the two."""
        return max(0, self.end - self.position)


def standing(admin: AdminClient, group: str, topic: str, timeout_s: float) -> dict[int, Place]:
    """By partition. One that nothing was ever committed of stands at its beginning.

    Raises ``KafkaException``, or ``TimeoutError``.
    """
    found = admin.list_topics(topic, timeout=timeout_s).topics[topic].partitions
    ends = offsets(admin, topic, dict.fromkeys(found, OffsetSpec.latest()), timeout_s)
    asked = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, partition) for partition in ends])
    if not ends:
        return {}
    answer = admin.list_consumer_group_offsets([asked], request_timeout=timeout_s)[group]
    committed = {at.partition: at.offset for at in answer.result(timeout_s + 1).topic_partitions}
    new = {partition: OffsetSpec.earliest() for partition, offset in committed.items() if offset < 0}
    positions = committed | (offsets(admin, topic, new, timeout_s) if new else {})
    return {partition: Place(positions[partition], end) for partition, end in ends.items()}


def offsets(
    admin: AdminClient, topic: str, wanted: Mapping[int, OffsetSpec], timeout_s: float
) -> dict[int, int]:
    """The offset that is asked for of each partition, open transactions included; -1 where there is none."""
    asked = admin.list_offsets(
        {TopicPartition(topic, partition): spec for partition, spec in wanted.items()},
        isolation_level=IsolationLevel.READ_UNCOMMITTED,
        request_timeout=timeout_s,
    )
    return {part.partition: answer.result(timeout_s + 1).offset for part, answer in asked.items()}
