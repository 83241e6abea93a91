"""How far a replay has come: offsets of a consumer group that nobody joins, committed with what was sent.

The group's name derives from the command's arguments, so the same command finds its own. An offset is the
first raw offset of the last batch that was handed over, or that could not be; its metadata has the replay's
name, the spans that it was begun with, that batch's key and, if any could not be, how many.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from hashlib import sha256

from confluent_kafka import OFFSET_INVALID, KafkaException, Producer, TopicPartition

from schemas.errors import Problem
from schemas.letter import now
from streams.recovery.span import Spans
from topics.admin import Admin, problem
from topics.catalogue import BATCHES, DISPATCHING, RAW
from topics.connection import KafkaSettings
from topics.ownership import group_metadata
from topics.transaction import COMMAND_S, AbortedError, OwnershipLostError, TransactionalProducer

_ENDED = "ended"


@dataclass
class Marks:
    """A replay's name and spans; by partition, the last place that it passed and how many it ``refused``.

    It passes a batch by handing it over, or by refusing one that cannot be sent any more.
    """

    name: str
    spans: Spans
    places: dict[int, tuple[int, str]] = field(default_factory=dict)
    refused: Counter[int] = field(default_factory=Counter)

    def passed(self, partition: int, place: tuple[int, str]) -> bool:
        """Whether it has passed a batch before."""
        return place <= self.places.get(partition, (-1, ""))


class Bookmark:
    """One for each set of ``arguments``. Raises :class:`Unreachable`."""

    def __init__(self, kafka: KafkaSettings, arguments: str) -> None:
        self._kafka = kafka
        self._group = f"spotstream-replay-{sha256(arguments.encode()).hexdigest()[:16]}"
        self._producer = TransactionalProducer(kafka, self._group, timeout_s=COMMAND_S, reports=True)

    def fence(self) -> None:
        """Keep whoever runs the same replay from going on."""
        try:
            self._producer.fence()
        except KafkaException as error:
            raise problem(error.args[0], self._kafka, self._group) from None

    def new(self, spans: Spans) -> Marks:
        """Of a replay that begins now."""
        return Marks(f"{self._group[-16:]}@{now()}", spans)

    def read(self) -> Marks | None:
        """Of a replay that was interrupted; None when there is none."""
        return _marks(self._committed(self._group, RAW.name))

    def commit(self, produce: Callable[[Producer], None], marks: Marks) -> None:
        """Commit what ``produce`` sends and the marks; raises :class:`Problem` when fenced."""
        self._write(produce, [_offset(marks, partition) for partition in marks.spans.wanted])

    def end(self, marks: Marks) -> None:
        """Forget the replay: the same command begins another one."""
        ended = [TopicPartition(RAW.name, partition, 0, metadata=_ENDED) for partition in marks.spans.wanted]
        self._write(lambda _: None, ended)

    def dispatched(self) -> dict[int, int]:
        """By partition of ``avstar.batches``, the position that dispatch has committed."""
        return {at.partition: max(at.offset, 0) for at in self._committed(DISPATCHING, BATCHES.name)}

    def _write(self, produce: Callable[[Producer], None], offsets: list[TopicPartition]) -> None:
        try:
            self._producer.commit(produce, offsets, group_metadata(self._group, -1, ""))
        except OwnershipLostError:
            raise Problem("the same replay was started elsewhere", remedy="it goes on from here") from None
        except AbortedError as error:
            raise Problem(error.told, remedy="do it again: it goes on from here") from None

    def _committed(self, group: str, topic: str) -> list[TopicPartition]:
        admin = Admin(self._kafka)
        return admin.committed(group, [TopicPartition(topic, at) for at in admin.topic(topic).partitions])


def _offset(marks: Marks, partition: int) -> TopicPartition:
    first, key = marks.places.get(partition, (0, ""))
    spans = ",".join(f"{first}-{last}" for first, last in marks.spans.wanted[partition])
    refused = f" {marks.refused[partition]}" if marks.refused[partition] else ""
    return TopicPartition(RAW.name, partition, first, metadata=f"{marks.name} {spans} {key}{refused}")


def _marks(committed: Iterable[TopicPartition]) -> Marks | None:
    found: Marks | None = None
    for at in committed:
        if at.offset == OFFSET_INVALID or not at.metadata or at.metadata == _ENDED:
            continue
        name, spans, key, *refused = at.metadata.split(" ")
        found = found or Marks(name, Spans({}))
        wanted = Spans.parse(f"{at.partition}:{span}" for span in spans.split(",")).wanted
        found.spans = Spans({**found.spans.wanted, **wanted})
        if key:
            found.places[at.partition] = at.offset, key
        found.refused[at.partition] = sum(map(int, refused))
    return found
