"""How far the two groups are, seen from outside: straight from the brokers, whatever links do."""

import time
from contextlib import suppress

from confluent_kafka import Consumer, KafkaException, TopicPartition

#: Group and the topic that it reads.
HOPS = {"spotstream-validate": "avion.raw", "spotstream-dispatch": "avstar.batches"}
_ANSWER_S = 3.0

_OFFSETS, _TRANSACTIONS = "__consumer_offsets", "__transaction_state"
_OPEN_S = 10.0

Offsets = dict[int, int]  #: by partition


def _java_hash(text: str) -> int:
    """Without its sign, as Kafka's ``GroupMetadataManager.partitionFor`` has it."""
    found = 0
    for character in text:
        found = (31 * found + ord(character)) & 0xFFFFFFFF
    return min(found, (1 << 32) - found)


class Watch:
    """Asks the brokers; answers that do not come are asked for again."""

    def __init__(self, bootstrap: str) -> None:
        config = {"bootstrap.servers": bootstrap, "log_level": 0, "reconnect.backoff.max.ms": 200}
        # Else no answer comes while a partition has a transaction under way: on a busy machine, always.
        config |= {"isolation.level": "read_uncommitted", "enable.auto.commit": False}
        # A list_offsets of librdkafka 2.16 that meets several brokers may end the process by SIGSEGV.
        self._consumers = {group: Consumer(config | {"group.id": group}) for group in HOPS}
        self._committed = Consumer(config | {"group.id": "chaos", "isolation.level": "read_committed"})

    def await_brokers(self, count: int) -> None:
        """Return when there are so many."""
        consumer, deadline = next(iter(self._consumers.values())), time.monotonic() + 60
        while True:
            with suppress(KafkaException):
                if len(consumer.list_topics(timeout=_ANSWER_S).brokers) >= count:
                    return
            assert time.monotonic() < deadline, f"not {count} brokers within a minute"
            time.sleep(0.2)

    def _partitions(self, group: str) -> list[TopicPartition]:
        found = self._consumers[group].list_topics(HOPS[group], timeout=_ANSWER_S).topics[HOPS[group]]
        return [TopicPartition(HOPS[group], partition) for partition in found.partitions]

    def ends(self, group: str) -> Offsets:
        """Where the topic that the group reads ends."""
        ask = self._consumers[group].get_watermark_offsets
        return {at.partition: ask(at, _ANSWER_S)[1] for at in self._partitions(group)}

    def positions(self, group: str) -> Offsets:
        """What the group has committed."""
        found = self._consumers[group].committed(self._partitions(group), _ANSWER_S)
        return {at.partition: at.offset for at in found}

    def coordinator(self, group: str) -> int:
        """The broker that coordinates the group: that which leads its partition of the groups' offsets.

        To ask an admin client may end this process by an assertion, while brokers go.
        """
        return self._leader(_OFFSETS, group)

    def transaction(self, partition: int) -> int:
        """The broker that coordinates what validate commits of a raw partition, while a transaction is open.

        One is as long as those who read what is committed see less of the partition's batches than there is.
        """
        batches, deadline = TopicPartition("avstar.batches", partition), time.monotonic() + _OPEN_S
        number = self._leader(_TRANSACTIONS, f"spotstream-validate-avion.raw-{partition}")
        ends = [
            asked.get_watermark_offsets for asked in (self._committed, self._consumers["spotstream-dispatch"])
        ]
        while time.monotonic() < deadline:
            committed, written = (ask(batches, _ANSWER_S)[1] for ask in ends)
            if committed < written:
                break
        return number

    def _leader(self, topic: str, name: str) -> int:
        """Of the partition that has what is called so."""
        found = self._committed.list_topics(topic, timeout=_ANSWER_S).topics[topic].partitions
        return int(found[_java_hash(name) % len(found)].leader)

    def recovery(self, since: float, timeout_s: float = 60) -> tuple[dict[str, float], dict[str, float]]:
        """For each group, seconds from ``since`` until it has done something that came later, and until it
        has on every partition; absent where it has not in time.
        """
        marks: dict[str, Offsets] = {}
        first: dict[str, float] = {}
        every: dict[str, float] = {}
        while len(every) < len(HOPS) and time.monotonic() < since + timeout_s:
            for group in HOPS:
                # Brokers that are starting do not answer: asked again, and the clock runs.
                with suppress(KafkaException, TimeoutError):
                    if group not in marks:
                        marks[group] = self.ends(group)
                    positions = self.positions(group)
                    passed = [positions.get(p, 0) > mark for p, mark in marks[group].items()]
                    now = round(time.monotonic() - since, 2)
                    if any(passed):
                        first.setdefault(group, now)
                    if all(passed):
                        every.setdefault(group, now)
            time.sleep(0.1)
        return first, every
