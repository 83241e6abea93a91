"""What waits downstream: whether dispatch has settled every batch of a partition."""

import asyncio
from contextlib import suppress
from time import monotonic

from confluent_kafka import KafkaException

from topics.admin import Asker
from topics.catalogue import BATCHES, DISPATCHING
from topics.connection import KafkaSettings
from topics.standing import standing

#: How often it is looked while somebody waits for an answer, and how long one may take.
EVERY_S = 0.05
_TIMEOUT_S = 3.0


class Downstream:
    """Asks the broker where dispatch stands, while a lane asks. What is not known is taken to be busy."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self._asker = Asker(kafka, DISPATCHING)
        self._asked = asyncio.Event()
        self._idle: frozenset[int] = frozenset()
        self._made: dict[int, float] = {}

    def expect(self, partition: int) -> None:
        """A batch of this partition has just been committed: what was seen before counts no more."""
        self._made[partition] = monotonic()
        self._idle -= {partition}

    def is_idle(self, partition: int) -> bool:
        """Whether nothing of it waited at the last look; has another one made."""
        self._asked.set()
        return partition in self._idle

    async def run(self) -> None:
        """Look when asked to, until cancelled."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            began, idle = monotonic(), frozenset[int]()
            with suppress(KafkaException):
                idle = await asyncio.to_thread(self._look)
            self._idle = frozenset(at for at in idle if self._made.get(at, 0.0) < began)
            await asyncio.sleep(EVERY_S)

    def _look(self) -> frozenset[int]:
        places = standing(self._asker, BATCHES.name, _TIMEOUT_S)
        # The last offset is the marker of the last transaction, which nobody commits.
        return frozenset(at for at, place in places.items() if place.behind <= 1)
