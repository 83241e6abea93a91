"""The oldest record of a partition that is not read yet: when it was appended, how long it is kept."""

import time
from collections.abc import Mapping
from math import inf

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType

from topics.admin import LATEST, Asker
from topics.connection import KafkaSettings


class Oldest:
    """Asks about one topic over connections that it keeps.

    Its calls block, each for ``timeout_s`` at the most, raise ``KafkaException`` or ``TimeoutError`` when the
    broker does not answer, and are made one at a time.
    """

    def __init__(self, kafka: KafkaSettings, topic: str, timeout_s: float = 3.0) -> None:
        self._topic, self._timeout_s = topic, timeout_s
        self._admin, self._asker = AdminClient(kafka.confluent()), Asker(kafka)
        self._consumer = Consumer(
            # One record of each is wanted: fetch as little as can be, and not ahead.
            kafka.reading(fetch_message_max_bytes=1024, queued_min_messages=1)
        )

    def ends(self, partitions: list[int]) -> dict[int, int]:
        """The offsets up to which committed records go, by partition."""
        return self._asker.offsets(self._topic, dict.fromkeys(partitions, LATEST), self._timeout_s)

    def appended_ms(self, positions: Mapping[int, int]) -> dict[int, int]:
        """When the first committed record from each position on was appended, where there is one."""
        found: dict[int, int] = {}
        left = set(positions)
        begin = [TopicPartition(self._topic, partition, at) for partition, at in positions.items()]
        deadline = time.monotonic() + self._timeout_s
        self._consumer.assign(begin)
        try:
            while left and (rest_s := deadline - time.monotonic()) > 0:
                message = self._consumer.poll(rest_s)
                if message is None:
                    continue
                error = message.error()
                if error and error.code() != KafkaError._PARTITION_EOF:
                    raise KafkaException(error)
                if not error and message.partition() in left:
                    found[message.partition()] = message.timestamp()[1]
                left.discard(message.partition())
        finally:
            self._consumer.unassign()
        return found

    def retention_s(self) -> float:
        """How long the broker keeps the topic's records; infinite where it deletes none by age."""
        resource = ConfigResource(ResourceType.TOPIC, self._topic)
        (answer,) = self._admin.describe_configs([resource], request_timeout=self._timeout_s).values()
        entries = answer.result(self._timeout_s + 1)
        kept_ms = int(entries["retention.ms"].value)
        by_age = "delete" in entries["cleanup.policy"].value and kept_ms >= 0
        return kept_ms / 1000 if by_age else inf
