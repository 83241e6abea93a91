"""What a role has yet to do, told to its metrics now and then: how much, how old, how long it is kept."""

import asyncio
import time
from contextlib import suppress
from math import inf, isfinite

from confluent_kafka import KafkaException

from streams import metrics
from topics.catalogue import Topic
from topics.oldest import Oldest
from topics.ownership import Ownership


class Unread:
    """Looks at the partitions that ``ownership`` has of ``topic``, every ``every_s``.

    The consumer knows the log's ends only while it fetches, which it does not when dispatch is held: just
    when people want to know how much has piled up.
    """

    def __init__(self, ownership: Ownership, topic: Topic, every_s: float = 10.0) -> None:
        self._ownership, self._topic, self._every_s = ownership, topic, every_s
        self._oldest = Oldest(ownership.kafka, topic.name)
        self._appended: dict[int, int] = {}
        self._kept_s = inf
        #: Of the log, as it was found the last time, by partition.
        self.ends: dict[int, int] = {}

    async def run(self) -> None:
        """Look again and again, until cancelled. While the broker is away, what is known gets older."""
        while True:
            with suppress(KafkaException, TimeoutError):
                await self._look()
            self._tell()
            await asyncio.sleep(self._every_s)

    async def _look(self) -> None:
        positions = {owned.partition.partition: owned.position for owned in self._ownership.owned}
        ends = await asyncio.to_thread(self._oldest.ends, list(positions)) if positions else {}
        behind = {partition: at for partition, at in positions.items() if ends[partition] > at}
        appended = await asyncio.to_thread(self._oldest.appended_ms, behind) if behind else {}
        if appended:
            self._kept_s = await asyncio.to_thread(self._oldest.retention_s)
        self.ends, self._appended = ends, appended

    def _tell(self) -> None:
        now, topic = time.time(), self._topic.name
        owned = {owned.partition.partition for owned in self._ownership.owned}
        metrics.UNREAD_AGE.clear()
        metrics.RETENTION_LEFT.clear()
        for partition in owned & self._appended.keys():
            age_s = max(0.0, now - self._appended[partition] / 1000)
            metrics.UNREAD_AGE.labels(topic, partition).set(age_s)
            if isfinite(self._kept_s):
                metrics.RETENTION_LEFT.labels(topic, partition).set(self._kept_s - age_s)
