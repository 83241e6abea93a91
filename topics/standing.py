"""Where a consumer group stands on a topic, as the broker tells anybody: every partition, whoever owns it."""

from typing import NamedTuple

from topics.admin import EARLIEST, LATEST, Asker


class Place(NamedTuple):
    """Of one partition: the offset to be read next, and the end of the log, markers and all."""

    position: int
    end: int

    @property
    def behind(self) -> int:
        """Offsets between the two."""
        return max(0, self.end - self.position)


def standing(asker: Asker, topic: str, timeout_s: float) -> dict[int, Place]:
    """By partition, where the asker's group is; at the beginning where nothing was ever committed.

    Raises ``KafkaException``.
    """
    partitions = asker.list_topics(topic, timeout=timeout_s).topics[topic].partitions
    ends = asker.offsets(topic, dict.fromkeys(partitions, LATEST), timeout_s)
    committed = asker.positions(topic, ends, timeout_s)
    new = [partition for partition, offset in committed.items() if offset < 0]
    positions = committed | asker.offsets(topic, dict.fromkeys(new, EARLIEST), timeout_s)
    return {partition: Place(positions[partition], end) for partition, end in ends.items()}
