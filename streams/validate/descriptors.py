"""The descriptors of files, read from ``avion.files`` as they are asked for."""

import threading
from contextlib import suppress

from confluent_kafka import Consumer, KafkaError, TopicPartition

from schemas.descriptor import Descriptor
from schemas.errors import Unreachable
from topics.admin import problem
from topics.catalogue import FILES
from topics.connection import READERS, KafkaSettings
from topics.reader import read_compacted


def read_descriptors(kafka: KafkaSettings) -> dict[bytes, Descriptor]:
    """Of all files, by their ids; what cannot be read is left out, as the workers leave it out."""
    found: dict[bytes, Descriptor] = {}
    for key, value in read_compacted(kafka, FILES.name).items():
        with suppress(ValueError):
            found[key] = Descriptor.read(key, value)
    return found


class Descriptors:
    """Descriptor id → descriptor. Reads on where it stopped when an unknown id is asked for.

    A descriptor is committed in the transaction of its file's first record, so whoever reads that record
    finds it. Calls block and may come from several threads.
    """

    def __init__(self, kafka: KafkaSettings) -> None:
        self._kafka = kafka
        self._known: dict[bytes, Descriptor] = {}
        self._lock = threading.Lock()
        self._consumer = Consumer(
            kafka.confluent(
                group_id=READERS,
                enable_auto_commit=False,
                enable_partition_eof=True,
                # Another tailer's open transaction would hide what is committed behind it; and an id is made
                # of its descriptor's content, so one of an aborted transaction can do no harm.
                isolation_level="read_uncommitted",
                fetch_wait_max_ms=50,
            )
        )
        self._consumer.assign([TopicPartition(FILES.name, 0, 0)])

    def get(self, descriptor: bytes) -> Descriptor | None:
        """The descriptor of that id; None when the topic has none. Raises :class:`Unreachable`."""
        with self._lock:
            if descriptor not in self._known:
                self._read_on()
            return self._known.get(descriptor)

    def _read_on(self) -> None:
        """Read to the end that the broker reports now, not to one that was seen before the question."""
        (position,) = self._consumer.position([TopicPartition(FILES.name, 0)])
        self._consumer.assign([TopicPartition(FILES.name, 0, max(position.offset, 0))])
        while True:
            message = self._consumer.poll(self._kafka.timeout_s)
            if message is None:
                raise Unreachable(
                    f"no answer while reading {FILES.name}", where=self._kafka.bootstrap_servers
                )
            error = message.error()
            if error is None:
                self._add(message.key() or b"", message.value() or b"")
            elif error.code() == KafkaError._PARTITION_EOF:
                return
            else:
                raise problem(error, self._kafka, FILES.name)

    def _add(self, key: bytes, value: bytes) -> None:
        # What is not ours is left out; records that point to it are rejected for having no descriptor.
        with suppress(ValueError):
            self._known[key] = Descriptor.read(key, value)

    def close(self) -> None:
        """Leave the broker."""
        self._consumer.close()
